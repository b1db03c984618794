"""Factories, ours and spaCy's, whose components classify texts, predict numbers, and find entities and spans."""

# Exactly one category is true
EXCLUSIVE_FACTORIES = ("textcat", "bert_textcat")
MULTILABEL_FACTORIES = ("bert_textcat_multilabel", "textcat_multilabel")
# Categories are numbers
SCORE_FACTORY = "bert_regression"
NER_FACTORIES = ("bert_ner", "ner", "beam_ner")
SPANS_FACTORIES = ("bert_spans", "spancat", "spancat_singlelabel")
