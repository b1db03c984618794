"""Factories, ours and spaCy's, whose components classify texts, predict numbers, and find entities and spans."""

from typing import Any

# Exactly one category is true
EXCLUSIVE_FACTORIES = ("textcat", "bert_textcat")
MULTILABEL_FACTORIES = ("bert_textcat_multilabel", "textcat_multilabel")
# Categories are numbers
SCORE_FACTORY = "bert_regression"
NER_FACTORIES = ("bert_ner", "ner", "beam_ner")
SPANS_FACTORIES = ("bert_spans", "spancat", "spancat_singlelabel")
# Entities or spans, as its settings say
GENERATION_FACTORY = "seq2seq_ner"


def finds_entities(factory: str, pipe: Any) -> bool:
    """RETURNS (bool): Whether a component of this factory sets `doc.ents` to what it predicts."""
    return factory in NER_FACTORIES or (factory == GENERATION_FACTORY and pipe.spans_key is None)


def finds_spans(factory: str, pipe: Any) -> bool:
    """RETURNS (bool): Whether a component of this factory predicts spans that may overlap."""
    return factory in SPANS_FACTORIES or (factory == GENERATION_FACTORY and pipe.spans_key is not None)
