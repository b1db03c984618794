"""Annotation files <-> Docs, without torch."""
