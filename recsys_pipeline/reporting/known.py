"""What people read of the trials that the journal knows."""

from collections.abc import Iterable, Sequence

from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.search import KnownTrial
from recsys_pipeline.reporting.model import told_hyperparameters, told_values


def ambiguous_mappings(known: Iterable[KnownTrial]) -> set[str]:
    """Names of mappings that stand for other strengths in one search than in another."""
    meanings: dict[str, set[tuple[tuple[str, float], ...]]] = {}
    for each in known:
        meanings.setdefault(each.hyperparameters.strengths, set()).add(tuple(sorted(each.strengths.items())))
    return {name for name, found in meanings.items() if len(found) > 1}


def told_known(known: Sequence[KnownTrial]) -> list[str]:
    """The hyperparameters of each on one line; strengths of the events where a name does not tell them."""
    ambiguous = ambiguous_mappings(known) - {DEFAULT_STRENGTHS}
    return [
        told_hyperparameters(each.hyperparameters)
        + (_told_mapping(each) if each.hyperparameters.strengths in ambiguous else "")
        for each in known
    ]


def _told_mapping(known: KnownTrial) -> str:
    return f" ({known.hyperparameters.strengths}: {told_values(dict(sorted(known.strengths.items())))})"
