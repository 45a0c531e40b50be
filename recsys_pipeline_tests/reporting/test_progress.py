"""What a search says of itself while it runs."""

from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.core.selecting import Estimate, SelectBy, Selection
from recsys_pipeline.reporting.progress import Progress

TRIAL = Hyperparameters(factors=4, regularization=0.1, alpha=5.0, iterations=20, bm25_K1=100.0, bm25_B=0.8)

TRIALS = [TRIAL.replace(alpha=alpha) for alpha in (1.0, 2.0, 3.0)]


def result(alpha, score):
    return TrialResult(TRIAL.replace(alpha=alpha), Scores(score, 0.0, 0.0, 0.0, 0.0, 0.0), 1.0)


def test_a_line_a_finished_trial_with_the_best_so_far():
    lines = []
    with Progress(lines.append, TRIALS, in_journal=0) as progress:
        progress.report(result(1.0, 0.1))
        progress.report(result(2.0, 0.3))
        progress.report(result(3.0, 0.2))

    assert [line.split(":")[0] for line in lines] == ["trial 1 of 3", "trial 2 of 3", "trial 3 of 3"]
    assert "MAP@10 0.2000; best so far 0.3000, about 0 s left" in lines[-1]


def test_the_time_that_is_left_is_told_once_each_worker_has_done_two_trials():
    lines = []
    with Progress(lines.append, TRIALS * 2, in_journal=1, workers=2) as progress:
        for alpha in (1.0, 2.0, 3.0) * 2:
            progress.report(result(alpha, 0.1))

    # The first is of the journal, which says nothing of the time.
    assert [" left" in line for line in lines] == [False, False, False, True, True]


def test_the_figure_is_that_by_which_trials_are_compared():
    lines = []
    by = Selection(SelectBy.NDCG, 20)
    with Progress(lines.append, TRIALS[:2], in_journal=0, selection=by) as progress:
        progress.report(result(1.0, 0.1)._replace(selected=Estimate(0.5, 0.0)))
        progress.report(result(2.0, 0.3)._replace(selected=Estimate(0.4, 0.0)))

    assert "alpha 2: NDCG@20 0.4000; best so far 0.5000" in lines[1]


def test_a_trial_is_told_by_what_it_differs_in():
    lines = []
    trials = [TRIAL, TRIAL.replace(strengths="equal", nu=0.5)]
    with Progress(lines.append, trials, in_journal=0) as progress:
        progress.report(TrialResult(trials[1], result(1.0, 0.1).scores, 1.0))

    assert lines[0].startswith("trial 1 of 2: nu 0.5, strengths equal: MAP@10 0.1000;")


def test_what_the_journal_knew_is_counted_and_not_told():
    lines = []
    with Progress(lines.append, TRIALS, in_journal=2) as progress:
        for alpha in (1.0, 2.0, 3.0):
            progress.report(result(alpha, 0.1))

    assert len(lines) == 1
    assert lines[0].startswith("trial 3 of 3")


def test_a_search_that_may_go_on_does_not_say_how_far_it_is():
    lines = []
    with Progress(lines.append, TRIALS[:2], in_journal=0, more_may_follow=True) as progress:
        for alpha in (1.0, 2.0, 3.0):
            progress.report(result(alpha, 0.1))

    assert lines[0] == "trial 1 of 2 or more: alpha 1: MAP@10 0.1000; best so far 0.1000"
    assert lines[1].endswith("about 0 s left of the first round")
    assert lines[2] == "trial 3: alpha 3: MAP@10 0.1000; best so far 0.1000"


def test_what_only_later_trials_differ_in_is_told_of_them():
    lines = []
    wider = result(1.0, 0.1)
    wider = wider._replace(hyperparameters=wider.hyperparameters.replace(factors=512))
    with Progress(lines.append, TRIALS[:2], in_journal=0, more_may_follow=True) as progress:
        progress.report(result(1.0, 0.1))
        progress.report(wider)

    assert "trial 1 of 2 or more: alpha 1: " in lines[0]
    assert "factors 512, alpha 1: " in lines[1]


def test_failures_and_stops_say_so():
    lines = []
    with Progress(lines.append, TRIALS[:2], in_journal=0) as progress:
        progress.report(TrialResult(TRIAL, None, float("nan"), "NaN in the factors"))
        progress.report(result(1.0, 0.1)._replace(iterations_done=5))

    assert "failed: NaN in the factors; best so far none" in lines[0]
    assert "MAP@10 0.1000, stopped after 5; best so far 0.1000" in lines[1]
