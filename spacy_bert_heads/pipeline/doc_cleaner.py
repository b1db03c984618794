"""What our configs have spaCy's `doc_cleaner` put on Docs."""

import numpy


def build_empty_tensor_v1() -> numpy.ndarray:
    """The `doc.tensor` of a Doc that has none. Registered as spacy_bert_heads.empty_tensor.v1.

    `doc_cleaner` sets it to None unless it is told otherwise, and then `span.as_doc()`, vectors and similarities raise
    AttributeError.

    RETURNS (numpy.ndarray): As spaCy makes it. Float, (0,).
    """
    return numpy.zeros((0,), dtype="float32")
