"""Names of the factories whose components classify texts, predict numbers and find entities: ours and spaCy's."""

# Exactly one category is true
EXCLUSIVE_FACTORIES = ("textcat", "bert_textcat")
MULTILABEL_FACTORIES = ("bert_textcat_multilabel", "textcat_multilabel")
# Categories are numbers
SCORE_FACTORY = "bert_regression"
NER_FACTORIES = ("bert_ner", "ner", "beam_ner")
