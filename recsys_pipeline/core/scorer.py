"""Who scores the lists that are released, where the evidence decides."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from recsys_pipeline.core import columns
from recsys_pipeline.core.evaluation import BLEND, TUNED
from recsys_pipeline.core.sources import ALS
from recsys_pipeline.core.sources import BLEND as BY_BLEND


class Comparison(NamedTuple):
    """The blend beside ALS, on the same held-out interactions.

    Attributes:
        is_better: whether the blend is better by more than chance.
        told: the figures.
    """

    is_better: bool
    told: str


class Choice(NamedTuple):
    """Who scores.

    Attributes:
        scorer: `als` or `blend`.
        told: who, and why, in one sentence.
    """

    scorer: str
    told: str


def blend_against_als(models: Iterable[Mapping[str, Any]], k: int) -> Comparison | None:
    """What the evaluation says of the two; None where it has not measured the blend.

    Args:
        models: rows of the evaluation's table.
        k: length of the lists.
    """
    rows = {row[columns.MODEL]: row for row in models}
    if BLEND not in rows:
        return None
    blend, als = rows[BLEND], rows[TUNED]
    low, high = blend[columns.TO_TUNED_LOW], blend[columns.TO_TUNED_HIGH]
    return Comparison(
        low > 0,
        f"MAP@{k} {blend[columns.MAP]:.4f} against {als[columns.MAP]:.4f}, 95 % interval of the difference "
        f"{low:+.4f} to {high:+.4f}",
    )


def by_evidence(models: Iterable[Mapping[str, Any]], k: int, *, has_blend: bool) -> Choice:
    """The blend where the evaluation says that it is better than ALS by more than chance; else ALS.

    Args:
        models: rows of the evaluation's table.
        k: length of the evaluated lists.
        has_blend: whether the model has one.
    """
    if not has_blend:
        return Choice(ALS, "scored by ALS: the search has fitted no blend")
    found = blend_against_als(models, k)
    if found is None:
        return Choice(ALS, "scored by ALS: the blend could not be measured")
    if found.is_better:
        return Choice(
            BY_BLEND, f"scored by the blend, which is better than ALS by more than chance: {found.told}"
        )
    return Choice(
        ALS, f"scored by ALS, for the blend is not better than ALS by more than chance: {found.told}"
    )
