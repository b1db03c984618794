"""The hashes by which Prodigy knows a text and a question about it (docs/reference/formats.md)."""

import json
from typing import Any, Dict, Sequence

from murmurhash import mrmr

INPUT_KEYS = ("text", "image", "html", "input")
TASK_KEYS = ("spans", "label", "options", "arcs")
HASH_KEYS = ("_input_hash", "_task_hash")
# Keys that change nothing about the question, left out at every depth.
IGNORED_KEYS = frozenset(
    ("score", "rank", "model", "source", "pattern", "priority", "path")
    + ("_view_id", "_session_id", "_annotator_id", "answer")
)


def input_hash(text: str) -> int:
    """RETURNS (int): The hash of a text, signed, 32 bits."""
    return _hash({"text": text}, INPUT_KEYS)


def set_hashes(task: Dict[str, Any]) -> Dict[str, Any]:
    """Give a task the hashes that Prodigy gives it. It does so when it loads a task, and a recipe may later add
    options or spans that the hash then does not know.

    task (Dict[str, Any]): As it is asked; existing hashes are replaced.
    RETURNS (Dict[str, Any]): The task with `_input_hash`, over the text, and `_task_hash`, over text and question, or
        over the whole task if it asks nothing yet.
    """
    core = {key: value for key, value in task.items() if key not in HASH_KEYS}
    core["_input_hash"] = _hash(core, INPUT_KEYS)
    return {**task, "_input_hash": core["_input_hash"], "_task_hash": _hash(core, TASK_KEYS, str(core["_input_hash"]))}


def _hash(task: Dict[str, Any], keys: Sequence[str], prefix: str = "") -> int:
    parts = [f"{key}={_dump(task[key])}" for key in keys if task.get(key)]
    return int(mrmr.hash(prefix + ("".join(parts) or _dump(task))))


def _dump(value: Any) -> str:
    return json.dumps(_clean(value), sort_keys=True, separators=(",", ":"))


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items() if key not in IGNORED_KEYS}
    return [_clean(item) for item in value] if isinstance(value, list) else value
