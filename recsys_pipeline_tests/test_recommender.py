"""The published model: verified, by raw ids, and with nothing that does not belong in a list."""

import json
import pickle
import shutil
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from upath import UPath

from recsys_pipeline import load_model
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.trials import Trial
from recsys_pipeline.engines.local import trained_model
from recsys_pipeline.storage.releases import Release, publish
from recsys_pipeline_tests.worlds import pattern_of

TRIAL = Trial(factors=2, regularization=0.1, alpha=1.0, iterations=1, bm25_k1=100.0, bm25_b=0.8)


def release(seed=0):
    """User 10 touched "00a" alone, user 20 all but "d", user 30 everything."""
    rng = np.random.default_rng(seed)
    pattern = pattern_of([[0], [0, 1, 2], [0, 1, 2, 3]], 4)
    return Release(
        users=pa.array([10, 20, 30]),
        items=pa.array(["00a", "b", "c", "d"]),
        user_factors=rng.random((3, 2), dtype=np.float32),
        item_factors=rng.random((4, 2), dtype=np.float32),
        pattern=pattern,
        weights=np.ones(pattern.n_pairs, np.float32),
        seen=np.ones(pattern.n_pairs, bool),
        counts={"view": np.ones(pattern.n_pairs, np.int32)},
        manifest={"hyperparameters": TRIAL._asdict(), "seed": 1, "metrics": {}, "counts": {}, "inputs": {}},
    )


def publish_to(warehouse, made):
    return publish(warehouse, made, trained_model(TRIAL, 1, made.user_factors, made.item_factors))


@pytest.fixture
def store(tmp_path):
    publish_to(UPath(tmp_path), release())
    return tmp_path


@pytest.fixture
def model(store):
    return load_model(store)


def test_recommends_what_the_user_has_not_touched_best_first(model):
    made = release()
    scores = made.item_factors @ made.user_factors[0]
    table = model.recommend(10, n=2)

    expected = sorted([1, 2, 3], key=lambda item: -scores[item])[:2]
    assert list(table.columns) == ["item", "score", "already_liked"]
    assert table["item"].tolist() == [made.items[item].as_py() for item in expected]
    assert table["score"].to_numpy() == pytest.approx(scores[expected])
    assert not table["already_liked"].any()


def test_or_everything_with_a_mark_on_what_is_liked(model):
    table = model.recommend(20, filter_already_liked_items=False)

    assert len(table) == 4
    assert set(table["item"][table["already_liked"]]) == {"00a", "b", "c"}


@pytest.mark.parametrize(("user", "left"), [(20, ["d"]), (30, [])])
def test_a_list_that_runs_short_is_short_and_not_filled_up(model, user, left):
    assert model.recommend(user, n=10)["item"].tolist() == left


def test_similar_items_are_others_by_cosine(model):
    made = release()
    unit = made.item_factors / np.linalg.norm(made.item_factors, axis=1, keepdims=True)
    table = model.similar_items("b", n=10)

    assert sorted(table["item"]) == ["00a", "c", "d"]
    assert table["score"].to_numpy() == pytest.approx(np.sort((unit @ unit[1])[[0, 2, 3]])[::-1], abs=1e-6)


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
    assert model.model.alpha == TRIAL.alpha


# --- The release store ---


def test_factor_tables_carry_the_raw_ids(store):
    (version,) = (path for path in (store / "best_model").iterdir() if path.is_dir())
    items = pq.read_table(version / "item_factors.parquet")

    assert items["ProductCode"].to_pylist() == ["00a", "b", "c", "d"]
    assert items.schema.field("factors").type == pa.list_(pa.float32(), 2)


def test_the_notebooks_pickle_is_an_implicit_model(store):
    (file,) = store.glob("best_model/*/implicit_recommender_model.pkl")
    made = release()
    # What the notebook's consumers do; the project itself never unpickles.
    theirs = pickle.loads(file.read_bytes())

    assert (theirs.user_factors == made.user_factors).all()


def test_a_new_version_replaces_the_old_one_which_stays(store):
    before = load_model(store)
    publish_to(UPath(store), release(seed=1))
    after = load_model(store)

    assert after.manifest["version"] > before.manifest["version"]
    assert not np.array_equal(after.model.user_factors, before.model.user_factors)
    old = load_model(store / "best_model" / before.manifest["version"])
    assert np.array_equal(old.model.user_factors, before.model.user_factors)


def test_loads_from_warehouse_store_or_version_alike(store):
    version = load_model(store).manifest["version"]

    for path in (store, str(store), store / "best_model", store / "best_model" / version):
        assert load_model(path).manifest["version"] == version


def test_an_object_store_is_as_good_as_a_disk():
    root = UPath(f"memory://{uuid.uuid4().hex}")
    publish_to(root, release())

    assert len(load_model(root).recommend(10)) == 3


@pytest.mark.parametrize(
    "name", ["user_factors.parquet", "user_items.parquet", "implicit_recommender_model.pkl"]
)
def test_an_altered_or_missing_file_is_refused(store, name):
    (file,) = store.glob(f"best_model/*/{name}")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is not the file that was published"):
        load_model(store)

    file.unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        load_model(store)


def test_a_manifest_of_another_format_or_no_json_is_refused(store):
    (file,) = store.glob("best_model/*/manifest.json")
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(InputError, match="has format 99"):
        load_model(store)

    file.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        load_model(store)


def test_no_model_yet_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="Materialize the asset best_model first"):
        load_model(tmp_path)


def test_a_pointer_to_a_version_that_is_gone_is_refused(store):
    version = load_model(store).manifest["version"]
    shutil.rmtree(store / "best_model" / version)

    with pytest.raises(InputError, match="is missing"):
        load_model(store)
