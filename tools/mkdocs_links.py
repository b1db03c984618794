"""A hook of MkDocs: links out of docs/, which lead to files on a forge, lead to the repository on the site.

Pictures outside docs/, such as those that the benchmarks draw, become part of the site.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

# A link or picture whose path leaves its folder; links within docs/ do so too
LINK = re.compile(r"\]\((\.\./[^)#\s]+)(#[^)\s]+)?\)")
PICTURES = ("*.png", "*.svg")
FOLDER_OF_PICTURES = "benchmarks"


def on_files(files: Any, config: Any, **kwargs: Any) -> Any:
    """Add the pictures of the benchmarks to the site."""
    for pattern in PICTURES:
        for path in sorted((_root(config) / FOLDER_OF_PICTURES).glob(pattern)):
            files.append(File.generated(config, f"{FOLDER_OF_PICTURES}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any, **kwargs: Any) -> str:
    """Lead the links of a page to where their files are on the site, or in the repository."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def replaced(match: "re.Match[str]") -> str:
        target = posixpath.normpath(posixpath.join(folder, match[1]))
        if target.startswith("docs/"):
            return match[0]
        if files.get_file_from_path(target) is not None:
            return f"]({posixpath.relpath(posixpath.join('docs', target), folder)})"
        if not (_root(config) / target).exists():
            raise FileNotFoundError(f"{page.file.src_uri} links to {target}, which is not there")
        return f"]({config['extra']['repository']}/{target}{match[2] or ''})"

    return LINK.sub(replaced, markdown)


def _root(config: Any) -> Path:
    return Path(config["config_file_path"]).parent
