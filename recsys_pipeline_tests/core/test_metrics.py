"""Every metric against hand-worked cases, and against two other implementations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from implicit.cpu.als import AlternatingLeastSquares
from implicit.evaluation import ranking_metrics_at_k
from ranx import Qrels, Run, evaluate
from scipy.sparse import csr_matrix

from recsys_pipeline.core.metrics import (
    average_precision,
    group_by_user,
    hit_rate,
    hits_of_groups,
    hits_of_ranks,
    hits_of_recommended,
    ndcg,
    notebook_average_precision,
    recall,
    score,
)
from recsys_pipeline.core.ranking import Factors, held_out_ranks
from recsys_pipeline_tests.worlds import pattern_of


def hits(recommended, relevant, n_items=20):
    return hits_of_recommended(
        np.array([recommended]), pattern_of([sorted(relevant)], n_items), np.array([0])
    )


@pytest.mark.parametrize(
    ("recommended", "relevant", "expected"),
    [
        pytest.param([7, 3, 9], {7}, 1.0, id="held-out item first"),
        pytest.param([3, 7, 9], {7}, 1 / 2, id="held-out item second"),
        pytest.param([3, 9, 4], {7}, 0.0, id="held-out item missed"),
        pytest.param([7, 3, 9], {7, 9}, (1 + 2 / 3) / 2, id="two relevant, at ranks 1 and 3"),
        pytest.param([7, 3, 9], {7, 9, 11, 12, 13}, (1 + 2 / 3) / 3, id="more relevant than places"),
    ],
)
def test_average_precision(recommended, relevant, expected):
    assert average_precision(hits(recommended, relevant), np.array([len(relevant)])) == pytest.approx(
        expected
    )


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        pytest.param(1, 2.9289682539682538, id="the most it can be, not 1"),
        pytest.param(2, 1.9289682539682538, id="all but the first term"),
        pytest.param(10, 0.1, id="the last place"),
        pytest.param(11, 0.0, id="missed"),
    ],
)
def test_the_notebooks_formula_adds_precision_at_every_later_rank(rank, expected):
    assert notebook_average_precision(hits_of_ranks(np.array([rank])), np.array([1])) == pytest.approx(
        expected
    )


@pytest.mark.parametrize(
    ("recommended", "relevant", "expected"),
    [
        pytest.param([7, 3, 9], {7}, 1.0, id="first"),
        pytest.param([3, 9, 7], {7}, 1 / 2, id="third: 1 / log2(4)"),
        pytest.param([3, 9, 4], {7}, 0.0, id="missed"),
        pytest.param(
            [3, 7, 9], {7, 9}, (1 / np.log2(3) + 1 / 2) / (1 + 1 / np.log2(3)), id="two, at ranks 2 and 3"
        ),
    ],
)
def test_ndcg(recommended, relevant, expected):
    assert ndcg(hits(recommended, relevant), np.array([len(relevant)])) == pytest.approx(expected)


def test_hit_rate_counts_users_not_hits():
    several = hits_of_recommended(np.array([[1, 2], [1, 2]]), pattern_of([[1, 2], [3]], 5), np.arange(2))

    assert hit_rate(several, np.array([2, 2])).tolist() == [1.0, 0.0]


def test_score_gives_means_and_the_standard_error_of_map():
    precisions = np.array([1.0, 0.5, 0.0, 0.0])
    scores = score(hits_of_ranks(np.array([1, 2, 11, 11])), np.ones(4, int))

    assert scores.map == pytest.approx(precisions.mean())
    assert scores.standard_error == pytest.approx(precisions.std(ddof=1) / 2)
    assert scores.hit_rate == 0.5


@pytest.mark.parametrize("n_relevant", [np.array([], int), np.array([0])])
def test_score_refuses_to_average_over_nothing(n_relevant):
    with pytest.raises(ValueError, match="at least one user"):
        score(np.zeros((len(n_relevant), 10), bool), n_relevant)


@settings(max_examples=30)  # ranx takes its time
@given(
    st.lists(
        st.tuples(
            st.permutations(range(15)).map(lambda order: order[:10]), st.sets(st.integers(0, 14), min_size=1)
        ),
        min_size=1,
        max_size=6,
    )
)
@pytest.mark.runs
def test_agrees_with_ranx_on_any_lists(users):
    recommended = np.array([order for order, _ in users])
    relevant = pattern_of([sorted(items) for _, items in users], 15)
    hits_of_users = hits_of_recommended(recommended, relevant, np.arange(len(users)))
    scores = score(hits_of_users, relevant.interactions_per_user)

    qrels = Qrels({str(u): {str(i): 1 for i in items} for u, (_, items) in enumerate(users)})
    run = Run({str(u): {str(i): 10.0 - r for r, i in enumerate(order)} for u, (order, _) in enumerate(users)})
    theirs = evaluate(qrels, run, ["ndcg@10", "hit_rate@10"], threads=1)
    assert scores.ndcg == pytest.approx(theirs["ndcg@10"])
    assert scores.hit_rate == pytest.approx(theirs["hit_rate@10"])
    # ranx divides AP@k by the number of relevant items, we by min(k, that).
    shares = np.minimum(10, relevant.interactions_per_user) / relevant.interactions_per_user
    precisions = average_precision(hits_of_users, relevant.interactions_per_user)
    assert np.mean(precisions * shares) == pytest.approx(evaluate(qrels, run, "map@10", threads=1))


def test_agrees_with_implicits_own_evaluation(rng):
    n_users, n_items = 60, 90
    train = csr_matrix((rng.random((n_users, n_items)) < 0.1).astype(np.float32))
    held_out = np.array([rng.choice(np.flatnonzero(row == 0)) for row in train.toarray()], dtype=np.int32)
    test = csr_matrix((np.ones(n_users, np.float32), (np.arange(n_users), held_out)), shape=train.shape)
    model = AlternatingLeastSquares(factors=8, iterations=3, random_state=1, num_threads=1)
    model.fit(train, show_progress=False)

    training = pattern_of([row.indices.tolist() for row in train], n_items)
    users = np.arange(n_users, dtype=np.int32)
    ranks = held_out_ranks(Factors(model.user_factors, model.item_factors), training, users, held_out, k=10)
    ours = score(hits_of_ranks(ranks), np.ones(n_users, int))

    theirs = ranking_metrics_at_k(model, train, test, K=10, show_progress=False)
    assert ours.map == pytest.approx(theirs["map"])
    assert ours.ndcg == pytest.approx(theirs["ndcg"])
    assert ours.hit_rate == pytest.approx(theirs["precision"])


def test_recall_is_the_share_of_the_relevant_that_is_listed():
    found = hits([7, 3, 9], {7, 9, 11, 12})

    assert recall(found, np.array([4])).tolist() == [2 / 4]


def test_what_is_held_out_of_a_user_belongs_together_split_by_split():
    group, user = group_by_user(np.array([0, 0, 1, 0]), np.array([5, 3, 5, 5]))
    found = hits_of_groups(np.array([2, 4, 1, 1]), group, k=3)

    assert user.tolist() == [3, 5, 5]
    assert group.tolist() == [1, 0, 2, 1]
    assert found.tolist() == [[False] * 3, [True, True, False], [True, False, False]]


def test_a_user_of_several_splits_counts_once():
    # User 0 is found at rank 1 in one split and missed in the other; user 1 at rank 2 in its only one.
    scores = score(hits_of_ranks(np.array([1, 11, 2])), np.ones(3, int), np.array([0, 0, 1]))

    assert scores.map == pytest.approx((0.5 + 0.5) / 2)
    assert scores.hit_rate == scores.recall == pytest.approx((0.5 + 1) / 2)


@settings(max_examples=20)  # ranx takes its time
@given(
    ranks=st.lists(st.lists(st.integers(1, 15), min_size=1, max_size=8, unique=True), min_size=1, max_size=5)
)
@pytest.mark.runs
def test_several_relevant_items_as_ranx_has_them(ranks):
    relevant = {f"u{u}": {f"hit{u}-{r}": 1 for r in mine} for u, mine in enumerate(ranks)}
    listed = {
        f"u{u}": {f"hit{u}-{r}" if r in mine else f"other{r}": 1.0 / r for r in range(1, 16)}
        for u, mine in enumerate(ranks)
    }
    users = np.repeat(np.arange(len(ranks)), [len(mine) for mine in ranks])
    group, user = group_by_user(np.zeros(len(users), int), users)
    found = hits_of_groups(np.minimum(np.concatenate(ranks), 11), group)
    ours = score(found, np.bincount(group), user)

    theirs = evaluate(Qrels(relevant), Run(listed), ["ndcg@10", "recall@10", "hit_rate@10"], threads=1)
    assert [ours.ndcg, ours.recall, ours.hit_rate] == pytest.approx(list(theirs.values()))
