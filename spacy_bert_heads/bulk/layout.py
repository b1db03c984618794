"""Names of the files in the folder of a run."""

from pathlib import Path

MANIFEST = "manifest.jsonl"
REJECTED = "rejected.jsonl"
# With this the first line of a manifest begins
KEY = "bert-heads apply"
PREFIX = "part-"


def shard_path(folder: Path, number: int, ending: str) -> Path:
    """RETURNS (Path): Where a shard's file is in the end. In the order of their names, files are in the order of the
    input, up to a million of them."""
    return folder / f"{PREFIX}{number:06}{ending}"


def is_manifest(path: Path) -> bool:
    """RETURNS (bool): Whether a file is the manifest of a run."""
    try:
        with path.open("rb") as stream:
            return stream.readline(100).startswith(b'{"' + KEY.encode("ascii"))
    except OSError:
        return False
