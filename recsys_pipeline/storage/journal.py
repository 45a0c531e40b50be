"""The journal of a search: each finished trial, written as it finishes, so that no crash loses it."""

import hashlib
import json
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from numpy.typing import NDArray
from upath import UPath

from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.ranks import packed_ranks, unpacked_ranks
from recsys_pipeline.core.search import SearchData, TrialResult
from recsys_pipeline.core.trials import Trial
from recsys_pipeline.storage.atomic import atomic_file

FOLDER = "search_journal"
# Raised when entries look otherwise, or a solver's arithmetic changes within a version of this package.
_FORMAT = 3
# What may change a score; another version starts a new journal.
_LIBRARIES = ("recsys_pipeline", "implicit", "numpy", "scipy", "numba")


class Journal:
    """The finished trials of searches over the same data, one small file each.

    A search over other data, by another solver, seed or version has a journal of its own, so that nothing
    stale is ever taken up.
    """

    def __init__(self, warehouse: UPath, data: SearchData, solver: str, seed: int) -> None:
        """`data` and the rest are what shapes the score of every trial."""
        self._store = warehouse / FOLDER
        self._folder = self._store / _key(data, solver, seed)
        self._mappings = {
            name: _digest_of_arrays(arrays) for name, arrays in data.content_of_mappings.items()
        }

    def finished(self, trials: Iterable[Trial]) -> list[TrialResult]:
        """What the journal knows of the trials; an entry that is half-written or altered does not count."""
        if not self._folder.exists():
            return []
        entries = {path.name for path in self._folder.iterdir()}
        found = (self._read(trial) for trial in dict.fromkeys(trials) if self._entry_name(trial) in entries)
        return [result for result in found if result]

    def add(self, result: TrialResult) -> None:
        """Keep a trial that was scored; what failed is to be tried again."""
        if result.scores is None:
            return
        content = {
            "trial": result.trial._asdict(),
            "scores": result.scores._asdict(),
            "ranks": packed_ranks(result.ranks),
            "fit_seconds": result.fit_seconds,
        }
        with atomic_file(self._folder / self._entry_name(result.trial)) as staged:
            staged.write_text(json.dumps({"content": content, "sha256": _digest(content)}), encoding="utf-8")

    def drop_others(self) -> None:
        """Remove the journals of other data, once this search is finished."""
        if not self._store.exists():
            return
        for folder in self._store.iterdir():
            if folder.name != self._folder.name:
                for entry in folder.iterdir():
                    entry.unlink()
                folder.rmdir()

    def _read(self, trial: Trial) -> TrialResult | None:
        try:
            entry = json.loads((self._folder / self._entry_name(trial)).read_text(encoding="utf-8"))
            content = entry["content"]
            if entry["sha256"] != _digest(content) or Trial.from_mapping(content["trial"]) != trial:
                return None
            ranks = unpacked_ranks(content["ranks"])
            return TrialResult(trial, Scores(**content["scores"]), content["fit_seconds"], ranks=ranks)
        except (ValueError, KeyError, TypeError):
            return None

    def _entry_name(self, trial: Trial) -> str:
        # By what its mapping says, not by its name.
        told = trial._replace(strengths=self._mappings[trial.strengths])
        values = [value if isinstance(value, str) else float(value) for value in told]
        return f"{_digest(values)[:32]}.json"


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _key(data: SearchData, solver: str, seed: int) -> str:
    digest = hashlib.sha256()
    versions = {library: _version(library) for library in _LIBRARIES}
    facts = [_FORMAT, solver, seed, versions, platform.machine(), data.splits[0].seen.n_items]
    digest.update(json.dumps(facts).encode())
    digest.update(_digest_of_arrays(data.content).encode())
    return digest.hexdigest()[:32]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:  # numba is an extra
        return None


def _digest_of_arrays(arrays: Sequence[NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
