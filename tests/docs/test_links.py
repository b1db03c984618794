"""README and docs: short enough, and every link leads somewhere, on a forge and on the site."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Iterator, Set, Tuple

import pytest

from .pages import DOCS, ROOT, blocks, pages

LINK = re.compile(r"\]\(([^)\s]+)\)")
PAGES = pages()


def prose(path: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]+`", lambda match: "x" * len(match[0]), text)


def anchors(path: Path) -> Set[str]:
    """What a forge and MkDocs both call the headings of a page, and the anchors that are written out."""
    text = path.read_text(encoding="utf8")
    found = set(re.findall(r'<a id="([^"]+)">', text))
    for title in re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), flags=re.M):
        found.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.strip().lower())))
    return found


def links(path: Path) -> Iterator[Tuple[str, str]]:
    for link in LINK.findall(prose(path)):
        if not link.startswith(("http://", "https://", "mailto:")):
            target, _, anchor = link.partition("#")
            yield target, anchor


def test_readme_is_short_and_its_first_blocks_are_the_set_up() -> None:
    readme = PAGES["README.md"]
    assert len(readme.read_text(encoding="utf8").splitlines()) <= 150
    bash = [block.content for block in blocks(readme) if block.language == "bash"]
    assert "project run all" in bash[0] and bash[1].splitlines()[-1].startswith("pytest ")


@pytest.mark.parametrize("name", PAGES)
def test_relative_links_lead_somewhere(name: str) -> None:
    page = PAGES[name]
    for target, anchor in links(page):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{name} links to {target}"
        assert path.is_relative_to(ROOT), f"{name} leaves the repository: {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{name} links to {target}#{anchor}"


def test_every_page_is_linked_from_another() -> None:
    linked = {(page.parent / target).resolve() for page in PAGES.values() for target, _ in links(page) if target}
    assert {DOCS / "index.md"} >= {path for path in PAGES.values() if path.parent != ROOT} - linked


def test_nothing_is_loaded_from_elsewhere() -> None:
    for name, page in PAGES.items():
        text = page.read_text(encoding="utf8")
        assert not re.search(r"!\[[^\]]*\]\(https?:|<(script|link|img|iframe)\b", text), name
    for picture in DOCS.rglob("*.svg"):
        assert not re.search(r'(href|src|url)\s*[=(]\s*["\']?https?:', picture.read_text(encoding="utf8")), picture


def test_the_site_builds_strict_and_asks_nobody(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    pytest.importorskip("material", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf8")
    assert done.returncode == 0, done.stdout
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text(encoding="utf8")
        loaded = re.findall(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="([^"]+)"', text)
        loaded += re.findall(r'<link\b[^>]*rel="(?:stylesheet|preconnect|icon)"[^>]*href="([^"]+)"', text)
        assert loaded and not [link for link in loaded if link.startswith(("http:", "https:", "//"))], page
