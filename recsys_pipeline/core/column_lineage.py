"""Of which columns of other assets the columns of an asset are made."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from recsys_pipeline.core import columns

# An asset and one of its columns.
Source = tuple[str, str]

_EVENTS = ("raw_feedback", columns.EVENT)
_ANY_COUNT = columns.count_column("*")


def _same(asset: str, *names: str) -> dict[str, list[Source]]:
    return {name: [(asset, name)] for name in names}


_HELD_OUT: list[Source] = [
    ("leave_one_out_split", columns.USER_INDEX),
    ("leave_one_out_split", columns.ITEM_INDEX),
]
_TRAINING: list[Source] = [
    ("bm25_matrix", columns.USER_INDEX),
    ("bm25_matrix", columns.ITEM_INDEX),
    ("bm25_matrix", columns.STRENGTH),
]
_TUNED = {
    name: [*_TRAINING, *_HELD_OUT]
    for name in (
        columns.MAP_AT_10,
        columns.MAP_AT_10_STANDARD_ERROR,
        columns.NDCG_AT_10,
        columns.HIT_RATE_AT_10,
        columns.RECALL_AT_10,
        columns.NOTEBOOK_MAP_AT_10,
    )
}

# By asset and column, `*` for any text.
_SOURCES: Mapping[str, Mapping[str, list[Source]]] = {
    "feedback_strengths": {
        **_same("raw_feedback", columns.USER, columns.ITEM, columns.TIMESTAMP),
        columns.STRENGTH: [_EVENTS],
        columns.TARGET: [_EVENTS],
        columns.EXCLUDED: [_EVENTS],
        columns.TARGET_TIMESTAMP: [("raw_feedback", columns.TIMESTAMP), _EVENTS],
        _ANY_COUNT: [_EVENTS],
    },
    "bm25_matrix": {
        columns.USER_INDEX: [("feedback_strengths", columns.USER)],
        columns.ITEM_INDEX: [("feedback_strengths", columns.ITEM)],
        columns.WEIGHT: [("feedback_strengths", columns.STRENGTH)],
        **_same(
            "feedback_strengths",
            *(columns.STRENGTH, columns.TARGET, columns.EXCLUDED),
            *(columns.TIMESTAMP, columns.TARGET_TIMESTAMP, _ANY_COUNT),
        ),
    },
    "leave_one_out_split": {
        columns.USER: [("feedback_strengths", columns.USER)],
        columns.ITEM: [("feedback_strengths", columns.ITEM)],
        **_same("bm25_matrix", columns.USER_INDEX, columns.ITEM_INDEX),
    },
    "baselines": _TUNED,
    "grid_search_results": _TUNED,
    "evaluation": {
        name: [*_TRAINING, *_HELD_OUT]
        for name in (
            *(columns.MAP, columns.MAP_STANDARD_ERROR, columns.MAP_LOW, columns.MAP_HIGH),
            *(columns.NDCG, columns.HIT_RATE, columns.RECALL),
        )
    },
    "catalogue": {columns.ITEM: [("best_model", columns.ITEM)]},
    "recommendations": {
        columns.USER: [("best_model", columns.USER)],
        columns.ITEM: [("catalogue", columns.ITEM)],
        columns.SCORE: [("best_model", "factors")],
    },
    "similar_items": {
        columns.ITEM: [("best_model", columns.ITEM)],
        columns.SIMILAR: [("catalogue", columns.ITEM)],
        columns.SCORE: [("best_model", "factors")],
    },
    "popular_items": {
        columns.ITEM: [("catalogue", columns.ITEM)],
        columns.SCORE: [("best_model", columns.USER)],
    },
}


def sources_of(asset: str, names: Iterable[str]) -> dict[str, list[Source]]:
    """By column, from which columns of other assets it is made; none for a column that comes from nowhere.

    Args:
        asset: its name.
        names: its columns.
    """
    found = {}
    for name in names:
        for pattern, sources in _SOURCES.get(asset, {}).items():
            if fnmatchcase(name, pattern):
                found[name] = [(other, name if "*" in column else column) for other, column in sources]
                break
    return found
