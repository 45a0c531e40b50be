"""The worker processes: same results, contained failures, none left behind."""

import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

from recsys_pipeline.core.hyperparameters import grid
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.engines.local.fitting import FitPool
from recsys_pipeline.engines.local.implicit_als import ImplicitTrainer
from recsys_pipeline.engines.local.memory import Budget, data_bytes, fit_bytes
from recsys_pipeline.engines.local.methods import Task
from recsys_pipeline.engines.local.pool import Patience
from recsys_pipeline.engines.local.solvers import trainer_for
from recsys_pipeline.engines.local.training import Fit, fits_for, score_fit
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.engines.local import endless
from recsys_pipeline_tests.engines.local.endless import ENDLESS, splits

pytestmark = pytest.mark.runs

TRIALS = grid(
    {
        "factors": [4, 8],
        "regularization": [0.1],
        "alpha": [5.0, 10.0],
        "iterations": [2, 5],
        "bm25_K1": [100.0],
        "bm25_B": [0.8],
    }
)


def scores(results):
    return {result.hyperparameters: result.scores for result in results}


@pytest.mark.parametrize("solver", [Solver.batched, Solver.implicit])
def test_gives_what_one_process_gives(solver):
    data = splits()
    with FitPool(data, solver, seed=5, n_workers=2) as pool:
        side_by_side = scores(pool.run([Task(fit) for fit in fits_for(TRIALS)]))

    one_by_one = [
        result for fit in fits_for(TRIALS) for result, _ in score_fit(data, fit, trainer_for(solver), seed=5)
    ]
    assert side_by_side == scores(one_by_one)


def test_a_kept_state_is_taken_up_again():
    data = splits()
    trial = TRIALS[0]
    with FitPool(data, Solver.implicit, seed=5, n_workers=1) as pool:
        list(pool.run([Task(Fit(trial.replace(iterations=3), (3,)), keep=True)]))
        (resumed,) = pool.run([Task(Fit(trial.replace(iterations=5), (5,)), resume=True)])

    ((whole, _),) = score_fit(data, Fit(trial.replace(iterations=5), (5,)), ImplicitTrainer(), seed=5)
    assert resumed.scores == whole.scores


def test_a_trial_that_diverges_is_a_failure_and_the_others_go_on():
    # Weights that overflow in float32.
    bad = TRIALS[0].replace(alpha=1e38)
    data = splits()
    with FitPool(data, Solver.implicit, seed=5, n_workers=2) as pool:
        results = list(pool.run([Task(fit) for fit in fits_for([*TRIALS, bad])]))

    (failed,) = [result for result in results if result.scores is None]
    assert failed.hyperparameters == bad
    assert "NaN" in failed.failure
    assert len(results) == len(TRIALS) + 1


def test_a_worker_that_dies_without_a_task_fails_no_trial():
    first, *rest = fits_for(TRIALS)
    with FitPool(splits(40, 60), Solver.implicit, seed=5, n_workers=1) as pool:
        assert all(result.scores for result in pool.run([Task(first)]))
        pool._workers[0].process.kill()
        pool._workers[0].process.wait()

        assert all(result.scores for result in pool.run([Task(fit) for fit in rest]))


def test_a_dead_worker_is_a_failed_trial_and_is_replaced():
    results = []
    with FitPool(splits(400, 600), Solver.implicit, seed=5, n_workers=1) as pool:
        # The large fit goes first; its worker is killed as soon as it has answered once.
        for result in pool.run([Task(fit) for fit in [ENDLESS, *fits_for(TRIALS)]]):
            results.append(result)
            if result.hyperparameters == ENDLESS.trial(1):
                pool._workers[0].process.kill()

    (failed,) = [result for result in results if result.scores is None]
    assert failed.hyperparameters == ENDLESS.longest
    assert "was killed by SIGKILL (out of memory?)" in failed.failure
    assert {result.hyperparameters for result in results} == {*TRIALS, ENDLESS.trial(1), ENDLESS.longest}


def test_a_worker_that_hangs_is_a_failed_trial_and_is_replaced():
    """As on a dead network file system: it neither answers nor ends."""
    # By the pace of the first answer, which the start of the process slows, the long one may take a minute.
    short, long = TRIALS[0].replace(factors=1, iterations=1), TRIALS[0].replace(factors=64, iterations=20)
    patience = Patience(multiple=1, at_least=0.5, at_most=1000)
    with FitPool(splits(), Solver.implicit, seed=5, n_workers=1, patience=patience) as pool:

        def results_of(trial):
            return list(pool.run([Task(fit) for fit in fits_for([trial])]))

        assert results_of(TRIALS[0])[0].scores
        os.kill(pool._workers[0].process.pid, signal.SIGSTOP)
        (hanging,), (next_one,) = results_of(short), results_of(long)

    assert hanging.hyperparameters == short
    assert re.fullmatch(r"the worker process said nothing for \d s and was ended", hanging.failure)
    assert next_one.scores


@pytest.mark.parametrize(
    ("expected", "limit"),
    [
        pytest.param(0.0, 100, id="nothing is known yet"),
        pytest.param(4.0, 40, id="a multiple of what is expected"),
        pytest.param(0.1, 2, id="at least so many seconds"),
    ],
)
def test_how_long_a_worker_may_be_silent(expected, limit):
    assert Patience(multiple=10, at_least=2, at_most=100).limit(expected) == limit


@pytest.mark.parametrize("n_settings", [1, 50])
def test_what_workers_share_does_not_grow_with_the_weights_that_trials_need(n_settings):
    """A weight vector for each K1 and B at once would be 20 GB at 256 trials and 20 M interactions."""
    trials = [TRIALS[0].replace(bm25_K1=float(n)) for n in range(1, n_settings + 1)]
    with FitPool(splits(), Solver.implicit, seed=5, n_workers=1) as pool:
        list(pool.run([Task(fit) for fit in fits_for(trials)]))
        size = sum(file.stat().st_size for file in pool.folder.glob("*.npy"))

    assert size < 12_000


def test_the_state_of_a_fit_goes_when_it_is_forgotten():
    fit = Fit(TRIALS[0].replace(iterations=3), (3,))
    with FitPool(splits(), Solver.implicit, seed=5, n_workers=1) as pool:
        list(pool.run([Task(fit, keep=True)]))
        kept = list((pool.folder / "states").iterdir())
        pool.forget(fit)

        assert len(kept) == 1
        assert not list((pool.folder / "states").iterdir())


def test_running_out_of_memory_is_a_failure_and_the_others_go_on():
    huge = TRIALS[0].replace(factors=4096)
    trials = [huge, TRIALS[0]]
    # 400,000 items x 4,096 factors take 6.5 GB.
    data = splits(n_items=400_000)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, limits[1]))
    try:
        with FitPool(data, Solver.implicit, seed=5, n_workers=1) as pool:
            results = {
                result.hyperparameters: result for result in pool.run([Task(fit) for fit in fits_for(trials)])
            }
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)

    assert results[huge].failure.startswith("out of memory")
    assert results[TRIALS[0]].scores


def test_a_worker_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr("recsys_pipeline.engines.local.pool.share", lambda *_, **__: None)
    with FitPool(splits(), Solver.implicit, seed=5, n_workers=1) as pool:
        results = list(pool.run([Task(fit) for fit in fits_for(TRIALS[:1])]))

    assert "ended with code 1" in results[0].failure
    assert "splits.json" in results[0].failure


def side_by_side(trials, room):
    """At each result, the trials at work; and the results."""
    data = splits()
    budget = Budget.of(2 * data_bytes(data) + room, data, wanted=2)
    at_work, results = [], []
    with FitPool(data, Solver.implicit, seed=5, n_workers=2, budget=budget) as pool:
        for result in pool.run([Task(fit) for fit in fits_for(trials)]):
            at_work.append([worker.job.task.fit.longest for worker in pool._workers if worker.job])
            results.append(result)
        n_started = pool._n_started
    assert {result.hyperparameters for result in results if result.scores} == set(trials)
    return at_work, n_started


def bytes_of(trial):
    return fit_bytes(splits(), trial)


@pytest.mark.parametrize(
    ("fits_of_room", "at_once"),
    [
        pytest.param(0, 1, id="of none, the first is tried all the same"),
        pytest.param(1, 1, id="of one"),
        pytest.param(1.9, 1, id="of almost two"),
        pytest.param(2, 2, id="of two"),
    ],
)
def test_as_many_fits_run_side_by_side_as_there_is_room_for(fits_of_room, at_once):
    trials = [TRIALS[0].replace(alpha=float(alpha)) for alpha in range(1, 7)]
    at_work, n_started = side_by_side(trials, int(fits_of_room * bytes_of(trials[0])))

    assert max(map(len, at_work)) == at_once
    # Who has nothing to do takes no memory either.
    assert n_started == at_once


def test_a_wide_fit_runs_alone_where_narrow_ones_run_side_by_side():
    wide, narrow = TRIALS[0].replace(factors=64), [TRIALS[0].replace(alpha=float(a)) for a in range(1, 7)]
    assert 2 * bytes_of(narrow[0]) < bytes_of(wide)
    at_work, _ = side_by_side([*narrow, wide], bytes_of(wide))

    assert [wide] in at_work
    assert all(trials == [wide] for trials in at_work if wide in trials)
    assert max(map(len, at_work)) == 2


def started(*arguments):
    """A process that searches, the folder of its search, and its workers."""
    parent = subprocess.Popen(
        [sys.executable, "-m", endless.__name__, *arguments],
        cwd=PROJECT,
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
    parent, _, workers = started()
    assert all(is_running(int(pid)) for pid in workers)
    parent.send_signal(how)
    parent.communicate(timeout=60)

    assert_gone(workers)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at processes through /proc")
def test_a_signal_to_another_thread_ends_the_search_too():
    parent, folder, workers = started("interrupted")
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
