"""`project.yml`: workflows from annotations to a checked package, rendered from the template in this package."""

from dataclasses import dataclass
from typing import Dict, Optional, Sequence, Tuple

from .configs import INIT_HEADER, render


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
    encoder (str): Default of its encoder variable.
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
        title=title,
        description=description,
        header=header,
        split=split,
        name=name,
        assets=list(assets),
    )
