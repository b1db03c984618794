"""Pictures by matplotlib, which is an extra."""

from io import BytesIO
from pathlib import Path
from typing import Any

from .errors import BertHeadsError
from .files import write_files


def new_figure(width: float, height: float) -> Any:
    """Begin a picture, or see that there can be one.

    width, height (float): Inches.
    RETURNS (matplotlib.figure.Figure): The picture.
    RAISES (BertHeadsError): H410 if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BertHeadsError("H410", found="matplotlib", extra="plots") from error
    return Figure(figsize=(width, height), layout="constrained")


def write_picture(figure: Any, path: Path, *, dpi: int = 120) -> None:
    """Write a picture.

    figure (matplotlib.figure.Figure): From `new_figure`.
    path (Path): Where to write it, as PNG.
    dpi (int): Dots for each inch.
    RAISES (BertHeadsError): H123 if it cannot be written.
    """
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=dpi)
    write_files({path: picture.getvalue()})
