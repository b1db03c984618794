"""The pages of the documentation, and what is in their code blocks."""

import re
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", flags=re.M | re.S)


class Block(NamedTuple):
    """A code block.

    language (str): Such as "ini".
    title (str): Its title, or "".
    content (str): Its lines.
    """

    language: str
    title: str
    content: str

    def commands(self) -> List[str]:
        """RETURNS (List[str]): What a block of the language "console" types, each on one line."""
        lines = self.content.replace("\\\n", " ").splitlines()
        return [line[2:] for line in lines if line.startswith("$ ")]


def blocks(page: Path) -> Iterator[Block]:
    """YIELDS (Block): The code blocks of a page, in order."""
    for language, settings, content in BLOCK.findall(page.read_text(encoding="utf8")):
        titles = re.findall(r'title="([^"]+)"', settings)
        yield Block(language, titles[0] if titles else "", content)


def pages() -> Dict[str, Path]:
    """RETURNS (Dict[str, Path]): README and every page of docs/, by their paths."""
    paths = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    return {path.relative_to(ROOT).as_posix(): path for path in paths}
