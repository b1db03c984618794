"""`python -m spacy bert-heads VERB ...`: one module each, which parses, calls and prints."""
