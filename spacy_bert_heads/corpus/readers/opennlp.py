"""Sentences with entities marked among their words, as OpenNLP learns from them -> annotations."""

import re
from pathlib import Path
from typing import Iterator, List, Tuple

from ...tags import Span
from ..annotations import Annotation, CharSpan
from ..findings import Findings, Where
from .conll import needs_spaces
from .lines import head_lines, is_text, most, read_head, read_lines
from .offsets import show
from .options import ReadOptions
from .tag_spans import join_words

START = re.compile(r"<START(?::(\S+))?>")
END = "<END>"
MARKED = re.compile(rb"(?:^|\s)<START(?::\S+)?>\s+\S.*?\s<END>(?=\s|$)")
# The label of entities that have none.
UNNAMED = "ENTITY"


class OpenNlpConverter:
    """Reads `<START:person> Anna Lee <END> ran .`, a sentence per line."""

    name = "opennlp"
    suffixes: Tuple[str, ...] = ()

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): Its name is not looked at.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether most lines that hold `<START` or `<END>` mark a whole entity.
        """
        lines = [line for line in head_lines(head) if b"<START" in line or END.encode() in line]
        is_json = head[:1] in (b"{", b"[")
        return bool(lines) and not is_json and is_text(head) and most(lines, lambda line: bool(MARKED.search(line)))

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): A text file, plain or gzipped.
        findings (Findings): Takes bad lines.
        options (ReadOptions): The language, by which words are joined.
        YIELDS (Annotation): One for each line.
        RAISES (BertHeadsError): H136 for a line whose marks do not fit together.
        """
        with_spaces = needs_spaces(read_head(path), options)
        for where, line in read_lines(path, findings):
            words, ents, problem = _read_line(line)
            if problem:
                expected = "<START:LABEL>, words and <END>, one entity after the other"
                findings.bad(where.error("H136", f"{problem} in {show(line)}", expected=expected))
                continue
            text, tokens = join_words(words, with_spaces=with_spaces)
            spans = [CharSpan(tokens[start][0], tokens[end - 1][1], label) for start, end, label in ents]
            if any(label == UNNAMED for _, _, label in ents):
                findings.note("unnamed_label", Where(path, where.line))
            yield Annotation(text, where, tokens=tokens, ents=spans, complete=True)


def _read_line(line: str) -> Tuple[List[str], List[Span], str]:
    """The words of a line, its entities, and what is wrong with it."""
    words: List[str] = []
    ents: List[Span] = []
    label, begin = "", 0
    for word in line.split():
        match = START.fullmatch(word)
        if match is not None:
            if label:
                return words, ents, f"{show(word)} inside an entity"
            label, begin = match.group(1) or UNNAMED, len(words)
        elif word == END:
            if not label or begin == len(words):
                return words, ents, "<END> without an entity"
            ents.append((begin, len(words), label))
            label = ""
        else:
            words.append(word)
    problem = "no word" if not words else "no <END>" if label else ""
    return words, ents, problem
