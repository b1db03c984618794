"""What the command line says, as numbers."""

from typing import List, Optional

from ..errors import BertHeadsError

AUTO = "auto"


def parse_n_process(text: str) -> Optional[int]:
    """RETURNS (Optional[int]): The number that `--n-process` gives; None for "auto".
    RAISES (BertHeadsError): H650 for anything else."""
    if text == AUTO:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise BertHeadsError("H650", option="--n-process", found=repr(text), expected="auto or a number of at least 1")
    return int(text)


def parse_gpus(text: Optional[str]) -> List[int]:
    """RETURNS (List[int]): The GPUs that `--gpu-id` gives, such as "0,1". None, and -1, are no GPU.
    RAISES (BertHeadsError): H650 for anything else."""
    if text is None or text.strip() == "-1":
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise BertHeadsError("H650", option="--gpu-id", found=repr(text), expected="different numbers such as 0,1")
    return [int(part) for part in parts]
