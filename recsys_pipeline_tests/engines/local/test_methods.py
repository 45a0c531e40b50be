"""What each strategy has fitted, on scores that are given."""

import pytest

from recsys_pipeline.core.hyperparameters import grid
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.neighbourhood import Neighbourhood
from recsys_pipeline.core.search import TrialResult, best_first
from recsys_pipeline.core.selecting import Estimate
from recsys_pipeline.engines.local.methods import exhaustive, halving, in_rounds, rungs

TRIALS = grid(
    {
        "factors": [8],
        "regularization": [0.1],
        "alpha": [float(n) for n in range(1, 9)],
        "iterations": [4, 20],
        "bm25_K1": [100.0],
        "bm25_B": [0.8],
    }
)


def nothing(_):
    """No state is kept, so none is forgotten."""


def remembering(known):
    """Somebody who knows these results."""
    return lambda trials: [known[trial] for trial in trials if trial in known]


NO_JOURNAL = remembering({})


class Bench:
    """A world in which MAP@10 grows with alpha and with the iterations; counts what is trained."""

    def __init__(self, failing=()):
        self.iterations = 0
        self.failing = failing
        self.states = {}

    def run(self, tasks):
        for task in tasks:
            key = task.fit.trial(0)
            done = self.states.get(key, 0) if task.resume else 0
            for n in task.fit.checkpoints:
                assert n > done
                self.iterations += n - done
                done = n
                yield self.result(task.fit.trial(n))
            if task.keep:
                self.states[key] = done

    def result(self, trial):
        if trial.alpha in self.failing:
            return TrialResult(trial, None, float("nan"), "diverged")
        score = trial.alpha / 10 + trial.iterations / 1000
        return TrialResult(trial, Scores(score, 0.0, score, score, score, score), 1.0)


def test_the_grid_does_every_trial_once():
    bench = Bench()
    results = list(exhaustive(TRIALS, NO_JOURNAL, bench.run))

    assert {result.hyperparameters for result in results} == set(TRIALS)
    assert len(results) == len(TRIALS)
    assert bench.iterations == 8 * 20


def test_what_is_known_is_not_done_again():
    bench = Bench()
    known = {trial: bench.result(trial) for trial in TRIALS if trial.alpha > 2}
    results = list(exhaustive(TRIALS, remembering(known), bench.run))

    assert {result.hyperparameters for result in results} == set(TRIALS)
    assert bench.iterations == 2 * 20


@pytest.mark.parametrize(
    ("longest", "first", "expected"),
    [(20, 5, [5, 10, 20]), (20, 2, [3, 5, 10, 20]), (16, 4, [4, 8, 16]), (3, 5, [3]), (1, 1, [1])],
)
def test_rungs_halve_down_to_the_first(longest, first, expected):
    assert rungs(longest, first) == expected


def test_halving_gives_every_trial_a_row_and_stops_the_worse_half_at_each_rung():
    bench = Bench()
    results = {
        result.hyperparameters: result
        for result in halving(TRIALS, NO_JOURNAL, bench.run, first=5, forget=nothing)
    }

    assert set(results) == set(TRIALS)
    reached = {t.alpha: r.iterations_done for t, r in results.items() if t.iterations == 20}
    assert reached == {1: 5, 2: 5, 3: 5, 4: 5, 5: 10, 6: 10, 7: None, 8: None}
    assert all(r.iterations_done is None for t, r in results.items() if t.iterations == 4)
    assert bench.iterations == 8 * 5 + 4 * 5 + 2 * 10
    assert best_first(list(results.values()))[0].hyperparameters.alpha == 8


def test_halving_compares_by_what_selects():
    """The smaller alpha, the better by what selects, whatever MAP@10 says."""
    bench = Bench()

    def run(tasks):
        for result in bench.run(tasks):
            yield result._replace(selected=Estimate(-result.scores.map + 1, 0.0))

    halved = halving(TRIALS, NO_JOURNAL, run, first=5, forget=nothing)
    results = {result.hyperparameters: result for result in halved}

    reached = {t.alpha: r.iterations_done for t, r in results.items() if t.iterations == 20}
    assert reached == {1: None, 2: None, 3: 10, 4: 10, 5: 5, 6: 5, 7: 5, 8: 5}


@pytest.mark.parametrize(("alpha", "iterations"), [(1.0, 20), (3.0, 15), (6.0, 20)])
def test_halving_never_stops_the_incumbent(alpha, iterations):
    incumbent = TRIALS[0].replace(alpha=alpha, iterations=iterations)
    bench = Bench()
    results = {
        result.hyperparameters: result
        for result in halving([*TRIALS, incumbent], NO_JOURNAL, bench.run, 5, nothing, incumbent)
    }

    assert results[incumbent].iterations_done is None
    assert results[incumbent].scores == bench.result(incumbent).scores
    # It comes along beside those that go on by their scores.
    finished = {t.alpha for t, r in results.items() if t.iterations == 20 and r.iterations_done is None}
    assert finished == {alpha, 7, 8}


def test_an_incumbent_that_fails_is_a_row_and_halving_goes_on():
    incumbent = TRIALS[1]
    results = {
        result.hyperparameters: result
        for result in halving(TRIALS, NO_JOURNAL, Bench(failing=[1.0]).run, 5, nothing, incumbent)
    }

    assert results[incumbent].failure == "diverged"
    assert set(results) == set(TRIALS)


class PowerCutError(Exception):
    """The search ends here."""


@pytest.mark.parametrize("n_finished", [0, 3, 9, 15])
def test_halving_goes_on_where_it_was_interrupted(n_finished):
    whole = list(halving(TRIALS, NO_JOURNAL, Bench().run, first=5, forget=nothing))
    journal = {}
    bench = Bench()

    def run_until_the_power_cut(tasks):
        for result in bench.run(tasks):
            if len(journal) == n_finished:
                raise PowerCutError
            journal[result.hyperparameters] = result
            yield result

    with pytest.raises(PowerCutError):
        list(halving(TRIALS, NO_JOURNAL, run_until_the_power_cut, first=5, forget=nothing))
    # The states are gone with the process; what was journalled is left.
    bench = Bench()
    again = list(halving(TRIALS, remembering(journal), bench.run, first=5, forget=nothing))

    assert {r.hyperparameters: r for r in again} == {r.hyperparameters: r for r in whole}


def test_halving_drops_a_fit_that_fails():
    results = {
        r.hyperparameters: r
        for r in halving(TRIALS, NO_JOURNAL, Bench(failing=[8.0]).run, first=5, forget=nothing)
    }

    assert set(results) == set(TRIALS)
    assert results[TRIALS[-1]].failure == "diverged"
    assert best_first(list(results.values()))[0].hyperparameters.alpha == 7


def test_a_fit_that_is_decided_is_forgotten_once():
    forgotten = []
    list(
        halving(
            TRIALS,
            NO_JOURNAL,
            Bench().run,
            first=5,
            forget=lambda fit: forgotten.append(fit.longest.alpha),
        )
    )

    # Of eight fits four are dropped after 5 iterations and two after 10; the last rung keeps no state.
    assert sorted(forgotten) == [1, 2, 3, 4, 5, 6]


NEIGHBOURHOOD = Neighbourhood.around(
    TRIALS[2],  # alpha 2, iterations 4
    {
        **{name: [value] for name, value in TRIALS[0].as_dict().items()},
        "alpha": [1.0, 2.0],
        "iterations": [2, 4],
    },
    steps_beyond=3,
)


def searched(bench, finished=NO_JOURNAL, most_steps=9):
    return {
        result.hyperparameters: result for result in in_rounds(NEIGHBOURHOOD, finished, bench.run, most_steps)
    }


def test_a_search_around_a_start_climbs_until_the_stated_bounds():
    results = searched(Bench())
    best = best_first(list(results.values()))[0].hyperparameters

    # Three steps beyond the ends of the lists.
    assert (best.alpha, best.iterations) == (16, 32)
    assert len(results) < 7 * 7


def test_values_of_iterations_come_out_of_one_fit():
    bench = Bench()
    results = searched(bench, most_steps=0)

    assert sorted((t.alpha, t.iterations) for t in results) == [(1, 4), (2, 2), (2, 4), (2, 8), (4, 4)]
    assert bench.iterations == 4 + 8 + 4


def test_it_goes_on_no_more_often_than_it_may():
    found = [max(trial.alpha for trial in searched(Bench(), most_steps=steps)) for steps in (0, 1, 2)]

    assert found == [4, 8, 16]


@pytest.mark.parametrize("n_finished", [0, 3, 6, 9])
def test_it_goes_on_where_it_was_interrupted(n_finished):
    whole = searched(Bench())
    journal = dict(list(whole.items())[:n_finished])
    bench = Bench()
    computed = []

    def run(tasks):
        for result in bench.run(tasks):
            computed.append(result.hyperparameters)
            yield result

    again = {r.hyperparameters: r for r in in_rounds(NEIGHBOURHOOD, remembering(journal), run, 9)}

    assert again == whole
    assert set(computed) == set(whole) - set(journal)


def test_a_trial_that_fails_does_not_end_it():
    results = searched(Bench(failing=[1.0, 16.0]))

    assert results[TRIALS[2].replace(alpha=1.0)].failure == "diverged"
    assert best_first(list(results.values()))[0].hyperparameters.alpha == 8


def test_even_a_start_that_fails_does_not():
    results = searched(Bench(failing=[2.0]))

    assert best_first(list(results.values()))[0].hyperparameters.alpha == 16


def test_where_all_fail_that_is_all():
    assert len(searched(Bench(failing=[1.0, 2.0, 4.0]))) == 5
