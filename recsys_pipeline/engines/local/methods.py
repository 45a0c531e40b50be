"""Which fits a search does, and in which order: grid and random to their ends, halving, or in rounds."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from recsys_pipeline.core.course import Course
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.engines.engine import Finished
from recsys_pipeline.engines.local.training import Fit, fits_for


class Task(NamedTuple):
    """A fit to do.

    Attributes:
        fit: what to train.
        resume: take up the state that an earlier task of the same trial kept, where there is one.
        keep: keep the state for a later task.
    """

    fit: Fit
    resume: bool = False
    keep: bool = False


# Does the fits and yields the result of each of their trials as it comes.
Run = Callable[[Sequence[Task]], Iterator[TrialResult]]
# Told that a fit is decided: the state that was kept of it is of no more use.
Forget = Callable[[Fit], None]


def exhaustive(trials: Sequence[Hyperparameters], finished: Finished, run: Run) -> Iterator[TrialResult]:
    """Every trial to its end; those that are known are not done again."""
    known = _by_trial(finished(trials))
    yield from (known[trial] for trial in trials if trial in known)
    yield from run([Task(fit) for fit in fits_for(trial for trial in trials if trial not in known)])


def _by_trial(results: Iterable[TrialResult]) -> dict[Hyperparameters, TrialResult]:
    return {result.hyperparameters: result for result in results}


def in_rounds(course: Course, finished: Finished, run: Run, most_steps: int) -> Iterator[TrialResult]:
    """The first round, then so many more at most of what its results lead to.

    A round depends on the results before it alone, so that an interrupted search tries the same again.
    """
    results: list[TrialResult] = []
    trials = course.first_round()
    for _ in range(1 + most_steps):
        for result in exhaustive(trials, finished, run):
            results.append(result)
            yield result
        trials = course.next_round(results)
        if not trials:
            return


def rungs(longest: int, first: int) -> list[int]:
    """Iterations at which halving compares: `longest`, half of it, and so on down to `first`."""
    ladder = [longest]
    while ladder[0] / 2 >= first:
        ladder.insert(0, -(-ladder[0] // 2))
    return ladder


def halving(
    trials: Sequence[Hyperparameters],
    finished: Finished,
    run: Run,
    first: int,
    forget: Forget,
    incumbent: Hyperparameters | None = None,
) -> Iterator[TrialResult]:
    """Successive halving: all fits advance to a rung, the better half by what selects goes on to the next.

    The incumbent goes on beside that half where it is not among them, so that it is trained to its end.

    A fit that stops keeps what it has reached: its longer trials get the score of the rung at which it
    stopped, with `iterations_done` below their `iterations`.

    Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization"
    (2016).
    """
    # Those between the rungs of another search are of use too.
    passed = {trial.replace(iterations=n) for trial in trials for n in range(1, trial.iterations + 1)}
    found = _by_trial(finished(sorted(passed)))
    answered: set[Hyperparameters] = set()
    alive = fits_for(trials)
    wanted = set(trials)
    longest = max(fit.longest.iterations for fit in alive)
    of_incumbent = incumbent.replace(iterations=0) if incumbent else None
    guest: Fit | None = None  # that of the incumbent, once it has lost
    reached = 0
    ladder = rungs(longest, first)
    for rung in ladder:
        tasks = []
        for fit in alive:
            stops = {n for n in (*fit.checkpoints, rung) if reached < n <= min(rung, fit.longest.iterations)}
            if missing := sorted(n for n in stops if fit.trial(n) not in found):
                tasks.append(
                    Task(Fit(fit.trial(missing[-1]), tuple(missing)), resume=True, keep=rung != longest)
                )
        for result in run(tasks):
            found[result.hyperparameters] = result
            if result.hyperparameters in wanted:
                answered.add(result.hyperparameters)
                yield result
        for fit in alive:
            for n in fit.checkpoints:
                if n <= rung and fit.trial(n) not in answered:
                    answered.add(fit.trial(n))
                    yield found[fit.trial(n)]
        reached = rung
        if rung == longest:
            break
        scored = [fit for fit in alive if _figure_at(found, fit, rung) >= 0]
        rivals = sorted(
            (fit for fit in scored if fit != guest), key=lambda fit: -_figure_at(found, fit, rung)
        )
        half = (len(rivals) + 1) // 2
        going_on = rivals[:half]
        for fit in scored:
            if fit == guest or (fit in rivals[half:] and fit.trial(0) == of_incumbent):
                guest = fit
                going_on.append(fit)
        for fit in alive:
            if fit not in going_on:
                yield from _stopped(found, fit, rung)
        still_alive = [fit for fit in going_on if fit.longest.iterations > rung]
        for fit in alive:
            if fit not in still_alive:
                forget(fit)
        alive = still_alive


def _at(fit: Fit, rung: int) -> Hyperparameters:
    return fit.trial(min(rung, fit.longest.iterations))


def _figure_at(found: Mapping[Hyperparameters, TrialResult], fit: Fit, rung: int) -> float:
    figure = found[_at(fit, rung)].figure
    return -1.0 if figure is None else figure


def _stopped(found: Mapping[Hyperparameters, TrialResult], fit: Fit, rung: int) -> Iterator[TrialResult]:
    """What the longer trials of a fit that stopped at a rung are left with."""
    last = found[_at(fit, rung)]
    for n in fit.checkpoints:
        if n > rung:
            yield last._replace(hyperparameters=fit.trial(n), iterations_done=rung)
