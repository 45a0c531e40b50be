"""Every column name of every artefact, once."""

from collections.abc import Iterable

USER = "UserID"
ITEM = "ProductCode"
EVENT = "Event"
TIMESTAMP = "Timestamp"

USER_INDEX = "user_index"
ITEM_INDEX = "item_index"
STRENGTH = "strength"
WEIGHT = "weight"
# Of a pair: whether an event of it may be held out, when the last such event was, whether the pair hides
# its item from recommendation, and how often each event occurred.
TARGET = "target"
TARGET_TIMESTAMP = "target_timestamp"
SEEN = "seen"
_COUNT = "count_"

SPLIT = "split"

REJECTED_FILE = "file"
REJECTED_LINE = "line"
REJECTED_REASON = "reason"
REJECTED_CONTENT = "content"

FACTORS = "factors"
REGULARIZATION = "regularization"
ALPHA = "alpha"
ITERATIONS = "iterations"
BM25_K1 = "bm25_K1"
BM25_B = "bm25_B"
MAP_AT_10 = "MAP@10"
MAP_AT_10_STANDARD_ERROR = "MAP@10 standard error"
NDCG_AT_10 = "NDCG@10"
HIT_RATE_AT_10 = "HitRate@10"
RECALL_AT_10 = "Recall@10"
NOTEBOOK_MAP_AT_10 = "MAP@10 (notebook)"
FIT_SECONDS = "fit_seconds"
ITERATIONS_DONE = "iterations_done"
NU = "nu"
UNOBSERVED_WEIGHT = "unobserved_weight"
CONFIDENCE = "confidence"
STRENGTHS = "strengths"
STARTS = "starts"
WEIGHTING = "weighting"
FAILURE = "failure"
CHOSEN = "chosen"
DISTINGUISHABLE = "distinguishable"
DIFFERENCE_LOW = "difference low"
DIFFERENCE_HIGH = "difference high"
RANKS = "ranks"

# Of `evaluation`; at the k of its configuration.
MODEL = "model"
MAP = "MAP"
MAP_STANDARD_ERROR = "MAP standard error"
MAP_LOW = "MAP low"
MAP_HIGH = "MAP high"
TO_TUNED_LOW = "difference to tuned low"
TO_TUNED_HIGH = "difference to tuned high"
NDCG = "NDCG"
HIT_RATE = "HitRate"
RECALL = "Recall"
COVERAGE = "coverage"
NOVELTY = "novelty"
POPULARITY = "popularity"
USERS_REACHED = "users_reached"
SEGMENT_KIND = "kind"
SEGMENT = "segment"
HELD_OUT_PAIRS = "pairs"


def count_column(event: str) -> str:
    """The column that counts the events of that name."""
    return _COUNT + event


def counted_events(names: Iterable[str]) -> list[str]:
    """The events that have a column of counts among these."""
    return [name.removeprefix(_COUNT) for name in names if name.startswith(_COUNT)]


DESCRIPTIONS = {
    USER: "Raw id of the user, as it came in.",
    ITEM: "Raw id of the item, as it came in.",
    EVENT: "Name of the event.",
    TIMESTAMP: "When it happened, UTC; of a pair, its latest event.",
    USER_INDEX: "Row of the matrix.",
    ITEM_INDEX: "Column of the matrix.",
    STRENGTH: "Aggregated strength of the pair's events.",
    WEIGHT: "BM25 weight of the pair.",
    TARGET: "Whether the pair has an event that may be held out.",
    TARGET_TIMESTAMP: "When the latest event that may be held out happened, UTC.",
    SEEN: "Whether the pair hides its item from the recommendations to its user.",
    SPLIT: "Number of the split, from 0.",
    FACTORS: "Number of latent factors.",
    REGULARIZATION: "Penalty on the length of the factors.",
    ALPHA: "Confidence in a pair is alpha * weight.",
    ITERATIONS: "ALS iterations.",
    BM25_K1: "K1 of the weights, in strengths.",
    BM25_B: "B of the weights, the discount of popular items.",
    MAP_AT_10: "Mean average precision: 1/rank of the held-out item, 0 beyond rank 10.",
    MAP_AT_10_STANDARD_ERROR: "Standard error of MAP@10 over the held-out pairs.",
    NDCG_AT_10: "Mean of 1/log2(rank + 1), 0 beyond rank 10.",
    HIT_RATE_AT_10: "Share of users with a held-out item among the first 10.",
    RECALL_AT_10: "Mean share of a user's held-out items among the first 10.",
    NOTEBOOK_MAP_AT_10: "The notebook's own formula; can exceed 1.",
    ITERATIONS_DONE: "Iterations after which it was scored; fewer where halving stopped it.",
    NU: "Power of a row's frequency by which its penalty grows.",
    UNOBSERVED_WEIGHT: "Confidence of unobserved pairs.",
    CONFIDENCE: "Confidence of an observed pair of weight w.",
    STRENGTHS: "Name of the mapping from events to strengths.",
    WEIGHTING: "bm25, or none: the strengths themselves.",
    STARTS: "Random starts whose scores are added.",
    CHOSEN: "The trial that the model is made of.",
    DISTINGUISHABLE: "Whether MAP@10 is below the best by more than chance, on the same pairs.",
    DIFFERENCE_LOW: "MAP@10 minus the best's: lower end of the 95 % interval (paired bootstrap over users).",
    DIFFERENCE_HIGH: "MAP@10 minus the best's: upper end of that interval.",
    RANKS: "Rank of each held-out pair, in the order of leave_one_out_split; 11 is beyond the tenth.",
    MODEL: "What recommends.",
    MAP: "Mean average precision over users and seeds.",
    MAP_STANDARD_ERROR: "Of MAP, over users.",
    MAP_LOW: "Lower end of the 95 % interval of MAP (bootstrap over users).",
    MAP_HIGH: "Upper end of that interval.",
    TO_TUNED_LOW: "MAP minus the tuned model's: lower end of the 95 % interval (paired bootstrap).",
    TO_TUNED_HIGH: "MAP minus the tuned model's: upper end of that interval.",
    NDCG: "Normalized discounted cumulative gain, binary relevance.",
    HIT_RATE: "Share of users with a held-out item in the list.",
    RECALL: "Mean share of a user's held-out items in the list.",
    COVERAGE: "Share of all items that somebody is recommended.",
    NOVELTY: "Mean self-information of what is recommended, in bits.",
    POPULARITY: "Mean share of users who have the recommended item in training.",
    USERS_REACHED: "Share of users whose list is full.",
    SEGMENT_KIND: "Parted by user or by item.",
    SEGMENT: "Which part.",
    HELD_OUT_PAIRS: "Held-out pairs of the part, all seeds.",
    FAILURE: "Why the trial failed; empty for one that did not.",
    FIT_SECONDS: "Wall seconds of training up to this many iterations.",
}
