"""Docs -> columns: a token and its tag a line, a blank line after each text."""

import re
from typing import Iterable, Iterator, List

from ...tags import SCHEMES
from ..findings import Findings
from ..readers.conll import WITHOUT_SPACES
from ..readers.tag_spans import MISSING as MISSING_TAG
from ..readers.tag_spans import join_words
from .exported import MISSING, OUTSIDE, Exported

# What would begin another column or another line, of whatever system.
BREAKS = re.compile(r"[\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")


class ConllWriter:
    """Writes tokens and tags with a tab between them. Tokens that are not annotated have the tag `-`.

    scheme (str): One of tags.SCHEMES.
    lang (str): Decides whether a reader puts spaces between tokens.
    """

    name = "conll"

    def __init__(self, scheme: str, lang: str) -> None:
        self.letters = SCHEMES[scheme]
        self.with_spaces = lang not in WITHOUT_SPACES

    def lines(self, docs: Iterable[Exported], findings: Findings) -> Iterator[str]:
        """Write a file.

        docs (Iterable[Exported]): What to write, read once.
        findings (Findings): Takes what the format cannot hold.
        YIELDS (str): Lines of the file, with their ends.
        """
        for exported in docs:
            doc = exported.doc
            kept = [token for token in doc if not token.text.isspace()]
            if not kept:
                findings.note("lost_blank", exported.where)
                continue
            words = [_one_cell(token.text) for token in kept]
            if join_words(words, with_spaces=self.with_spaces)[0] != doc.text:
                findings.note("lost_spacing", exported.where)
            if exported.rejected:
                findings.note("lost_rejected", exported.where, count=len(exported.rejected))
            if doc.cats:
                findings.note("lost_cats", exported.where, count=len(doc.cats))
            n_scored = sum(confidence is not None for confidence in exported.confidences())
            if n_scored:
                findings.note("lost_confidence", exported.where, count=n_scored)
            for ent in doc.ents:
                if ent.label_ != _one_cell(ent.label_):
                    findings.note("lost_label", exported.where, repr(ent.label_))
            tags = self._tags(exported)
            for token, word in zip(kept, words):
                yield f"{word}\t{tags[token.i]}\n"
            yield "\n"

    def _tags(self, exported: Exported) -> List[str]:
        doc, letters = exported.doc, self.letters
        tags = [{MISSING: MISSING_TAG, OUTSIDE: "O"}.get(token.ent_iob, "") for token in doc]
        for ent in doc.ents:
            inside = [token.i for token in ent if not token.text.isspace()]
            roles = [letters.inside] * len(inside)
            if inside:
                roles[0], roles[-1] = letters.first, letters.last
            if len(inside) == 1:
                roles = [letters.single]
            label = _one_cell(ent.label_)
            for index, role in zip(inside, roles):
                # An entity of no label is none to a reader, and its tokens are not known to be outside
                tags[index] = f"{role}-{label}" if label else MISSING_TAG
        return tags


def _one_cell(text: str) -> str:
    """RETURNS (str): A word or label with spaces for what a line of columns cannot hold."""
    return BREAKS.sub(" ", text.strip()).strip()
