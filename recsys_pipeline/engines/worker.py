"""One process of the search: reads tasks from standard input, writes results to standard output.

    python -m recsys_pipeline.engines.worker FOLDER

Both are lines of JSON, so that nothing is unpickled. The arrays in FOLDER are mapped, not read: all workers
share one copy of them.
"""

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.search import Checkpoint, SearchData, Trainer, score_fit
from recsys_pipeline.core.trials import Fit, Trial
from recsys_pipeline.engines.solvers import Solver, trainer_for

_WEIGHTS = "weights"


def share(data: SearchData, folder: Path) -> None:
    """Write the data for `mapped`."""
    arrays: dict[str, NDArray[Any]] = {
        "indptr": data.training.indptr,
        "indices": data.training.indices,
        "users": data.users,
        "items": data.items,
    }
    names = {}
    for number, (key, weights) in enumerate(data.weights.items()):
        names[f"{_WEIGHTS}{number}"] = key
        arrays[f"{_WEIGHTS}{number}"] = weights
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    meta = {"n_items": data.training.n_items, _WEIGHTS: names}
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def mapped(folder: Path) -> SearchData:
    """The data that `share` wrote, mapped into memory."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))

    def array(name: str) -> NDArray[Any]:
        # Copy on write: implicit wants arrays that may be written to, and writes to none.
        loaded: NDArray[Any] = np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
        return loaded

    return SearchData(
        training=Pattern(array("indptr"), array("indices"), meta["n_items"]),
        users=array("users"),
        items=array("items"),
        weights={(k1, b): array(name) for name, (k1, b) in meta[_WEIGHTS].items()},
    )


def _load_state(path: str) -> Checkpoint:
    with np.load(path, allow_pickle=False) as state:
        return Checkpoint(
            int(state["iterations"]), state["user_factors"], state["item_factors"], float(state["seconds"])
        )


def _save_state(path: str, state: Checkpoint) -> None:
    # Whole or not at all: a killed worker's successor may read it.
    half_written = f"{path}.{os.getpid()}.tmp.npz"
    np.savez(half_written, **state._asdict())
    os.replace(half_written, path)


def _perform(task: dict[str, Any], data: SearchData, trainers: dict[str, Trainer], answer: TextIO) -> None:
    def say(**message: Any) -> None:
        answer.write(json.dumps({"id": task["id"], **message}) + "\n")
        answer.flush()

    fit = Fit(Trial(**task["trial"]), tuple(task["checkpoints"]))
    try:
        solver = task["solver"]
        trainer = trainers.setdefault(solver, trainer_for(Solver(solver), num_threads=1))
        start = _load_state(task["resume"]) if task["resume"] else None
        for result, state in score_fit(data, fit, trainer, task["seed"], start):
            if task["keep"]:
                _save_state(task["keep"], state)
            say(
                iterations=result.trial.iterations,
                scores=result.scores._asdict() if result.scores else None,
                fit_seconds=result.fit_seconds,
            )
    except MemoryError as error:
        say(failure=f"out of memory: {error}")
    except Exception as error:  # whatever goes wrong in one trial must not end the search
        say(failure=f"{type(error).__name__}: {error}")
    else:
        say(done=True)


def main(folder: str) -> None:
    """Perform the tasks until standard input ends."""
    # Whatever prints goes to standard error; the answers have the real standard output to themselves.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            tasks.put(line)
        # The parent is gone, or wants no more; nothing here is worth finishing.
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    data = mapped(Path(folder))
    trainers: dict[str, Trainer] = {}
    while True:
        _perform(json.loads(tasks.get()), data, trainers, answer)


if __name__ == "__main__":
    main(sys.argv[1])
