"""Docs -> the formats of annotation tools, one module each."""
