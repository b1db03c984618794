"""Files that are either the old ones or the new ones, never half of either."""

import os
from pathlib import Path
from typing import Dict

from ..errors import BertHeadsError


def write_files(contents: Dict[Path, bytes]) -> None:
    """Write all files under temporary names beside their own, then put them into place one after the other.

    contents (Dict[Path, bytes]): What to write where. Folders that are missing are made.
    RAISES (BertHeadsError): H123 if a file cannot be written. Temporary files are removed.
    """
    staged: Dict[Path, Path] = {}
    path = Path()
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise BertHeadsError("H123", path=path, found="there is a folder of this name")
            staged[path] = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            staged[path].write_bytes(content)
        for path, temporary in staged.items():
            os.replace(temporary, path)
    except OSError as error:
        raise BertHeadsError("H123", path=path, found=error.strerror or error) from error
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)
