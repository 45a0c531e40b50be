"""The published model: verified, by raw ids, and with nothing that does not belong in a list."""

import errno
import shutil
import sys
import uuid
from subprocess import PIPE, Popen

import numpy as np
import pandas as pd
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from upath import UPath

from recsys_pipeline import load_model, recommender
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.item_graph import GraphFilter
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline_tests.worlds import publish_model

USERS, ITEMS = [10, 20, 30], ["00a", "b", "c", "d"]
# User 10 touched "00a" alone, user 20 all but "d", user 30 everything.
TOUCHED = [[0], [0, 1, 2], [0, 1, 2, 3]]


def random_factors(seed):
    rng = np.random.default_rng(seed)
    return Factors(rng.random((3, 2), dtype=np.float32), rng.random((4, 2), dtype=np.float32))


def publish_to(warehouse, factors=None, **options):
    return publish_model(warehouse, TOUCHED, factors or random_factors(seed=0), USERS, ITEMS, **options)


@pytest.fixture
def store(tmp_path):
    publish_to(UPath(tmp_path))
    return tmp_path


@pytest.fixture
def model(store):
    return load_model(store)


def test_a_model_that_does_not_fit_says_so(store, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("recsys_pipeline.storage.models.ColumnArrays.mapped", no_room)
    with pytest.raises(InputError, match="does not fit into the memory that this process may use"):
        load_model(store)


def test_recommends_what_the_user_has_not_touched_best_first(model):
    users, items = random_factors(seed=0)
    scores = items @ users[0]
    table = model.recommend(10, n=2)

    expected = sorted([1, 2, 3], key=lambda item: -scores[item])[:2]
    assert list(table.columns) == ["item", "score", "already_liked", "source"]
    assert table["item"].tolist() == [ITEMS[item] for item in expected]
    assert table["score"].to_numpy() == pytest.approx(scores[expected])
    assert not table["already_liked"].any()


def test_or_everything_with_a_mark_on_what_is_liked(model):
    table = model.recommend(20, filter_already_liked_items=False)

    assert len(table) == 4
    assert set(table["item"][table["already_liked"]]) == {"00a", "b", "c"}


def test_among_equals_the_first_comes_first(tmp_path):
    """Three items with the same factors, better than "d", as search and evaluation order them."""
    users = np.ones((3, 2), np.float32)
    items = np.array([[2, 2], [2, 2], [2, 2], [1, 1]], np.float32)
    publish_to(UPath(tmp_path), Factors(users, items))
    model = load_model(tmp_path)

    assert model.recommend(30, n=4, filter_already_liked_items=False)["item"].tolist() == ITEMS
    assert model.recommend(10, n=1)["item"].tolist() == ["b"]


def test_nothing_is_recommended_to_a_user_without_training_interactions(tmp_path):
    factors = random_factors(seed=0)
    factors.users[0] = 0
    publish_to(UPath(tmp_path), factors, weights=[0, 1, 1, 1, 1, 1, 1, 1])
    model = load_model(tmp_path)

    assert model.user_items.nnz == 7
    assert model.recommend(10).empty
    assert not model.recommend(20).empty


def test_a_blend_adds_history_and_popularity_to_the_score(tmp_path):
    """ALS counts nothing here: what the user viewed comes first, then the popular."""
    blend = {"als": 0.0, "events": {"view": 10.0}, "target": 1.0, "any": 0.0}
    publish_to(UPath(tmp_path), blend=blend)
    table = load_model(tmp_path).recommend(20, n=4, filter_already_liked_items=False, blend=True)

    assert table["item"].tolist() == ITEMS
    assert table["score"].to_numpy() == pytest.approx(
        [10 + np.log(4), 10 + np.log(3), 10 + np.log(3), np.log(2)]
    )
    assert table["already_liked"].tolist() == [True, True, True, False]


def test_a_model_without_a_blend_says_how_to_get_one(model):
    with pytest.raises(ValueError, match="set `blend` of grid_search_results to true"):
        model.recommend(10, blend=True)


@pytest.mark.parametrize(("user", "left"), [(20, ["d"]), (30, [])])
def test_a_list_that_runs_short_is_short_and_not_filled_up(model, user, left):
    assert model.recommend(user, n=10)["item"].tolist() == left


def test_similar_items_are_others_by_cosine(model):
    items = random_factors(seed=0).items
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    table = model.similar_items("b", n=10)

    assert sorted(table["item"]) == ["00a", "c", "d"]
    assert table["score"].to_numpy() == pytest.approx(np.sort((unit @ unit[1])[[0, 2, 3]])[::-1], abs=1e-6)


GRAPH = GraphFilter(0.5, 0.5, strengths={"view": 1.0}).as_dict()


def test_or_by_the_item_graph_where_the_release_has_its_own_lists_from_there(tmp_path):
    """Of "d" only user 30 knows more, and all three other items share that user with it."""
    publish_to(UPath(tmp_path), similar_items_scorer="graph", graph=GRAPH)
    table = load_model(tmp_path).similar_items("d", n=10)

    # Of user 30 with four items the steps are 1 / sqrt(4 * users of the item).
    edges = {"00a": 0.25 / np.sqrt(3), "b": 0.25 / np.sqrt(2), "c": 0.25 / np.sqrt(2)}
    assert table["item"].tolist() == ["b", "c", "00a"]
    assert table["score"].to_numpy() == pytest.approx([edges[item] for item in table["item"]])


def test_a_release_that_says_so_without_a_graph_is_an_error(tmp_path):
    publish_to(UPath(tmp_path), similar_items_scorer="graph")

    with pytest.raises(InputError, match="and has none"):
        load_model(tmp_path).similar_items("d")


@pytest.mark.parametrize("field", ["scorer", "similar_items_scorer", "graph"])
def test_a_scorer_that_nobody_knows_is_refused(tmp_path, field):
    publish_to(UPath(tmp_path), **{field: "guessing"})

    with pytest.raises(InputError, match=f"has no valid field '{field}'"):
        load_model(tmp_path)


@pytest.mark.parametrize("unknown", [99, "10", None])
def test_an_unknown_user_is_a_key_error_that_says_so(model, unknown):
    with pytest.raises(KeyError, match=r"the model knows no user .*ids are integers"):
        model.recommend(unknown)


def test_an_unknown_item_too(model):
    with pytest.raises(KeyError, match="the model knows no item 'a'; its 4 item ids are strings"):
        model.similar_items("a")


def test_asking_for_nothing_is_an_error(model):
    with pytest.raises(ValueError, match="at least 1"):
        model.recommend(10, n=0)
    with pytest.raises(ValueError, match="at least 1"):
        model.similar_items("b", n=-1)


def test_the_implicit_model_itself_is_there(model):
    assert isinstance(model.model, AlternatingLeastSquares)
    assert model.model.item_factors.shape == (4, 2)
    assert model.model.alpha == 2.0


def test_which_can_be_used_as_any_other(model):
    """Also where `implicit` writes to its factors, or needs those that it could write to."""
    theirs, matrix = model.model, model.user_items
    scores = theirs.item_factors @ theirs.user_factors[0]

    assert theirs.recommend(0, matrix[0], N=1)[0] == 1 + np.argmax(scores[1:])
    assert theirs.similar_items(1, N=1)[0] == 1
    assert theirs.recalculate_user(0, matrix[0]).shape == (2,)
    assert theirs.recalculate_item(0, matrix.T.tocsr()[0]).shape == (2,)
    theirs.partial_fit_users([0], matrix[2])
    theirs.partial_fit_items([3], matrix.T.tocsr()[0])
    theirs.fit(matrix, show_progress=False)


def test_and_fitted_further_without_a_change_of_what_was_published(store, model):
    model.model.fit(model.user_items, show_progress=False)
    assert not np.array_equal(model.model.user_factors, random_factors(seed=0).users)

    assert np.array_equal(load_model(store).model.user_factors, random_factors(seed=0).users)


def test_what_was_trained_on_and_what_is_excluded_are_matrices(tmp_path):
    publish_to(UPath(tmp_path), weights=[0, 1, 2, 3, 4, 5, 6, 7])
    model = load_model(tmp_path)

    assert model.user_items.toarray().tolist() == [[0, 0, 0, 0], [1, 2, 3, 0], [4, 5, 6, 7]]
    assert model.excluded.toarray().tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert [model.was_trained_on(user) for user in USERS] == [False, True, True]


def test_lists_for_one_user_need_no_matrix_of_all(model):
    model.recommend(10)
    model.recommend(20, filter_already_liked_items=False)

    assert not {"user_items", "excluded"} & set(vars(model))


# --- The release store ---


def test_factor_tables_carry_the_raw_ids(store):
    (version,) = (path for path in (store / "releases").iterdir() if path.is_dir())
    items = pd.read_feather(version / "item_factors.arrow")

    assert items["ProductCode"].tolist() == ["00a", "b", "c", "d"]
    assert (np.stack(items["factors"]) == random_factors(seed=0).items).all()


def test_a_new_version_replaces_the_old_one_which_stays(store):
    before = load_model(store)
    publish_to(UPath(store), random_factors(seed=1))
    after = load_model(store)

    assert after.manifest["version"] > before.manifest["version"]
    assert not np.array_equal(after.model.user_factors, before.model.user_factors)
    old = load_model(store / "releases" / before.manifest["version"])
    assert np.array_equal(old.model.user_factors, before.model.user_factors)


def test_a_version_that_is_replaced_and_removed_while_it_is_read_is_followed_by_the_next(store, monkeypatch):
    read, before = recommender.read_release, load_model(store).manifest["version"]

    def overtaken(release):
        monkeypatch.setattr(recommender, "read_release", read)
        for seed in (1, 2):
            publish_to(UPath(store), random_factors(seed=seed), keep=1)
        return read(release)

    monkeypatch.setattr(recommender, "read_release", overtaken)
    assert load_model(store).manifest["version"] > before


def test_loads_from_warehouse_store_or_version_alike(store):
    version = load_model(store).manifest["version"]

    for path in (store, str(store), store / "releases", store / "releases" / version):
        assert load_model(path).manifest["version"] == version


def test_an_object_store_is_as_good_as_a_disk():
    root = UPath(f"memory://{uuid.uuid4().hex}")
    publish_to(root)

    assert len(load_model(root).recommend(10)) == 3


@pytest.mark.runs
def test_a_process_that_ends_right_after_loading_ends_well(store):
    script = f"from recsys_pipeline import load_model; load_model({str(store)!r}).recommend(10)"
    runs = [Popen([sys.executable, "-c", script], stderr=PIPE, text=True) for _ in range(2)]

    assert [(run.communicate()[1], run.returncode) for run in runs] == [("", 0)] * 2


@pytest.mark.parametrize("name", ["user_factors.arrow", "user_items.arrow"])
def test_an_altered_or_missing_file_is_refused(store, name):
    (file,) = store.glob(f"releases/*/{name}")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is not the file that was published"):
        load_model(store)

    file.unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        load_model(store)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param('{"format": 99}', "has format 99, this version reads 3, 4, 5", id="of another version"),
        pytest.param("{", "is not JSON", id="half"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(store, content, message):
    (version,) = store.glob("releases/2*")
    (version / "manifest.json").write_text(content)

    with pytest.raises(InputError, match=message):
        load_model(version)
    with pytest.raises(InputError, match="is not the manifest that was published"):
        load_model(store)


def test_no_model_yet_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="Materialize the asset release first"):
        load_model(tmp_path)


def test_a_pointer_to_a_version_that_is_gone_is_refused(store):
    version = load_model(store).manifest["version"]
    shutil.rmtree(store / "releases" / version)

    with pytest.raises(InputError, match="is missing"):
        load_model(store)
