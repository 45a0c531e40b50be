"""The worker processes: same results, contained failures, none left behind."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from recsys_pipeline.core.holdout import hold_out_pairs
from recsys_pipeline.core.search import SearchData, score_fit
from recsys_pipeline.core.splitting import held_out_pairs
from recsys_pipeline.core.strategies import Task
from recsys_pipeline.core.trials import Fit, Trial, fits_for, grid
from recsys_pipeline.engines.local import ImplicitTrainer
from recsys_pipeline.engines.pool import WorkerPool
from recsys_pipeline.engines.solvers import Solver, trainer_for
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.worlds import pattern_of

TRIALS = grid(
    factors=[4, 8], regularization=[0.1], alpha=[5.0, 10.0], iterations=[2, 5], bm25_k1=[100.0], bm25_b=[0.8]
)
# Long enough to be killed in the middle.
ENDLESS = Trial(factors=64, regularization=0.1, alpha=5.0, iterations=10**6, bm25_k1=100.0, bm25_b=0.8)


def data_for(trials, n_users=30, n_items=40):
    rng = np.random.default_rng(3)
    pattern = pattern_of([rng.choice(n_items, 8, replace=False) for _ in range(n_users)], n_items)
    strengths = rng.integers(1, 6, pattern.n_pairs).astype(float)
    held_out = held_out_pairs(pattern, seed=1, min_interactions=3)
    return SearchData.prepare(pattern, [hold_out_pairs(pattern, strengths, held_out)], trials)


def scores(results):
    return {result.trial: result.scores for result in results}


@pytest.mark.parametrize("solver", list(Solver))
def test_gives_what_one_process_gives(solver):
    data = data_for(TRIALS)
    with WorkerPool(data, solver, seed=5, n_workers=2) as pool:
        side_by_side = scores(pool.run([Task(fit) for fit in fits_for(TRIALS)]))

    one_by_one = [
        result for fit in fits_for(TRIALS) for result, _ in score_fit(data, fit, trainer_for(solver), seed=5)
    ]
    assert side_by_side == scores(one_by_one)


def test_a_kept_state_is_taken_up_again():
    data = data_for(TRIALS)
    trial = TRIALS[0]
    with WorkerPool(data, Solver.implicit, seed=5, n_workers=1) as pool:
        list(pool.run([Task(Fit(trial._replace(iterations=3), (3,)), keep=True)]))
        (resumed,) = pool.run([Task(Fit(trial._replace(iterations=5), (5,)), resume=True)])

    ((whole, _),) = score_fit(data, Fit(trial._replace(iterations=5), (5,)), ImplicitTrainer(), seed=5)
    assert resumed.scores == whole.scores


def test_a_trial_that_diverges_is_a_failure_and_the_others_go_on():
    # Weights that overflow in float32.
    bad = TRIALS[0]._replace(alpha=1e38)
    data = data_for([*TRIALS, bad])
    with WorkerPool(data, Solver.implicit, seed=5, n_workers=2) as pool:
        results = list(pool.run([Task(fit) for fit in fits_for([*TRIALS, bad])]))

    (failed,) = [result for result in results if result.scores is None]
    assert failed.trial == bad
    assert "NaN" in failed.failure
    assert len(results) == len(TRIALS) + 1


def test_a_dead_worker_is_a_failed_trial_and_is_replaced():
    data = data_for([*TRIALS, ENDLESS], n_users=400, n_items=600)
    with WorkerPool(data, Solver.implicit, seed=5, n_workers=1) as pool:
        running = pool.run([Task(fit) for fit in fits_for([ENDLESS, *TRIALS])])
        # The large fit goes first; its worker is killed as soon as it has it.
        killer = threading.Timer(1.5, lambda: pool._workers[0].process.kill())
        killer.start()
        results = list(running)

    (failed,) = [result for result in results if result.scores is None]
    assert failed.trial == ENDLESS
    assert "was killed by SIGKILL (out of memory?)" in failed.failure
    assert {result.trial for result in results} == {*TRIALS, ENDLESS}


def test_running_out_of_memory_is_a_failure_and_the_others_go_on():
    huge = TRIALS[0]._replace(factors=4096)
    trials = [huge, TRIALS[0]]
    # 400,000 items x 4,096 factors take 6.5 GB.
    data = data_for(trials, n_items=400_000)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, limits[1]))
    try:
        with WorkerPool(data, Solver.implicit, seed=5, n_workers=1) as pool:
            results = {result.trial: result for result in pool.run([Task(fit) for fit in fits_for(trials)])}
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)

    assert results[huge].failure.startswith("out of memory")
    assert results[TRIALS[0]].scores


def test_a_worker_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr("recsys_pipeline.engines.pool.share", lambda *_: None)
    with WorkerPool(data_for(TRIALS), Solver.implicit, seed=5, n_workers=1) as pool:
        results = list(pool.run([Task(fit) for fit in fits_for(TRIALS[:1])]))

    assert "ended with code 1" in results[0].failure
    assert "splits.json" in results[0].failure


PARENT = """
import sys
sys.path.insert(0, {root!r})
from recsys_pipeline_tests.engines.test_pool import *
trials = [ENDLESS, ENDLESS._replace(alpha=6.0)]
with WorkerPool(data_for(trials, 400, 600), Solver.implicit, seed=5, n_workers=2) as pool:
    running = pool.run([Task(fit) for fit in fits_for(trials)])
    threading.Timer(
        1, lambda: print(pool._folder, *(w.process.pid for w in pool._workers), flush=True)
    ).start()
    list(running)
"""


# Interrupts itself from another thread, as Dagster does when a run is terminated.
INTERRUPTED = PARENT.replace(
    "list(running)",
    """threading.Timer(2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)).start()
    list(running)""",
)


def started(script):
    """A process that searches, the folder of its search, and its workers."""
    parent = subprocess.Popen(
        [sys.executable, "-c", script.format(root=str(PROJECT))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    folder, *workers = parent.stdout.readline().split()
    assert len(workers) == 2
    return parent, folder, workers


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at processes through /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_parent(how):
    parent, _, workers = started(PARENT)
    assert all(is_running(int(pid)) for pid in workers)
    parent.send_signal(how)
    parent.communicate(timeout=60)

    assert_gone(workers)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at processes through /proc")
def test_a_signal_to_another_thread_ends_the_search_too():
    parent, folder, workers = started(INTERRUPTED)
    _, errors = parent.communicate(timeout=60)

    assert b"KeyboardInterrupt" in errors
    assert not os.path.exists(folder)
    assert_gone(workers)


def assert_gone(workers):
    for _ in range(100):
        if not any(is_running(int(pid)) for pid in workers):
            break
        time.sleep(0.1)
    assert not any(is_running(int(pid)) for pid in workers)
