"""One worker process: reads jobs from standard input, writes results to standard output.

    python -m recsys_pipeline.engines.local.worker FOLDER

Both are lines of JSON, so that nothing is unpickled. The arrays in FOLDER are mapped, not read: all workers
share one copy of them.
"""

import errno
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.baseline_tuning import Baseline, Family
from recsys_pipeline.core.errors import naming
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranks import packed_ranks
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.engines.local.baselines import LOOPS, trained_baselines
from recsys_pipeline.engines.local.compiling import ready
from recsys_pipeline.engines.local.contenders import Contender, Contest
from recsys_pipeline.engines.local.measuring import measure
from recsys_pipeline.engines.local.solvers import trainer_for
from recsys_pipeline.engines.local.training import Checkpoint, Fit, Trainer, score_fit

_ARRAYS = ("strengths", "training_strengths")


def share(splits: Iterable[Split], folder: Path, *, events: bool = False) -> None:
    """Write the splits for `mapped`; which events they leave only where somebody asks for them."""
    files: dict[int, str] = {}
    number = count()

    def save_new(array: NDArray[Any]) -> str:
        file = f"{next(number)}.npy"
        try:
            np.save(folder / file, array, allow_pickle=False)
        except OSError as error:
            # NumPy says how many bytes it could not write, but neither where nor why.
            code = error.errno or errno.ENOSPC
            raise OSError(code, os.strerror(code), str(folder)) from error
        return file

    def save(array: NDArray[Any]) -> str:
        # Mappings and splits share arrays; each is written once.
        if id(array) not in files:
            files[id(array)] = save_new(array)
        return files[id(array)]

    def save_pattern(pattern: Pattern) -> dict[str, Any]:
        return {
            "indptr": save(pattern.indptr),
            "indices": save(pattern.indices),
            "n_items": pattern.n_items,
        }

    def save_split(split: Split) -> dict[str, Any]:
        return {
            "pattern": save_pattern(split.pattern),
            "users": save(split.users),
            "items": save(split.items),
            **{
                name: {mapping: save(array) for mapping, array in getattr(split, name).items()}
                for name in _ARRAYS
            },
            "training": {name: save_pattern(pattern) for name, pattern in split.training.items()},
            "exclusions": save_pattern(split.exclusions),
            "weigh_all": split.weigh_all,
            "may_repeat": split.may_repeat,
            # Made when they are asked for: the next one may get the id of one that is gone.
            "events": {name: save_new(array) for name, array in split.events.items()} if events else {},
        }

    saved = []
    for split in splits:
        saved.append(save_split(split))
        # The next one may have the same interactions; what is its own goes, and what comes may get its id.
        common = (split.pattern.indptr, split.pattern.indices, *split.strengths.values())
        files = {id(array): files[id(array)] for array in common}
    with naming(folder):
        (folder / "splits.json").write_text(json.dumps(saved), encoding="utf-8")


def mapped(folder: Path) -> list[Split]:
    """The splits that `share` wrote, mapped into memory."""

    def array(name: str) -> NDArray[Any]:
        # Copy on write: implicit wants arrays that may be written to, and writes to none.
        loaded: NDArray[Any] = np.load(folder / name, mmap_mode="c", allow_pickle=False)
        return loaded

    def pattern(saved: dict[str, Any]) -> Pattern:
        return Pattern(array(saved["indptr"]), array(saved["indices"]), saved["n_items"])

    return [
        Split(
            pattern=pattern(saved["pattern"]),
            users=array(saved["users"]),
            items=array(saved["items"]),
            **{name: {mapping: array(file) for mapping, file in saved[name].items()} for name in _ARRAYS},
            training={name: pattern(each) for name, each in saved["training"].items()},
            exclusions=pattern(saved["exclusions"]),
            events={name: array(file) for name, file in saved["events"].items()},
            weigh_all=saved["weigh_all"],
            may_repeat=saved["may_repeat"],
        )
        for saved in json.loads((folder / "splits.json").read_text(encoding="utf-8"))
    ]


def _load_states(path: str) -> list[Checkpoint]:
    with np.load(path, allow_pickle=False) as kept:
        return [
            Checkpoint(
                int(kept[f"iterations{number}"]),
                kept[f"user_factors{number}"],
                kept[f"item_factors{number}"],
                float(kept[f"seconds{number}"]),
            )
            for number in range(len(kept.files) // len(Checkpoint._fields))
        ]


def _save_states(path: str, states: list[Checkpoint]) -> None:
    # Whole or not at all: a killed worker's successor may read it.
    os.makedirs(os.path.dirname(path), exist_ok=True)
    half_written = f"{path}.{os.getpid()}.tmp.npz"
    arrays = {
        f"{name}{number}": value
        for number, state in enumerate(states)
        for name, value in state._asdict().items()
    }
    np.savez(half_written, **arrays)
    os.replace(half_written, path)


def _perform(
    job: dict[str, Any],
    splits: Sequence[Split],
    folder: Path,
    trainers: dict[tuple[Solver, int], Trainer],
    say: Callable[..., None],
) -> None:
    def trainer(solver: Solver, num_threads: int = 1) -> Trainer:
        if (solver, num_threads) not in trainers:
            trainers[solver, num_threads] = trainer_for(solver, num_threads)
        return trainers[solver, num_threads]

    try:
        if "baselines" in job:
            _measure_baselines(job, splits, folder, say)
        elif "measure" in job:
            _measure(job, splits, folder, trainer, say)
        else:
            _fit(job, splits, trainer, say)
    except MemoryError as error:
        say(failure=f"out of memory: {error}")
    except Exception as error:  # whatever goes wrong in one job must not end the others
        say(failure=f"{type(error).__name__}: {error}")
    else:
        say(done=True)


def _fit(
    job: dict[str, Any],
    splits: Sequence[Split],
    trainer: Callable[[Solver, int], Trainer],
    say: Callable[..., None],
) -> None:
    fit = Fit(Hyperparameters(**job["trial"]), tuple(job["checkpoints"]))
    resumed = _load_states(job["resume"]) if job["resume"] else None
    solver = trainer(Solver(job["solver"]), job["num_threads"])
    for result, states in score_fit(splits, fit, solver, job["seed"], resumed, job["reach"]):
        if job["keep"]:
            _save_states(job["keep"], states)
        say(
            scores=result.scores._asdict() if result.scores else None,
            ranks=packed_ranks(result.ranks),
            fit_seconds=result.fit_seconds,
        )


def _measure(
    job: dict[str, Any],
    splits: Sequence[Split],
    folder: Path,
    trainer: Callable[[Solver], Trainer],
    say: Callable[..., None],
) -> None:
    split, contest = splits[job["split"]], Contest.from_mapping(job["contest"])
    baseline = contest.baselines.get(job["measure"])
    _make_ready(baseline.family if baseline else None)
    contenders = contest.trained(job["measure"], split, job["seed"], trainer)
    _say_measured(contenders, split, contest.k, [folder / file for file in job["ranks"]], say)


def _measure_baselines(
    job: dict[str, Any], splits: Sequence[Split], folder: Path, say: Callable[..., None]
) -> None:
    baselines = [Baseline.from_mapping(values) for values in job["baselines"]]
    _make_ready(baselines[0].family)
    split = splits[job["split"]]
    contenders = (
        Contender(trained.baseline.family.value, trained.lister)
        for trained in trained_baselines(baselines, split, job["target_events"])
    )
    _say_measured(contenders, split, job["k"], [folder / file for file in job["ranks"]], say)


def _make_ready(family: Family | None) -> None:
    """Compile what a baseline needs before its seconds count."""
    ready("recsys_pipeline.core.selection")
    if family in LOOPS:
        ready(LOOPS[family])


def _say_measured(
    contenders: Iterator[Contender], split: Split, k: int, files: Sequence[Path], say: Callable[..., None]
) -> None:
    """Write the ranks of each model, and say what its lists are like and what it took to train and list."""
    training = 0.0
    for file in files:
        begin = time.perf_counter()
        contender = next(contenders)
        trained = time.perf_counter()
        # What comes later builds on what comes first.
        training += trained - begin
        ranks, lists = measure(contender, split, k)
        seconds = training + time.perf_counter() - trained
        np.save(file, ranks, allow_pickle=False)
        say(lists=lists._asdict() if lists else None, seconds=seconds)


def main(folder: str) -> None:
    """Perform the jobs until standard input ends."""
    # Whatever prints goes to standard error; the answers have the real standard output to themselves.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            jobs.put(line)
        # The parent is gone, or wants no more; nothing here is worth finishing.
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    splits = mapped(Path(folder))
    trainers: dict[tuple[Solver, int], Trainer] = {}

    def say(**message: Any) -> None:
        answer.write(json.dumps(message) + "\n")
        answer.flush()

    while True:
        _perform(json.loads(jobs.get()), splits, Path(folder), trainers, say)


if __name__ == "__main__":
    main(sys.argv[1])
