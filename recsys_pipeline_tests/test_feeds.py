"""The ready files of docs/feeds.md lead from a feed of their kind to a release."""

import re

import numpy as np
import pytest
import yaml

from recsys_pipeline.storage.releases import current_release
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.worlds import metadata_of, run_graph

PAGE = (PROJECT / "docs" / "feeds.md").read_text()
FILES = re.findall(r"\]\(\.\./examples/(\w+)\.yaml\)", PAGE)
N_USERS, N_ITEMS = 60, 60


def tastes(n_items_of_user):
    """The items of each user, all of one half of the shelf."""
    rng = np.random.default_rng(2)
    for user in range(N_USERS):
        yield user, rng.choice(np.arange(user % 2, N_ITEMS, 2), size=n_items_of_user, replace=False)


def purchases():
    return [f"{user},{item},buy" for user, items in tastes(8) for item in items]


def clicks_and_purchases():
    """What is bought has been viewed, and mostly been in the cart."""
    lines = []
    for user, items in tastes(12):
        lines += [f"{user},{item},view" for item in items]
        lines += [f"{user},{item},cart" for item in items[:7]]
        lines += [f"{user},{item},buy" for item in items[:5]]
    return lines


def places():
    """Half of the places are visited again."""
    return [f"{user},{item},checkin" for user, items in tastes(12) for item in [*items, *items[:6]]]


FEEDS = {
    "purchases": purchases,
    "clicks_and_purchases": clicks_and_purchases,
    "places": places,
}


def write_feed(kind, path):
    """A feed of that kind as CSV; the path."""
    path.write_text("\n".join(["UserID,ProductCode,Event", *FEEDS[kind]()]) + "\n")
    return path


def test_each_kind_of_feed_has_a_ready_file():
    assert sorted(set(FILES)) == sorted(FEEDS)


@pytest.mark.parametrize("kind", FEEDS)
@pytest.mark.runs
def test_a_ready_file_leads_to_a_release(kind, tmp_path, warehouse):
    config = yaml.safe_load((PROJECT / "examples" / f"{kind}.yaml").read_text())
    feed = write_feed(kind, tmp_path / "events.csv")
    ops = config["ops"]
    ops["evaluation"] = {"config": {"seeds": 1, **ops.get("evaluation", {}).get("config", {})}}

    result = run_graph(feed, warehouse, ops=ops, evaluate=True, **config["resources"]["feedback"]["config"])

    assert result.success
    assert current_release(warehouse.root)
    recommended = metadata_of(result, "recommendations")
    assert recommended["scorer"].startswith("scored by ")
    assert recommended["Users"] == N_USERS
