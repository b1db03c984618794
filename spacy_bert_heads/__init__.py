"""One BERT, several heads, inside spaCy."""

__version__ = "0.1.0"
