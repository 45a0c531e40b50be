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
from recsys_pipeline.core.search import KnownTrial, TrialResult
from recsys_pipeline.storage.atomic import atomic_file

FOLDER = "search_journal"
# Raised when entries look otherwise, or a solver's arithmetic changes within a version of this package.
_FORMAT = 6
_KEY = re.compile("[0-9a-f]{32}")
# What may change a score; another version starts a new journal.
_LIBRARIES = ("recsys_pipeline", "implicit", "numpy", "scipy", "numba")


class Journal:
    """The finished trials of searches, one small file each.

    Results are reused only for identical data, weights, solver, seed and versions, and where the ranks are
    known equally far: every such combination has a folder of its own.
    """

    def __init__(
        self,
        warehouse: UPath,
        content: Mapping[str, str],
        solver: str,
        seed: int,
        weights: str,
        *,
        k: int,
        strengths: Mapping[str, Mapping[str, float]],
    ) -> None:
        """A journal.

        Args:
            warehouse: where it lies.
            content: by name of a mapping, a digest of the data that the scores of its trials depend on.
            solver: by name.
            seed: of the fits.
            weights: from which interactions the weights are, by name.
            k: up to which the ranks are known.
            strengths: by name of a mapping, what the events count; for people, who know it by its name.
        """
        self._store = warehouse / FOLDER
        self._content, self._strengths = content, strengths
        self.search: Mapping[str, Any] = {
            "data": content[DEFAULT_STRENGTHS],
            "weights": weights,
            "solver": solver,
            "seed": seed,
            "k": k,
            "versions": {library: _version(library) for library in _LIBRARIES},
            "machine": platform.machine(),
        }
        self._folder = self._store / _digest([_FORMAT, self.search])[:32]

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
            "search": self.search,
            "trial": result.hyperparameters.as_dict(),
            "strengths": dict(self._strengths[result.hyperparameters.strengths]),
            "scores": result.scores._asdict(),
            "ranks": packed_ranks(result.ranks),
            "fit_seconds": result.fit_seconds,
        }
        with atomic_file(self._folder / self._entry_name(result.hyperparameters)) as staged:
            staged.write_text(json.dumps({"content": content, "sha256": _digest(content)}), encoding="utf-8")

    def others(self, trials: Iterable[Hyperparameters]) -> list[KnownTrial]:
        """The finished trials of all searches over the same data, but for these of this search."""
        own = {(self._folder.name, self._entry_name(trial)) for trial in trials}
        # As below.
        with suppress(Exception):
            return [
                known
                for path in _entries(self._store)
                if (path.parent.name, path.name) not in own
                and (known := _read(path))
                and known.search["data"] == self.search["data"]
            ]
        return []

    def drop_others(self) -> None:
        """Remove the journals of other data, once this search is finished; whatever else lies there stays.

        Those of the same data stay, so that people can compare searches: see `known_trials`.
        """
        # Nothing here is worth failing a search for that has done its work.
        with suppress(Exception):
            for folder in _folders(self._store):
                with suppress(Exception):
                    if folder.name != self._folder.name and not self._is_of_this_data(folder):
                        folder.fs.rm(folder.path, recursive=True)

    def _is_of_this_data(self, folder: UPath) -> bool:
        # All entries of a folder are of one search: the first that can be read tells.
        first = next(filter(None, map(_read, folder.iterdir())), None)
        return first is not None and first.search["data"] == self.search["data"]

    def _read(self, trial: Hyperparameters) -> TrialResult | None:
        known = _read(self._folder / self._entry_name(trial))
        if known is None or known.hyperparameters != trial:
            return None
        return TrialResult(trial, known.scores, known.fit_seconds, ranks=known.ranks)

    def _entry_name(self, trial: Hyperparameters) -> str:
        # By what its mapping says, not by its name.
        told = {**trial.as_dict(), "strengths": self._content[trial.strengths_name]}
        # Its strengths say it; trials from before it was there have none.
        del told["half_life_days"]
        values = {name: value if isinstance(value, str) else float(value) for name, value in told.items()}
        return f"{_digest(values)[:32]}.json"


def known_trials(warehouse: UPath) -> list[KnownTrial]:
    """Every finished trial of every search that is still kept, in no particular order.

    Entries that are half-written or altered are passed over.
    """
    return [known for path in _entries(warehouse / FOLDER) if (known := _read(path))]


def _entries(store: UPath) -> list[UPath]:
    try:
        return [path for folder in _folders(store) for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _folders(store: UPath) -> list[UPath]:
    return [path for path in store.iterdir() if _KEY.fullmatch(path.name) and path.is_dir()]


def _read(path: UPath) -> KnownTrial | None:
    """What an entry says; None where it is half-written, altered or gone."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        content = entry["content"]
        if entry["sha256"] != _digest(content):
            return None
        trial = Hyperparameters.from_mapping(content["trial"])
        return KnownTrial(
            content["search"],
            trial,
            content["strengths"],
            Scores(**content["scores"]),
            content["fit_seconds"],
            unpacked_ranks(content["ranks"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:  # numba is an extra
        return None
