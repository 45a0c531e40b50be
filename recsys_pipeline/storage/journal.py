"""The journal of a search: each finished trial, written as it finishes, so that no crash loses it."""

import hashlib
import json
import platform
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from upath import UPath

from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS, Hyperparameters
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.ranks import packed_ranks, unpacked_ranks
from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.storage.atomic import atomic_file

FOLDER = "search_journal"
# Raised when entries look otherwise, or a solver's arithmetic changes within a version of this package.
_FORMAT = 4
_KEY = re.compile("[0-9a-f]{32}")
# What may change a score; another version starts a new journal.
_LIBRARIES = ("recsys_pipeline", "implicit", "numpy", "scipy", "numba")


class Journal:
    """The finished trials of searches, one small file each.

    Results are reused only for identical data, solver, seed and versions: every such combination has a folder
    of its own.
    """

    def __init__(self, warehouse: UPath, content: Mapping[str, str], solver: str, seed: int) -> None:
        """`content` is, by name of a mapping, a digest of what the scores of its trials depend on."""
        self._store = warehouse / FOLDER
        self._folder = self._store / _key(content[DEFAULT_STRENGTHS], solver, seed)
        self._content = content

    def finished(self, trials: Iterable[Hyperparameters]) -> list[TrialResult]:
        """What the journal knows of the trials; an entry that is half-written, altered or gone is none."""
        try:
            entries = {path.name for path in self._folder.iterdir()}
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = (self._read(trial) for trial in dict.fromkeys(trials) if self._entry_name(trial) in entries)
        return [result for result in found if result]

    def add(self, result: TrialResult) -> None:
        """Keep a trial that was scored; what failed is to be tried again."""
        if result.scores is None:
            return
        content = {
            "trial": result.hyperparameters.as_dict(),
            "scores": result.scores._asdict(),
            "ranks": packed_ranks(result.ranks),
            "fit_seconds": result.fit_seconds,
        }
        with atomic_file(self._folder / self._entry_name(result.hyperparameters)) as staged:
            staged.write_text(json.dumps({"content": content, "sha256": _digest(content)}), encoding="utf-8")

    def drop_others(self) -> None:
        """Remove the journals of other data, once this search is finished; whatever else lies there stays."""
        # Nothing here is worth failing a search for that has done its work.
        with suppress(Exception):
            others = [path for path in self._store.iterdir() if _KEY.fullmatch(path.name)]
            for folder in others:
                if folder.name != self._folder.name:
                    with suppress(Exception):
                        folder.fs.rm(folder.path, recursive=True)

    def _read(self, trial: Hyperparameters) -> TrialResult | None:
        try:
            entry = json.loads((self._folder / self._entry_name(trial)).read_text(encoding="utf-8"))
            content = entry["content"]
            if entry["sha256"] != _digest(content) or Hyperparameters.from_mapping(content["trial"]) != trial:
                return None
            ranks = unpacked_ranks(content["ranks"])
            return TrialResult(trial, Scores(**content["scores"]), content["fit_seconds"], ranks=ranks)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _entry_name(self, trial: Hyperparameters) -> str:
        # By what its mapping says, not by its name.
        told = {**trial.as_dict(), "strengths": self._content[trial.strengths]}
        values = {name: value if isinstance(value, str) else float(value) for name, value in told.items()}
        return f"{_digest(values)[:32]}.json"


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _key(content: str, solver: str, seed: int) -> str:
    versions = {library: _version(library) for library in _LIBRARIES}
    return _digest([_FORMAT, content, solver, seed, versions, platform.machine()])[:32]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:  # numba is an extra
        return None
