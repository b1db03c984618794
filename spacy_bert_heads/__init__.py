"""One BERT, several heads, inside spaCy."""

__version__ = "0.2.0.dev0"
