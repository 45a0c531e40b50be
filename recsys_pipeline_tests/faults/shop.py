"""A small shop whose pipeline runs are disturbed: its feeds, its runs, and what its readers see."""

import functools
import hashlib
import importlib
import io
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from click import ClickException
from dagster import AssetSelection, DagsterInstance, ExecuteInProcessResult
from upath import UPath

from recsys_pipeline import command_line, load_model
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.steps import failures
from recsys_pipeline.storage.releases import PICKLE, Pointer, current_release, problems_of, read_pointer
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.faults.injection import in_fork, must, temporary_files_in
from recsys_pipeline_tests.worlds import run_graph

# In the order of the graph: the tables of each.
ASSETS: dict[str, list[str]] = {
    "raw_feedback": ["raw_feedback"],
    "feedback_strengths": ["feedback_strengths"],
    "bm25_matrix": ["pairs", "users", "items"],
    "leave_one_out_split": ["leave_one_out_split"],
    "baselines": ["baselines", "baseline_ranks"],
    "grid_search_results": ["grid_search_results", "trial_ranks"],
    "evaluation": ["models", "segments", "held_out"],
    # What has no tables is none, or lies in none.
    "best_model": [],
    "catalogue": ["catalogue"],
    "recommendations": ["recommendations"],
    "similar_items": ["similar_items"],
    "popular_items": ["popular_items"],
    "model_card": [],
    "release": [],
    "delivery": [],
    "mlflow_run": [],
}
NOTEBOOKS_FILE = "the notebook's file"
_CONFIGURATION = {
    "grid_search_results": {
        "config": {
            "factors": [2],
            "regularization": [0.1],
            "alpha": [5.0],
            "iterations": [2],
            "bm25_K1": [100.0],
            "bm25_B": [0.8],
            "workers": 1,
            # It is compared without a file more, and by one process more in each of some hundred runs.
            "compare_with_implicit": False,
        }
    },
    "baselines": {"config": {"neighbours": [20], "shrinkage": [10.0], "workers": 1}},
    "evaluation": {"config": {"seeds": 1, "min_interactions": 2}},
    "release": {"config": {"must_beat_popularity": False, "keep_releases": 2}},
}
_N_USERS, _N_ITEMS = 20, 24
_NAMES = re.compile(r"[0-9a-f]{32}|\d{8}T\d{12}Z")


def upstream(asset: str) -> list[str]:
    """What is made before an asset."""
    names = list(ASSETS)
    return names[: names.index(asset)]


def write_feed(path: Path, day: int) -> Path:
    """The events of a day; another day has other ones."""
    rng = np.random.default_rng(day)
    lines = ["UserID,ProductCode,Event"]
    for user in range(_N_USERS):
        items = rng.choice(np.arange(user % 2, _N_ITEMS, 2), size=6, replace=False)
        lines += [f"{user},{item},view" for item in items]
    path.write_text("\n".join(lines) + "\n")
    return path


class Shop:
    """A folder with a feed, a warehouse and room for temporary files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warehouse = folder / "warehouse"
        self.releases = self.warehouse / "releases"
        self.temporary = folder / "temporary"

    def open(self, day: int) -> "Shop":
        """Let the feed of that day come in."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        write_feed(self.folder / "feed.csv", day)
        return self

    def copied_to(self, folder: Path) -> "Shop":
        """The same shop in another folder; files that are linked to each other stay so."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", str(self.folder), str(folder)], check=True)
        return Shop(folder)

    def run(self, *assets: str, lock_seconds: float = 3600) -> Callable[[], dict[str, str]]:
        """A run of these assets, or of all: says with which message it failed, if it did."""

        def work() -> dict[str, str]:
            temporary_files_in(self.temporary)
            # Retries are wanted, the half minute before them is not.
            failures._SECONDS_BETWEEN = 0
            wanted = assets or tuple(ASSETS)
            result = run_graph(
                self.folder / "feed.csv",
                Warehouse(path=str(self.warehouse), lock_seconds=lock_seconds),
                selection=AssetSelection.assets(*wanted),
                instance=_instance(),
                ops={name: config for name, config in _CONFIGURATION.items() if name in wanted},
            )
            return {} if result.success else {"failed": _message_of(result)}

        return work

    def recsys(self, *arguments: str) -> Callable[[], dict[str, str]]:
        """`recsys` with these arguments: what it prints, or with which message it fails."""

        def work() -> dict[str, str]:
            temporary_files_in(self.temporary)
            printed = io.StringIO()
            with redirect_stdout(printed), redirect_stderr(printed):
                try:
                    command_line.main(["--warehouse", str(self.warehouse), *arguments], standalone_mode=False)
                except ClickException as error:
                    return {"failed": error.message}
                except SystemExit:
                    return {"failed": printed.getvalue()}
            return {"printed": printed.getvalue()}

        return work

    def load(self) -> dict[str, str]:
        """What comes of loading the released model: its version, or the refusal."""
        try:
            return {"version": str(load_model(self.warehouse).manifest["version"])}
        except InputError as error:
            return {"failed": str(error)}

    def versions(self) -> list[str]:
        """The releases that are there, oldest first."""
        return sorted(path.name for path in self.releases.iterdir() if _NAMES.fullmatch(path.name))

    def pointer(self) -> Pointer:
        """What readers follow."""
        return read_pointer(UPath(self.warehouse))

    def seen(self) -> dict[str, str]:
        """By asset, a digest of what a reader gets: by this package, and by pandas with a plain path.

        Raises:
            AssertionError: the two differ, or what is released is not whole.
        """
        warehouse = Warehouse(path=str(self.warehouse))
        digests = {}
        for asset, names in ASSETS.items():
            if not (names and warehouse.has(asset)):
                continue
            tables = warehouse.read_tables(asset)
            assert sorted(tables) == sorted([*names, *({"rejected_feedback"} & set(tables))]), asset
            beside = asset in names
            for name in names:
                plain = (
                    self.warehouse / f"{name}.parquet"
                    if beside
                    else self.warehouse / asset / f"{name}.parquet"
                )
                assert len(pd.read_parquet(plain)) == tables[name].num_rows, plain
            digests[asset] = _digest(tables)
        if warehouse.has("best_model"):
            made = warehouse.open_model("best_model")
            plain = self.warehouse / "best_model" / "item_factors.arrow"
            assert len(pd.read_feather(plain)) == len(made.items)
            digests["best_model"] = _digest_of_factors(*made.factors)
        if self.releases.is_dir():
            digests |= self._released()
        return digests

    def _released(self) -> dict[str, str]:
        """The same of what is released: as a whole, and as a model for those who read the notebook's."""
        digests = {}
        if (self.releases / "current.json").exists():
            release = current_release(self.warehouse)
            assert list(problems_of(release)) == []
            model = load_model(self.warehouse)
            assert len(model.recommend(model.users[0], n=3)) == 3
            files = sorted(Path(release.path.path).glob("*.parquet"))
            factors = _digest_of_factors(model.model.user_factors, model.model.item_factors)
            digests["release"] = factors + _digest({path.stem: pq.read_table(path) for path in files})
        if (self.releases / PICKLE).exists():
            # As the notebook's readers do it; the project itself unpickles nothing.
            theirs = pickle.loads((self.releases / PICKLE).read_bytes())
            digests[NOTEBOOKS_FILE] = _digest_of_factors(theirs.user_factors, theirs.item_factors)
        return digests

    def litter(self) -> dict[str, int]:
        """Everything that lies in the warehouse and among the temporary files, by name, with how often."""
        found: Counter[str] = Counter()
        for root in (self.warehouse, self.temporary):
            for folder, _, files in os.walk(root):
                for path in [Path(folder), *(Path(folder) / name for name in files)]:
                    found[_NAMES.sub("*", str(path.relative_to(self.folder)))] += 1
        return dict(found)


@functools.cache
def _instance() -> DagsterInstance:
    """Made once, before the first fork: to make one takes longer than a small run."""
    return DagsterInstance.ephemeral()


def prepare(folder: Path) -> None:
    """Let every process that is forked from here on find ready what it needs."""
    _instance()
    # The modules that a run imports, but not its threads, which a fork would not take along.
    shop = Shop(folder).open(1)

    def use() -> list[str]:
        if failed := shop.run()():
            raise RuntimeError(failed)
        shop.recsys("releases", "list")()
        shop.seen()
        return list(sys.modules)

    imported = must(in_fork(use, shop.folder))
    for name in imported:
        with suppress(Exception):
            importlib.import_module(name)


def _digest_of_factors(*factors: Any) -> str:
    return hashlib.sha256(b"".join(each.tobytes() for each in factors)).hexdigest()


def _digest(tables: dict[str, pa.Table]) -> str:
    """Of the content, without how long something took."""
    told: list[Any] = []
    for name, table in sorted(tables.items()):
        kept = [column for column in table.column_names if column not in ("fit_seconds", "seconds")]
        told.append((name, table.select(kept).to_pydict()))
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _message_of(result: ExecuteInProcessResult) -> str:
    """What a run that failed says, in a step or before the first one."""
    for event in result.all_events:
        if event.is_step_failure and (told := event.step_failure_data.user_failure_data):
            return str(told.description)
    errors = [event.event_specific_data.error for event in result.all_events if event.is_failure]
    error = errors[0]
    while error.cause and error.cls_name != "InputError":
        error = error.cause
    return str(error.message).strip()
