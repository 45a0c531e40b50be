"""An evaluation, its models trained and measured by worker processes, side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_pipeline.core.beyond_accuracy import BeyondAccuracy, mean_beyond_accuracy
from recsys_pipeline.core.columns import ITEM_INDEX, SPLIT, USER_INDEX
from recsys_pipeline.core.distribution import Frequencies
from recsys_pipeline.core.evaluation import (
    ABLATIONS,
    IN_ORDER,
    LEAKING,
    NOT_MEASURED,
    NOTEBOOK,
    REPEAT_CONSUMPTION,
    TUNED,
    HeldOutRanks,
    head_of,
)
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS, NO_WEIGHTING, faded_name
from recsys_pipeline.core.interactions import Interactions
from recsys_pipeline.core.metrics import average_precision, group_by_user, hits_of_groups
from recsys_pipeline.core.ranking import SCORES_AT_ONCE
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.engines.engine import Evaluated, EvaluationPlan
from recsys_pipeline.engines.local.baselines import baseline_bytes
from recsys_pipeline.engines.local.contenders import GRAPH_STRENGTHS, TUNED_STRENGTHS, Contest
from recsys_pipeline.engines.local.memory import data_bytes, fit_bytes
from recsys_pipeline.engines.local.pool import Patience, WorkerPool
from recsys_pipeline.machine.cores import usable_cores
from recsys_pipeline.machine.memory import memory_limit, told

# A model that trains takes longest.
_TRAINED = (NOTEBOOK, LEAKING, TUNED)


class _Measured(NamedTuple):
    """What became of a model on a split; `lists` is None where it has none, `failure` says why it failed."""

    split: int
    model: str
    ranks: NDArray[np.int64]
    lists: BeyondAccuracy | None
    seconds: float = 0.0
    failure: str = ""


@dataclass(frozen=True)
class _MeasureJob:
    number: int
    split: int
    model: str
    seed: int
    contest: Contest
    folder: Path
    bytes: int

    @property
    def models(self) -> list[str]:
        return [TUNED, *self.contest.blends] if self.model == TUNED else [self.model]

    @property
    def size(self) -> float:
        return len(_TRAINED) - _TRAINED.index(self.model) if self.model in _TRAINED else 0.0

    def message(self) -> Mapping[str, Any]:
        return {
            "measure": self.model,
            "split": self.split,
            "seed": self.seed,
            "contest": self.contest.as_dict(),
            "ranks": [f"ranks{self.number}-{place}.npy" for place in range(len(self.models))],
        }

    def work_until_answer(self, n_answers: int) -> float:  # noqa: ARG002  # models differ too much
        return 0.0

    def result(self, n_answers: int, message: Mapping[str, Any]) -> _Measured:
        file = self.folder / self.message()["ranks"][n_answers]
        ranks = np.load(file, allow_pickle=False)
        file.unlink()
        lists = BeyondAccuracy(**message["lists"]) if message["lists"] else None
        return _Measured(self.split, self.models[n_answers], ranks, lists, message["seconds"])

    def failures(self, n_answers: int, reason: str) -> Iterator[_Measured]:
        for model in self.models[n_answers:]:
            yield _Measured(self.split, model, np.empty(0, np.int64), None, failure=reason)


class _About(NamedTuple):
    """What this process still needs to know of a split once the workers have it.

    Attributes:
        models: that say something on this data, of those that were asked for and have a job of their own.
        ablations: blends without some of their terms that were asked for.
        n_held_out: held-out interactions.
        users: (n_held_out,) of each.
        interactions_of_user: (n_held_out,) training interactions of the user.
        popularity_of_item: (n_held_out,) training interactions of the item.
        data_bytes: what the split takes, in this process while it is made and mapped by the workers.
        fit_bytes: what training ALS takes beside the data, estimated.
        baseline_bytes: by name, what a baseline takes.
    """

    models: list[str]
    ablations: list[str]
    n_held_out: int
    users: NDArray[np.int32]
    interactions_of_user: NDArray[np.int64]
    popularity_of_item: NDArray[np.int64]
    data_bytes: int
    fit_bytes: int
    baseline_bytes: Mapping[str, int]

    @classmethod
    def of(cls, split: Split, wanted: Sequence[str], contest: Contest) -> Self:
        return cls(
            [model for model in wanted if model not in ABLATIONS and _applies(model, split, contest)],
            [model for model in wanted if model in ABLATIONS],
            len(split.users),
            split.users,
            _interactions_of_user(split),
            _popularity_of_item(split),
            2 * data_bytes([split]),
            fit_bytes([split], contest.tuned) + (_blend_bytes(split) if contest.blend else 0),
            {name: baseline_bytes([baseline], split) for name, baseline in contest.baselines.items()},
        )

    def job_bytes(self, model: str) -> int:
        """What measuring a model takes beside the data."""
        return self.baseline_bytes.get(model, self.fit_bytes)


def evaluate(
    interactions: Interactions, held_out: pa.Table, plan: EvaluationPlan, report: Callable[[str], None]
) -> Evaluated:
    """See `recsys_pipeline.engines.engine.Engine`."""
    contest = Contest(
        tuned=plan.winner.hyperparameters.replace(strengths=TUNED_STRENGTHS),
        solver=Solver(plan.winner.solver),
        blend=plan.winner.blend,
        blend_without=plan.winner.blend_without,
        target_events=list(interactions.rules.target_events),
        baselines={
            model: baseline._replace(strengths=_own_name(baseline.strengths))
            for model, baseline in plan.baselines.items()
        },
        k=plan.k,
    )
    # A device does one fit at a time.
    workers = 1 if contest.solver is Solver.gpu else plan.workers or usable_cores()
    limit = memory_limit(plan.memory_limit)
    about: list[_About] = []

    def splits() -> Iterator[Split]:
        """One after the other: the workers map them, and this process has no further use for them."""
        for split, wanted in zip(_splits(interactions, held_out, plan), plan.models, strict=True):
            about.append(_About.of(split, wanted, contest))
            yield split

    measured: list[_Measured] = []
    patience = Patience(at_most=plan.most_silent_seconds)
    with WorkerPool(splits(), workers, patience, events=True) as pool:
        wanted = [(number, model) for number, each in enumerate(about) for model in each.models]
        jobs = [
            _MeasureJob(
                n,
                number,
                model,
                plan.seed + number,
                contest.with_ablations(about[number].ablations),
                pool.folder,
                about[number].job_bytes(model),
            )
            for n, (number, model) in enumerate(wanted)
        ]
        report(
            f"{len(jobs)} models to measure on {len(about)} seeds, {workers} workers; memory limit "
            f"{told(limit)}, a model up to {told(max(job.bytes for job in jobs))}"
        )
        room = limit - max(each.data_bytes for each in about)
        results: Iterator[_Measured] = pool.do(jobs, room)
        names = list(dict.fromkeys(name for job in jobs for name in job.models))
        n_all = sum(len(job.models) for job in jobs)
        for n, each in enumerate(results, 1):
            measured.append(each)
            outcome = _outcome(each, about[each.split], plan.k)
            report(
                f"model {names.index(each.model) + 1} of {len(names)}, seed {each.split + 1} of "
                f"{len(about)}: {each.model}: {outcome} ({n} of {n_all} done)"
            )
    head = head_of(Frequencies.of(np.bincount(interactions.pattern.indices)))
    return _put_together(held_out, about, measured, plan, head)


def _outcome(measured: _Measured, about: _About, k: int) -> str:
    if measured.failure:
        return f"failed: {measured.failure}"
    group, _ = group_by_user(np.zeros(about.n_held_out, np.int64), about.users)
    value = average_precision(hits_of_groups(measured.ranks, group, k), np.bincount(group)).mean()
    return f"MAP@{k} {value:.4f}, {measured.seconds:.1f} s"


def _splits(interactions: Interactions, held_out: pa.Table, plan: EvaluationPlan) -> Iterator[Split]:
    """The data of each seed."""
    blend = plan.winner.blend
    half_life = plan.winner.hyperparameters.half_life_days
    tuned = faded_name(TUNED_STRENGTHS, half_life)
    mappings = {
        DEFAULT_STRENGTHS: None,
        tuned: plan.winner.strengths,
        **({GRAPH_STRENGTHS: blend.filter.strengths} if blend and blend.filter else {}),
        **{
            name: plan.mappings[baseline.strengths]
            for baseline in plan.baselines.values()
            if baseline.strengths and (name := _own_name(baseline.strengths))
        },
    }
    later = plan.unknown_to_training
    return interactions.splits(
        held_out,
        mappings,
        weigh_all=False,
        half_lives={tuned: half_life} if half_life else {},
        unknown_to_training=None if later is None else interactions.positions_in(later),
    )


def _own_name(mapping: str | None) -> str | None:
    """Name of a mapping of the baselines, which is not one of the others here."""
    return mapping if mapping in (None, DEFAULT_STRENGTHS) else f"baselines: {mapping}"


def _applies(model: str, split: Split, contest: Contest) -> bool:
    """Whether a model says anything on this data."""
    if model == LEAKING:
        return contest.tuned.weighting != NO_WEIGHTING
    return split.may_repeat if model == REPEAT_CONSUMPTION else True


def _put_together(
    held_out: pa.Table,
    about: Sequence[_About],
    measured: Sequence[_Measured],
    plan: EvaluationPlan,
    head: int,
) -> Evaluated:
    """The ranks of all splits, in the order of the table of what they hold out.

    Raises:
        RuntimeError: the tuned model could not be measured.
    """
    failures: dict[str, str] = {}
    for each in measured:
        if each.failure:
            failures.setdefault(each.model, f"seed {plan.seed + each.split}: {each.failure}")
    if TUNED in failures:
        raise RuntimeError(f"{TUNED} could not be measured: {failures[TUNED]}")
    ranks: dict[str, NDArray[np.int64]] = {}
    lists: dict[str, BeyondAccuracy] = {}
    seconds: dict[str, float] = {}
    for model in IN_ORDER:
        found = {each.split: each for each in measured if each.model == model}
        if model in failures or not found:
            continue
        ranks[model] = np.concatenate(
            [
                found[number].ranks if number in found else np.full(each.n_held_out, NOT_MEASURED)
                for number, each in enumerate(about)
            ]
        )
        seconds[model] = float(np.mean([each.seconds for each in found.values()]))
        if of_seeds := [each.lists for each in found.values() if each.lists]:
            lists[model] = mean_beyond_accuracy(of_seeds)
    return Evaluated(
        HeldOutRanks(
            seed=held_out[SPLIT].to_numpy().astype(np.int64),
            users=held_out[USER_INDEX].to_numpy(),
            items=held_out[ITEM_INDEX].to_numpy(),
            interactions_of_user=np.concatenate([each.interactions_of_user for each in about]),
            popularity_of_item=np.concatenate([each.popularity_of_item for each in about]),
            ranks=ranks,
        ),
        lists,
        failures,
        seconds,
        head,
    )


def _blend_bytes(split: Split) -> int:
    """The item graph in both directions; of a block of users the scores by each term and their sum."""
    scores = min(len(split.users) * split.pattern.n_items, SCORES_AT_ONCE)
    return 16 * split.pattern.n_interactions + 4 * 4 * scores


def _interactions_of_user(split: Split) -> NDArray[np.int64]:
    """(n_held_out,) training interactions of the user."""
    training = split.training[DEFAULT_STRENGTHS]
    of_users = np.zeros(max(training.n_users, int(split.users.max()) + 1), dtype=np.int64)
    of_users[: training.n_users] = training.interactions_per_user
    return of_users[split.users]


def _popularity_of_item(split: Split) -> NDArray[np.int64]:
    """(n_held_out,) training interactions of the item."""
    training = split.training[DEFAULT_STRENGTHS]
    popularity = np.bincount(training.indices, minlength=training.n_items)
    return np.where(split.items < 0, 0, popularity[split.items])
