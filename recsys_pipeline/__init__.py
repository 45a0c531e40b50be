"""Turns a file of shopping events into a tuned ALS recommender, every step a Dagster asset."""

import sys
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    raise ImportError(
        "recsys_pipeline runs on Linux and macOS: its locks and links are theirs. On Windows use WSL 2."
    )

if TYPE_CHECKING:
    from recsys_pipeline.recommender import Recommender, load_model

__all__ = ["Recommender", "load_model"]


def __getattr__(name: str) -> Any:
    # Imported when first used: the worker processes of the search need nothing of it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from recsys_pipeline import recommender

    return getattr(recommender, name)
