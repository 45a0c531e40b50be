"""Evaluation and the one baseline of the cluster: popularity."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as sf
from numpy.typing import NDArray

from recsys_pipeline.core.baseline_tuning import Baseline, BaselineResult, Family
from recsys_pipeline.core.beyond_accuracy import (
    BeyondAccuracy,
    beyond_accuracy_by_owners,
    mean_beyond_accuracy,
)
from recsys_pipeline.core.columns import EXCLUDED, ITEM_INDEX, SPLIT, USER_INDEX
from recsys_pipeline.core.evaluation import (
    ABLATIONS,
    IN_ORDER,
    LEAKING,
    NOT_MEASURED,
    NOTEBOOK,
    POPULARITY,
    REPEAT_CONSUMPTION,
    TUNED,
    HeldOutRanks,
    head_of,
)
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS, NO_WEIGHTING, Hyperparameters
from recsys_pipeline.core.interactions import Datasets, Fading, Tables, require_known_events
from recsys_pipeline.core.metrics import group_by_user, hits_of_groups, score
from recsys_pipeline.core.ranking import NOTHING
from recsys_pipeline.core.scale import Weighting
from recsys_pipeline.engines.engine import BaselinePlan, Evaluated, EvaluationPlan
from recsys_pipeline.engines.local.contenders import NOTEBOOK_HYPERPARAMETERS, TUNED_STRENGTHS
from recsys_pipeline.engines.local.training import fits_for
from recsys_pipeline.engines.spark.blocks import sides_of
from recsys_pipeline.engines.spark.frames import Scratch, collected, known_here
from recsys_pipeline.engines.spark.preparation import rows_per
from recsys_pipeline.engines.spark.ranking import held_frame, lists_of, ranks_of
from recsys_pipeline.engines.spark.splits import SplitFrames, of_split
from recsys_pipeline.engines.spark.training import Together, by_weighting, train
from recsys_pipeline.engines.spark.vectors import Same, Vectors

_NOT_HERE = "the Spark engine does not measure it"
# What is measured; all else needs the interactions of one machine.
_MEASURED = (TUNED, NOTEBOOK, LEAKING, POPULARITY)


class _Measured(NamedTuple):
    """What became of a model on a split; ranks are None where the fit diverged, lists where it has none."""

    ranks: NDArray[np.int64] | None
    lists: NDArray[np.int32] | None
    seconds: float


def baselines(
    scratch: Scratch,
    bm25_matrix: Tables | Datasets,
    leave_one_out_split: pa.Table,
    plan: BaselinePlan,
    report: Callable[[str], None],
) -> list[BaselineResult]:
    """See `recsys_pipeline.engines.engine.Engine`."""
    frames = SplitFrames(scratch, bm25_matrix)
    require_known_events(plan.mappings, frames.events)
    groups = group_by_user(leave_one_out_split[SPLIT].to_numpy(), leave_one_out_split[USER_INDEX].to_numpy())
    results, others = [], []
    for baseline in plan.baselines:
        if baseline.family is not Family.popularity:
            if baseline.family not in others:
                others.append(baseline.family)
            continue
        begin = time.perf_counter()
        ranks = np.concatenate(
            [
                _by_popularity(
                    scratch,
                    frames,
                    leave_one_out_split,
                    number,
                    plan.selection.reach,
                    None,
                    with_lists=False,
                )[0]
                for number in range(int(leave_one_out_split[SPLIT].to_numpy().max()) + 1)
            ]
        ).astype(np.uint8)
        scores = score(hits_of_groups(ranks, groups[0]), np.bincount(groups[0]), groups[1])
        selected = None if plan.selection.is_default else plan.selection.estimate(ranks, *groups)
        seconds = time.perf_counter() - begin
        results.append(BaselineResult(baseline, scores, seconds, ranks=ranks, selected=selected))
        report(f"{baseline.family.value}: MAP@10 {scores.map:.4f}, {seconds:.1f} s")
    return results + [BaselineResult(Baseline(family), None, float("nan"), _NOT_HERE) for family in others]


def evaluate(
    scratch: Scratch,
    bm25_matrix: Tables | Datasets,
    held_out: pa.Table,
    plan: EvaluationPlan,
    report: Callable[[str], None],
) -> Evaluated:
    """See `recsys_pipeline.engines.engine.Engine`."""
    frames = SplitFrames(scratch, bm25_matrix)
    ranks: dict[str, dict[int, NDArray[np.int64]]] = {}
    seconds: dict[str, list[float]] = {}
    failures: dict[str, str] = {}
    lists: dict[str, list[BeyondAccuracy]] = {}
    of_users, of_items = [], []
    for number, wanted in enumerate(plan.models):
        users, items = _training_counts(frames, held_out, number, plan)
        of_users.append(users)
        of_items.append(items)
        for name in wanted:
            if name in _MEASURED or name in ABLATIONS:
                continue
            if name != REPEAT_CONSUMPTION or _may_repeat(frames, held_out, number):
                failures.setdefault(name, _NOT_HERE)
        found = {
            name: measured
            for some in ((TUNED, NOTEBOOK), (LEAKING,))
            for name, measured in _trained(
                scratch, frames, held_out, number, plan, [each for each in wanted if each in some]
            ).items()
        }
        if POPULARITY in wanted:
            begin = time.perf_counter()
            ranked, listed = _by_popularity(
                scratch, frames, held_out, number, plan.k, plan.unknown_to_training, with_lists=True
            )
            found[POPULARITY] = _Measured(ranked, listed, time.perf_counter() - begin)
        for name, (own, listed, lasted) in found.items():
            if listed is not None:
                lists.setdefault(name, []).append(_beyond(frames, held_out, number, plan, listed))
            if own is None:
                failures[name] = f"seed {plan.seed + number}: the factors hold NaN or infinity"
                continue
            ranks.setdefault(name, {})[number] = own
            seconds.setdefault(name, []).append(lasted)
            report(f"seed {number + 1} of {len(plan.models)}: {name}: {lasted:.1f} s")
    if TUNED in failures:
        raise RuntimeError(f"{TUNED} could not be measured: {failures[TUNED]}")
    sizes = [len(each) for each in of_users]
    together = {
        name: np.concatenate(
            [ranks[name].get(number, np.full(size, NOT_MEASURED)) for number, size in enumerate(sizes)]
        )
        for name in IN_ORDER
        if name in ranks and name not in failures
    }
    return Evaluated(
        HeldOutRanks(
            seed=held_out[SPLIT].to_numpy().astype(np.int64),
            users=held_out[USER_INDEX].to_numpy(),
            items=held_out[ITEM_INDEX].to_numpy(),
            interactions_of_user=np.concatenate(of_users),
            popularity_of_item=np.concatenate(of_items),
            ranks=together,
        ),
        {name: mean_beyond_accuracy(each) for name, each in lists.items() if name in together},
        failures,
        {name: float(np.mean(each)) for name, each in seconds.items()},
        head_of(rows_per(frames.pairs, ITEM_INDEX)),
    )


def _trained(
    scratch: Scratch,
    frames: SplitFrames,
    held_out: pa.Table,
    number: int,
    plan: EvaluationPlan,
    names: Sequence[str],
) -> Mapping[str, _Measured]:
    """By name of the model, what became of it."""
    tuned = plan.winner.hyperparameters.replace(strengths=TUNED_STRENGTHS)
    trial_of: dict[str, Hyperparameters] = {TUNED: tuned, NOTEBOOK: NOTEBOOK_HYPERPARAMETERS, LEAKING: tuned}
    if tuned.weighting == NO_WEIGHTING:
        names = [name for name in names if name != LEAKING]
    if not names:
        return {}
    half_lives = [tuned.half_life_days] if tuned.half_life_days else []
    fading = Fading.of({DEFAULT_STRENGTHS: None, TUNED_STRENGTHS: plan.winner.strengths}, half_lives)
    trials = [trial_of[name] for name in names]
    weighed = frames.weighed(
        trials,
        fading,
        held_out,
        number,
        weigh_all=names == [LEAKING],
        unknown_to_training=plan.unknown_to_training,
    )
    held = of_split(held_out, number)
    numbered = held_frame(scratch, held, frames.exclusions(held, plan.unknown_to_training))
    by_user, by_item = sides_of(scratch, weighed)
    # Apart even where they are the same, as a search of one trial may have it.
    fits = [fit for trial in trials for fit in fits_for([trial])]
    together = Together.of(fits, by_weighting(weighed.weightings, Weighting.of), plan.seed + number)
    found: dict[str, _Measured] = {}
    for state in train(scratch, by_user, by_item, together):
        for place, name in enumerate(names):
            if trials[place].iterations == state.iterations:
                parts = [together.part(place)]
                (ranks,) = ranks_of(numbered, state.users, state.items, parts, plan.k)
                listed = None
                # The one that shows what the order of two steps changes is no model to recommend by.
                if name != LEAKING and place not in state.failed:
                    listed = lists_of(numbered, state.users, state.items, parts[0], plan.k)
                own = None if place in state.failed else ranks
                found[name] = _Measured(own, listed, state.seconds / len(names))
    for used in (weighed.pairs, by_user, by_item, state.users, state.items):
        used.remove()
    numbered.remove()
    return found


def _by_popularity(
    scratch: Scratch,
    frames: SplitFrames,
    held_out: pa.Table,
    number: int,
    k: int,
    unknown_to_training: pa.Table | None,
    *,
    with_lists: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int32] | None]:
    """As a model of one factor: 1 for every user, of an item how many users have a target event with it.

    Returns:
        Ranks, and lists where they are asked for.
    """
    held = of_split(held_out, number)
    numbered = held_frame(scratch, held, frames.exclusions(held, unknown_to_training))
    had = frames.target_pairs(held_out, number, unknown_to_training)
    counted = had.groupBy(sf.col(ITEM_INDEX).alias("index")).agg(sf.count(sf.lit(1)).alias("n"))
    users = Same(frames.n_users)
    items = Vectors.of_columns(scratch, counted, ["n"], "index", frames.n_items, "float32")
    (ranks,) = ranks_of(numbered, users, items, [slice(0, 1)], k)
    lists = lists_of(numbered, users, items, slice(0, 1), k) if with_lists else None
    items.remove()
    numbered.remove()
    return ranks, lists


def _beyond(
    frames: SplitFrames, held_out: pa.Table, number: int, plan: EvaluationPlan, lists: NDArray[np.int32]
) -> BeyondAccuracy:
    """What the lists of the users are like, of each user one."""
    _, first = np.unique(of_split(held_out, number)[USER_INDEX].to_numpy(), return_index=True)
    own = lists[first]
    recommended = own[own != NOTHING]
    _, left = frames.training_pairs(held_out, number, plan.unknown_to_training)
    asked = pa.table({ITEM_INDEX: np.unique(recommended).astype(np.int32)})
    counted = collected(left.join(known_here(frames.scratch, asked), ITEM_INDEX).groupBy(ITEM_INDEX).count())
    by_index = dict(zip(counted[ITEM_INDEX].to_pylist(), counted["count"].to_pylist(), strict=True))
    owners = np.array([by_index.get(each, 0) for each in recommended.tolist()], dtype=np.int64)
    return beyond_accuracy_by_owners(own, owners, frames.n_users, frames.n_items)


def _training_counts(
    frames: SplitFrames, held_out: pa.Table, number: int, plan: EvaluationPlan
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n_held_out,) training interactions of the user and of the item of each held-out interaction."""
    _, left = frames.training_pairs(held_out, number, plan.unknown_to_training)
    held = of_split(held_out, number)
    found = []
    for name in (USER_INDEX, ITEM_INDEX):
        asked = known_here(frames.scratch, held.select([name]).group_by(name).aggregate([]))
        counted = collected(left.join(asked, name).groupBy(name).count())
        by_index = dict(zip(counted[name].to_pylist(), counted["count"].to_pylist(), strict=True))
        found.append(np.array([by_index.get(each, 0) for each in held[name].to_pylist()], dtype=np.int64))
    return found[0], found[1]


def _may_repeat(frames: SplitFrames, held_out: pa.Table, number: int) -> bool:
    """Whether something that a user has in training may be recommended to them."""
    _, left = frames.training_pairs(held_out, number)
    return bool(left.filter(~sf.col(EXCLUDED)).limit(1).count())
