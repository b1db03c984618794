"""`project.yml`: workflows from annotations to a checked package, rendered from the template in this package."""

import json
from dataclasses import dataclass
from typing import Dict, Optional, Sequence, Tuple

from ..encoders.scripts import SCRIPTS
from .configs import INIT_HEADER, MULTILINGUAL, render

# Of every project, made before its first command runs
DIRECTORIES = ("corpus", "training", "metrics", "packages")


@dataclass(frozen=True)
class Track:
    """One workflow of a project file: from annotations in one language to a checked package.

    workflow (str): Its name.
    title (str): What it makes, for people.
    lang (str): Language code.
    config (str): Path of the training config.
    inputs (Tuple[str, ...]): Annotation files, and folders of them.
    test (Optional[str]): Annotation file that is the test split. None: a share of the inputs.
    prefix (str): Begins the names of its encoder and epochs variables.
    suffix (str): Ends the names of its commands.
    encoder (str): Default of its encoder variable. "multilingual" brings a command that fetches it.
    epochs (int): Default of its epochs variable.
    texts (Tuple[str, ...]): What the finished package is tried on.
    constraints (Optional[str]): Versions that pip keeps to when the package is tried.
    debug_data (bool): Whether to run `spacy debug data` too, which fails on fewer than 100 training texts.
    sample (Optional[str]): File of sample records in a folder of `inputs`, used as long as there are no others.
    reading (str): Further options of `convert`, as on the command line.
    has_loop (bool): Whether there is an annotation loop, and calibration and thresholds, for which a head must choose
        among labels.
    """

    workflow: str
    title: str
    lang: str
    config: str
    inputs: Tuple[str, ...]
    test: Optional[str]
    encoder: str
    epochs: int
    texts: Tuple[str, ...]
    prefix: str = ""
    suffix: str = ""
    constraints: Optional[str] = None
    debug_data: bool = False
    sample: Optional[str] = None
    reading: str = ""
    has_loop: bool = True

    @property
    def fetched(self) -> Optional[str]:
        """The folder for an encoder that is fetched. None: none is."""
        return f"encoders/{self.lang}" if self.encoder == MULTILINGUAL else None

    @property
    def languages(self) -> str:
        """For fetch-encoder: the language and, for names and other words, English. Empty if its script is unknown."""
        if self.lang not in SCRIPTS:
            return ""
        return self.lang if "LATIN" in SCRIPTS[self.lang] else f"{self.lang},en"


def render_project(
    tracks: Sequence[Track],
    *,
    title: str,
    description: str,
    header: Sequence[str] = INIT_HEADER,
    split: str = "0.8,0.1,0.1",
    name: str = "support",
    assets: Sequence[Dict[str, str]] = (),
) -> str:
    """A commented project file.

    tracks (Sequence[Track]): Its workflows.
    title (str): Names the task.
    description (str): A sentence or two below the title.
    header (Sequence[str]): Lines of the comment at its top.
    split (str): Default of the variable `split`.
    name (str): Default of the variable `name`, the name of the package.
    assets (Sequence[Dict[str, str]]): Files with "dest", "checksum" (MD5) and "description".
    RETURNS (str): The content of `project.yml`.
    """
    return render(
        "project.yml.jinja",
        tracks=list(tracks),
        directories=json.dumps([*DIRECTORIES, *(track.fetched for track in tracks if track.fetched)]).replace('"', ""),
        title=title,
        description=description,
        header=header,
        split=split,
        name=name,
        assets=list(assets),
    )
