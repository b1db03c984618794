"""What the tests of exported encoders share."""

import pytest

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers.runtimes import BACKENDS, check_backend

COMBINATIONS = [(backend, precision) for backend, known in BACKENDS.items() for precision in known.precisions]


def need(backend: str, precision: str = "fp32") -> None:
    """Skip where a backend is not installed."""
    try:
        check_backend(backend, precision)
    except BertHeadsError as error:
        pytest.skip(str(error))
