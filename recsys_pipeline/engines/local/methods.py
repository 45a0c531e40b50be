"""Which fits a search does, and in which order: grid and random to their ends, or halving."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.search import TrialResult
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


def exhaustive(
    trials: Sequence[Hyperparameters], known: Mapping[Hyperparameters, TrialResult], run: Run
) -> Iterator[TrialResult]:
    """Every trial to its end; those that are known are not done again."""
    yield from (known[trial] for trial in trials if trial in known)
    yield from run([Task(fit) for fit in fits_for(trial for trial in trials if trial not in known)])


def rungs(longest: int, first: int) -> list[int]:
    """Iterations at which halving compares: `longest`, half of it, and so on down to `first`."""
    ladder = [longest]
    while ladder[0] / 2 >= first:
        ladder.insert(0, -(-ladder[0] // 2))
    return ladder


def halving(
    trials: Sequence[Hyperparameters],
    known: Mapping[Hyperparameters, TrialResult],
    run: Run,
    first: int,
    forget: Forget,
) -> Iterator[TrialResult]:
    """Successive halving: all fits advance to a rung, the better half by MAP@10 goes on to the next.

    A fit that stops keeps what it has reached: its longer trials get the score of the rung at which it
    stopped, with `iterations_done` below their `iterations`.

    Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization"
    (2016).
    """
    found = dict(known)
    answered: set[Hyperparameters] = set()
    alive = fits_for(trials)
    wanted = set(trials)
    longest = max(fit.longest.iterations for fit in alive)
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
        scored = [fit for fit in alive if _map_at(found, fit, rung) >= 0]
        scored.sort(key=lambda fit: -_map_at(found, fit, rung))
        going_on = scored[: (len(scored) + 1) // 2]
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


def _map_at(found: Mapping[Hyperparameters, TrialResult], fit: Fit, rung: int) -> float:
    scores = found[_at(fit, rung)].scores
    return scores.map if scores else -1.0


def _stopped(found: Mapping[Hyperparameters, TrialResult], fit: Fit, rung: int) -> Iterator[TrialResult]:
    """What the longer trials of a fit that stopped at a rung are left with."""
    last = found[_at(fit, rung)]
    for n in fit.checkpoints:
        if n > rung:
            yield last._replace(hyperparameters=fit.trial(n), iterations_done=rung)
