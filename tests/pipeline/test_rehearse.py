"""`nlp.rehearse` is refused by every component of this package."""

import pytest
from spacy.training import Example

from spacy_bert_heads.errors import BertHeadsError

from ..making import make_nlp

TEXT = "please cancel the refund in New York"


def test_rehearsal_is_refused_by_name_with_the_way_that_works(bert_folder: str) -> None:
    for head in (
        "bert_textcat",
        "bert_textcat_multilabel",
        "bert_regression",
        "bert_ner",
        "bert_spans",
        "seq2seq_ner",
    ):
        nlp = make_nlp(bert_folder, [head])
        sgd = nlp.resume_training()
        example = Example(nlp.make_doc(TEXT), nlp.make_doc(TEXT))
        with pytest.raises(BertHeadsError, match=rf"\[H274\] '({head}|transformer)'.*training corpus"):
            nlp.rehearse([example], sgd=sgd)
        for name, component in nlp.pipeline:
            with pytest.raises(BertHeadsError, match=rf"\[H274\] '{name}'"):
                component.rehearse([example], sgd=sgd)  # type: ignore[attr-defined]
