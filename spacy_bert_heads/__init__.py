"""One BERT, several heads, inside spaCy."""

from importlib import import_module
from typing import Any

__version__ = "0.2.0.dev0"


def __getattr__(name: str) -> Any:
    """`apply` loads spaCy, so it is imported when it is first asked for."""
    if name == "apply":
        return import_module(".bulk.run", __name__).apply
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
