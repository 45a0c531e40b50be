"""The baselines, tuned on the pairs of the search by worker processes, side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_pipeline.core.baseline_tuning import FITTED, Baseline, BaselineResult, Family
from recsys_pipeline.core.ease import ease_bytes
from recsys_pipeline.core.evaluation import NOT_MEASURED
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.interactions import Interactions
from recsys_pipeline.core.metrics import hits_of_groups, score
from recsys_pipeline.core.search import groups_of
from recsys_pipeline.core.selecting import Selection
from recsys_pipeline.core.splitting import drawn
from recsys_pipeline.engines.engine import BaselinePlan
from recsys_pipeline.engines.local.baselines import baseline_bytes, sharing
from recsys_pipeline.engines.local.memory import data_bytes
from recsys_pipeline.engines.local.pool import Patience, WorkerPool
from recsys_pipeline.machine.cores import usable_cores
from recsys_pipeline.machine.memory import memory_limit, told

# Which take longest, the longest first.
_LONG = (Family.ease, Family.item_knn, Family.graph_filter)
# The users are drawn by a seed that no split is drawn by.
_SEED_OF_DRAW = -1


class _Measured(NamedTuple):
    """What became of a configuration on a split."""

    split: int
    baseline: Baseline
    ranks: NDArray[np.int64]
    seconds: float
    failure: str = ""


@dataclass(frozen=True)
class _BaselineJob:
    number: int
    split: int
    baselines: Sequence[Baseline]
    target_events: Sequence[str]
    folder: Path
    bytes: int
    reach: int

    @property
    def size(self) -> float:
        family = self.baselines[0].family
        return float(len(_LONG) - _LONG.index(family)) if family in _LONG else 0.0

    def message(self) -> Mapping[str, Any]:
        return {
            "baselines": [baseline.as_dict() for baseline in self.baselines],
            "split": self.split,
            "target_events": list(self.target_events),
            "k": self.reach,
            "ranks": [f"ranks{self.number}-{place}.npy" for place in range(len(self.baselines))],
        }

    def work_until_answer(self, n_answers: int) -> float:  # noqa: ARG002  # families differ too much
        return 0.0

    def result(self, n_answers: int, message: Mapping[str, Any]) -> _Measured:
        file = self.folder / self.message()["ranks"][n_answers]
        ranks = np.load(file, allow_pickle=False)
        file.unlink()
        return _Measured(self.split, self.baselines[n_answers], ranks, message["seconds"])

    def failures(self, n_answers: int, reason: str) -> Iterator[_Measured]:
        for baseline in self.baselines[n_answers:]:
            yield _Measured(self.split, baseline, np.empty(0, np.int64), float("nan"), reason)


def tune_baselines(
    interactions: Interactions,
    leave_one_out_split: pa.Table,
    plan: BaselinePlan,
    report: Callable[[str], None],
) -> list[BaselineResult]:
    """See `recsys_pipeline.engines.engine.Engine`."""
    splits = list(interactions.splits(leave_one_out_split, plan.mappings, weigh_all=False))
    ranked = _ranked(splits, plan.max_users)
    of_all = np.concatenate(ranked)
    if not of_all.all():
        report(
            f"the baselines are tuned on {of_all.sum():,} of {len(of_all):,} held-out interactions, those of "
            f"{plan.max_users:,} users (max_users)"
        )
    splits = [
        replace(split, users=split.users[chosen], items=split.items[chosen])
        for split, chosen in zip(splits, ranked, strict=True)
    ]
    refused = {family: why for family in Family if (why := _why_not(family, splits[0], plan))}
    wanted = [baseline for baseline in plan.baselines if baseline.family not in refused]
    groups = sharing(wanted)
    limit, data = memory_limit(plan.memory_limit), 2 * data_bytes(splits)
    target_events = list(interactions.rules.target_events)
    patience = Patience(at_most=plan.most_silent_seconds)
    workers = plan.workers or usable_cores()
    measured: dict[Baseline, list[_Measured]] = {baseline: [] for baseline in wanted}
    with WorkerPool(splits, workers, patience, events=True) as pool:
        of_splits = [(number, group) for group in groups for number in range(len(splits))]
        jobs = [
            _BaselineJob(
                n,
                number,
                group,
                target_events,
                pool.folder,
                baseline_bytes(group, splits[number]),
                plan.selection.reach,
            )
            for n, (number, group) in enumerate(of_splits)
        ]
        report(
            f"{len(wanted)} configurations of baselines, splits: {len(splits)}, workers: {workers}; memory "
            f"limit {told(limit)}, the largest takes {told(max((job.bytes for job in jobs), default=0))}"
        )
        results: Iterator[_Measured] = pool.do(jobs, limit - data)
        n_done, best = 0, 0.0
        for each in results:
            measured[each.baseline].append(each)
            if len(measured[each.baseline]) < len(splits):
                continue
            n_done += 1
            result = _result(each.baseline, measured[each.baseline], splits, ranked, plan.selection)
            best = max(best, result.figure or 0.0)
            figure = "failed" if result.figure is None else f"{plan.selection.name} {result.figure:.4f}"
            outcome = f"{figure}: {result.failure}" if result.failure else figure
            number = f"baseline {n_done} of {len(wanted)}"
            report(f"{number}: {_told(each.baseline)}: {outcome}; best so far {best:.4f}")
    # A family that is not measured has one row, which says why.
    families = dict.fromkeys(baseline.family for baseline in plan.baselines)
    left_out = [
        BaselineResult(Baseline(family), None, float("nan"), refused[family])
        for family in families
        if family in refused
    ]
    return [
        *(_result(baseline, each, splits, ranked, plan.selection) for baseline, each in measured.items()),
        *left_out,
    ]


def _told(baseline: Baseline) -> str:
    parameters = ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in baseline.told().items()
    )
    return f"{baseline.family.value}{f' ({parameters})' if parameters else ''}"


def _ranked(splits: Sequence[Split], max_users: int) -> list[NDArray[np.bool_]]:
    """Of each split, (n_held_out,) which held-out interactions are ranked: those of the same users in all."""
    users = np.concatenate([split.users for split in splits])
    chosen = drawn(users, max_users or len(users), _SEED_OF_DRAW)
    return np.split(chosen, np.cumsum([len(split.users) for split in splits])[:-1])


def _why_not(family: Family, split: Split, plan: BaselinePlan) -> str:
    """Why a family is not measured; empty where it is."""
    n_interactions, n_items = split.pattern.n_interactions, split.pattern.n_items
    if family in FITTED and n_interactions > plan.most_interactions:
        return f"{n_interactions:,} interactions are more than most_interactions {plan.most_interactions:,}"
    if family is Family.ease and n_items > plan.most_items_of_ease:
        return (
            f"{n_items:,} items are more than most_items_of_ease {plan.most_items_of_ease:,}: it inverts a "
            f"matrix of all items by all items, in {told(ease_bytes(n_items))}"
        )
    if family is Family.repeat_consumption and not split.may_repeat:
        return "nothing that a user has already may be recommended to them (seen_events of feedback)"
    return ""


def _result(
    baseline: Baseline,
    measured: Sequence[_Measured],
    splits: Sequence[Split],
    ranked: Sequence[NDArray[np.bool_]],
    selection: Selection,
) -> BaselineResult:
    """Of all splits together, as a trial of the search is scored."""
    if failures := [each.failure for each in measured if each.failure]:
        return BaselineResult(baseline, None, float("nan"), failures[0])
    in_order = sorted(measured, key=lambda each: each.split)
    ranks = np.concatenate([each.ranks for each in in_order]).astype(np.uint8)
    group, user = groups_of(splits)
    scores = score(hits_of_groups(ranks, group), np.bincount(group), user)
    selected = None if selection.is_default else selection.estimate(ranks, group, user)
    chosen = np.concatenate(ranked)
    of_all = np.full(len(chosen), NOT_MEASURED, dtype=np.uint8)
    of_all[chosen] = ranks
    seconds = sum(each.seconds for each in measured)
    return BaselineResult(baseline, scores, seconds, ranks=of_all, selected=selected)
