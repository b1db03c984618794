"""brat standoff -> annotations: NAME.ann with the spans, beside NAME.txt with the text."""

from pathlib import Path
from typing import Iterator, List, Tuple

from ...errors import BertHeadsError
from ..annotations import Annotation, CharSpan
from ..findings import Findings, Where
from .lines import read_head, read_lines, read_text
from .offsets import read_span, show
from .options import ReadOptions

# What lines begin with beside T, a span: relations, events and equivalents; attributes (A or M), normalisations, notes
RELATIONS = ("R", "E", "*")
OTHERS = ("A", "M", "N", "#")


class BratConverter:
    """Reads the spans of a text; relations, events, attributes and notes are counted and left out.

    A span in several pieces is no span of a Doc: the characters from its beginning to its end are unknown for its
    label.
    """

    name = "brat"
    suffixes: Tuple[str, ...] = ()

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its name: a text without spans has an empty file.

        path (Path): The file with the spans.
        head (bytes): Not looked at.
        RETURNS (bool): Whether it ends in .ann and its text is beside it.
        """
        return path.suffix == ".ann" and path.with_suffix(".txt").is_file()

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Read the annotation of one text.

        path (Path): The file with the spans.
        findings (Findings): Takes bad lines, spans in several pieces, and what else is annotated.
        options (ReadOptions): Whether spans may overlap.
        YIELDS (Annotation): One.
        RAISES (BertHeadsError): H101 to H103 if the file cannot be read; H189 if the text is missing; H136 for a line
            that brat does not write, H150 for a span
            whose text is another one, unless those are skipped.
        """
        read_head(path)  # says what is wrong with the path
        beside = path.with_suffix(".txt")
        if not beside.is_file():
            raise BertHeadsError("H189", path=path, found=beside.name)
        text = read_text(beside)
        ents: List[CharSpan] = []
        unknown: List[CharSpan] = []
        for where, line in read_lines(path, findings):
            try:
                if not line.startswith("T"):
                    _note_other(line, where, findings)
                    continue
                span, is_whole = _read_span(line, text, where, findings)
            except BertHeadsError as error:
                findings.bad(error)
                continue
            if is_whole:
                ents.append(span)
            else:
                findings.note("discontinuous", where, f"{span.label} {span.start}-{span.end}")
                unknown.append(span)
        findings.n_records[path] = 1
        if not options.overlaps:
            # Where entities exclude each other, those that are known say enough
            unknown = [gap for gap in unknown if not any(gap.start < ent.end and ent.start < gap.end for ent in ents)]
        if text:
            yield Annotation(text, Where(path, 0), ents=ents, complete=True, unknown=unknown)


def _note_other(line: str, where: Where, findings: Findings) -> None:
    if line.startswith(RELATIONS):
        findings.note("relations", where)
    elif line.startswith(OTHERS):
        findings.note("unused_results", where, line.split("\t")[0])
    else:
        raise where.error("H136", show(line), expected="lines such as 'T1<tab>PERSON 0 4<tab>Anna'")


def _read_span(line: str, text: str, where: Where, findings: Findings) -> Tuple[CharSpan, bool]:
    """A span, or the stretch of one in several pieces; whether it is in one piece."""
    cells = line.split("\t")
    label, _, places = (cells[1] if len(cells) > 1 else "").partition(" ")
    try:
        pieces = [(int(start), int(end)) for start, end in (piece.split() for piece in places.split(";"))]
    except ValueError:
        raise where.error("H136", show(line), expected="lines such as 'T1<tab>PERSON 0 4<tab>Anna'") from None
    if len(pieces) == 1:
        stored = cells[2] if len(cells) > 2 else None
        return read_span(*pieces[0], label, text, stored, where, findings), True
    # Pieces that touch are one: brat parts a span at line ends
    joined = [pieces[0]]
    for start, end in pieces[1:]:
        if joined[-1][1] <= start and not text[joined[-1][1] : start].strip():
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    first, last = min(start for start, _ in joined), max(end for _, end in joined)
    return read_span(first, last, label, text, None, where, findings), len(joined) == 1
