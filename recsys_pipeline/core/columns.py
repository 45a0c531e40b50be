"""Every column name of every artefact, once; those of hyperparameters are in `core.hyperparameters`.

Names that the notebook has are kept; all others are snake_case, which SQL and Spark take without quotes.
"""

import re
from collections.abc import Iterable

from recsys_pipeline.core.hyperparameters import DIMENSIONS

USER = "UserID"
ITEM = "ProductCode"
EVENT = "Event"
TIMESTAMP = "Timestamp"

USER_INDEX = "user_index"
ITEM_INDEX = "item_index"
STRENGTH = "strength"
WEIGHT = "weight"
TARGET = "target"
TARGET_TIMESTAMP = "target_timestamp"
EXCLUDED = "excluded"
_COUNT = "count_"
_FADED = "faded_"

SPLIT = "split"

REJECTED_FILE = "file"
REJECTED_LINE = "line"
REJECTED_REASON = "reason"
REJECTED_CONTENT = "content"

# Of a trial.
MAP_AT_10 = "MAP@10"
MAP_AT_10_STANDARD_ERROR = "map_at_10_standard_error"
NDCG_AT_10 = "ndcg_at_10"
HIT_RATE_AT_10 = "hit_rate_at_10"
RECALL_AT_10 = "recall_at_10"
NOTEBOOK_MAP_AT_10 = "notebook_map_at_10"
FIT_SECONDS = "fit_seconds"
ITERATIONS_DONE = "iterations_done"
FAILURE = "failure"
CHOSEN = "chosen"
INCUMBENT = "incumbent"
DISTINGUISHABLE = "distinguishable"
DIFFERENCE_LOW = "difference_low"
DIFFERENCE_HIGH = "difference_high"
RANKS = "ranks"

# Of a baseline.
FAMILY = "family"
NEIGHBOURS = "neighbours"
SHRINKAGE = "shrinkage"
USER_EXPONENT = "user_exponent"
ITEM_EXPONENT = "item_exponent"
PENALTY = "penalty"
SECONDS = "seconds"

# Of `evaluation`; at the k of its configuration.
MODEL = "model"
MAP = "map"
MAP_STANDARD_ERROR = "map_standard_error"
MAP_LOW = "map_low"
MAP_HIGH = "map_high"
TO_TUNED_LOW = "difference_to_tuned_low"
TO_TUNED_HIGH = "difference_to_tuned_high"
TO_BLEND_LOW = "difference_to_blend_low"
TO_BLEND_HIGH = "difference_to_blend_high"
NDCG = "ndcg"
HIT_RATE = "hit_rate"
RECALL = "recall"
COVERAGE = "coverage"
NOVELTY = "novelty"
POPULARITY = "popularity"
SEEDS = "seeds"
USERS_REACHED = "users_reached"
SEGMENT_KIND = "kind"
SEGMENT = "segment"
HELD_OUT = "held_out_interactions"

# Of what shops read.
RANK = "rank"
SCORE = "score"
SOURCE = "source"
SIMILAR = "SimilarProductCode"
RECOMMENDABLE = "recommendable"
REASON = "reason"
AVAILABLE = "available"
CATEGORY = "category"


def count_column(event: str) -> str:
    """The column that counts the events of that name."""
    return _COUNT + event


def faded_column(event: str, half_life_days: float) -> str:
    """The column of what is left of the events of that name when they fade by that half-life."""
    return f"{_FADED}{half_life_days:g}_{event}"


def fade_column(event: str) -> str:
    """The same in a model, which has one half-life."""
    return _FADED + event


def faded_events(names: Iterable[str]) -> list[str]:
    """The events that have such a column among those of a model."""
    return [name.removeprefix(_FADED) for name in names if name.startswith(_FADED)]


def counted_events(names: Iterable[str]) -> list[str]:
    """The events that have a column of counts among these."""
    return [name.removeprefix(_COUNT) for name in names if name.startswith(_COUNT)]


DESCRIPTIONS = {
    USER: "Raw id of the user, as it came in.",
    ITEM: "Raw id of the item, as it came in.",
    EVENT: "Name of the event.",
    TIMESTAMP: "When it happened, UTC; of an interaction, its latest event.",
    USER_INDEX: "Row of the matrix.",
    ITEM_INDEX: "Column of the matrix.",
    STRENGTH: "Aggregated strength of the interaction's events.",
    WEIGHT: "BM25 weight of the interaction.",
    TARGET: "Whether the interaction has an event that may be held out.",
    TARGET_TIMESTAMP: "When the latest event that may be held out happened, UTC.",
    EXCLUDED: "Whether the interaction excludes its item from the recommendations to its user.",
    SPLIT: "Number of the split, from 0.",
    **{dimension.name: dimension.meaning for dimension in DIMENSIONS},
    "weighting": "What an interaction weighs: of trials `bm25`, or `none`, its strength; of baselines "
    "`presence`, `strengths`, `tf_idf` or `bm25`.",
    MAP_AT_10: "Mean average precision: 1/rank of the held-out item, 0 beyond rank 10.",
    MAP_AT_10_STANDARD_ERROR: "Standard error of MAP@10 over users.",
    NDCG_AT_10: "Mean of 1/log2(rank + 1), 0 beyond rank 10.",
    HIT_RATE_AT_10: "Share of users with a held-out item among the first 10.",
    RECALL_AT_10: "Mean share of a user's held-out items among the first 10.",
    NOTEBOOK_MAP_AT_10: "The notebook's own formula; can exceed 1.",
    ITERATIONS_DONE: "Iterations after which it was scored; fewer where halving stopped it.",
    CHOSEN: "Whether the model is made of this trial; of baselines, whether it is the best of its family.",
    INCUMBENT: "Whether it is the configuration of the release before, as far as the search could try it.",
    DISTINGUISHABLE: "Whether it is significantly below the best, by what selects, on the same held-out "
    "interactions.",
    DIFFERENCE_LOW: "What selects, MAP@10 by default, minus the best's: lower end of the 95 % interval "
    "(paired bootstrap over users).",
    DIFFERENCE_HIGH: "Upper end of that interval.",
    RANKS: "Rank of each held-out interaction, in the order of leave_one_out_split; 11, or k + 1 where "
    "that is more, is beyond.",
    FAMILY: "Kind of baseline.",
    NEIGHBOURS: "Nearest items of an item that count, beside itself.",
    SHRINKAGE: "Added to the product of the norms in the cosine, in mean squared weights.",
    USER_EXPONENT: "Power of a user's degree by which the steps of the graph filter are divided.",
    ITEM_EXPONENT: "Power of an item's degree by which they are divided, at both ends.",
    PENALTY: "Of EASE on the squared weights, in mean numbers of users of an item.",
    SECONDS: "Wall seconds of training and lists; what several configurations share counts in each.",
    MODEL: "What recommends.",
    MAP: "Mean average precision over users and seeds.",
    MAP_STANDARD_ERROR: "Standard error of the mean average precision over users.",
    MAP_LOW: "Lower end of the 95 % interval of the mean average precision (bootstrap over users).",
    MAP_HIGH: "Upper end of that interval.",
    TO_TUNED_LOW: "Difference to the tuned model: lower end of the 95 % interval (paired bootstrap).",
    TO_TUNED_HIGH: "Difference to the tuned model: upper end of that interval.",
    TO_BLEND_LOW: "Difference to the blend: lower end of the 95 % interval (paired bootstrap).",
    TO_BLEND_HIGH: "Difference to the blend: upper end of that interval.",
    NDCG: "Normalized discounted cumulative gain, binary relevance.",
    HIT_RATE: "Share of users with a held-out item in the list.",
    RECALL: "Mean share of a user's held-out items in the list.",
    COVERAGE: "Share of all items that somebody is recommended.",
    NOVELTY: "Mean self-information of what is recommended, in bits.",
    SEEDS: "Repetitions that the model was measured on.",
    POPULARITY: "Mean share of users who have the recommended item in training.",
    USERS_REACHED: "Share of users whose list is full.",
    SEGMENT_KIND: "Segmented by user or by item.",
    SEGMENT: "Which segment.",
    HELD_OUT: "Held-out interactions of the segment, all seeds.",
    RANK: "Place in the list, from 1.",
    SCORE: "The higher the better; compares within one source only. Of a popular item the share of users who "
    "had a target event with it, of a similar item the cosine.",
    SOURCE: "Who recommends: als, blend, or popular for what fills a list up.",
    SIMILAR: "Raw id of the similar item.",
    RECOMMENDABLE: "Whether anybody may be recommended the item.",
    REASON: "Why it is not recommendable; empty for an item that is.",
    CATEGORY: "Category of the item in the catalogue; null for none.",
    FAILURE: "Why it has no scores: it failed, or was not measured; empty where it has.",
    FIT_SECONDS: "Wall seconds of training up to this many iterations.",
}

# Of what selects, where it is not one of those above.
_AT_K = {
    "map": "Mean average precision, 0 beyond rank {k}.",
    "ndcg": "Normalized discounted cumulative gain, binary relevance, 0 beyond rank {k}.",
    "hit_rate": "Share of users with a held-out item among the first {k}.",
    "recall": "Mean share of a user's held-out items among the first {k}.",
}


def description_of(name: str) -> str | None:
    """What a column holds; None for one that is not ours."""
    if faded := re.fullmatch(_FADED + r"([\d.e+-]+)_(.+)", name):
        return f"What is left of the {faded[2]} events after fading by a half-life of {faded[1]} days."
    at_k = re.fullmatch(r"(map|ndcg|hit_rate|recall)_at_(\d+)(_standard_error)?", name)
    if name in DESCRIPTIONS or not at_k:
        return DESCRIPTIONS.get(name)
    metric, k, of_error = at_k.groups()
    if of_error:
        return f"Standard error over users of {metric}_at_{k}."
    return _AT_K[metric].format(k=k)
