"""Every column name of every artefact, once."""

USER = "UserID"
ITEM = "ProductCode"
EVENT = "Event"
TIMESTAMP = "Timestamp"

USER_INDEX = "user_index"
ITEM_INDEX = "item_index"
STRENGTH = "strength"
WEIGHT = "weight"

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
NOTEBOOK_MAP_AT_10 = "MAP@10 (notebook)"
FIT_SECONDS = "fit_seconds"
ITERATIONS_DONE = "iterations_done"
NU = "nu"
UNOBSERVED_WEIGHT = "unobserved_weight"
CONFIDENCE = "confidence"
FAILURE = "failure"

DESCRIPTIONS = {
    USER: "Raw id of the user, as it came in.",
    ITEM: "Raw id of the item, as it came in.",
    EVENT: "Name of the event.",
    TIMESTAMP: "When it happened, UTC; of a pair, its latest event.",
    USER_INDEX: "Row of the matrix.",
    ITEM_INDEX: "Column of the matrix.",
    STRENGTH: "Aggregated strength of the pair's events.",
    WEIGHT: "BM25 weight of the pair.",
    FACTORS: "Number of latent factors.",
    REGULARIZATION: "Penalty on the length of the factors.",
    ALPHA: "Confidence in a pair is alpha * weight.",
    ITERATIONS: "ALS iterations.",
    BM25_K1: "K1 of the weights, in strengths.",
    BM25_B: "B of the weights, the discount of popular items.",
    MAP_AT_10: "Mean of 1/rank of the held-out item, 0 beyond rank 10.",
    MAP_AT_10_STANDARD_ERROR: "Standard error of MAP@10 over the held-out pairs.",
    NDCG_AT_10: "Mean of 1/log2(rank + 1), 0 beyond rank 10.",
    HIT_RATE_AT_10: "Share of held-out items among the first 10.",
    NOTEBOOK_MAP_AT_10: "The notebook's own formula; can exceed 1.",
    ITERATIONS_DONE: "Iterations after which it was scored; fewer where halving stopped it.",
    NU: "Power of a row's frequency by which its penalty grows.",
    UNOBSERVED_WEIGHT: "Confidence of unobserved pairs.",
    CONFIDENCE: "Confidence of an observed pair of weight w.",
    FAILURE: "Why the trial failed; empty for one that did not.",
    FIT_SECONDS: "Wall seconds of training up to this many iterations.",
}
