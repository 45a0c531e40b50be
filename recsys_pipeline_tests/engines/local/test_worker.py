"""What the workers map is what was shared, array by array."""

import weakref

import numpy as np
import pytest

from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.splitting import leave_one_out
from recsys_pipeline.engines.local.worker import mapped, share
from recsys_pipeline_tests.core.small_feeds import interactions_of, split_of

EVENTS = {"view": 1.0, "click": 2.0, "compare": 3.0, "cart": 4.0, "wish": 5.0, "buy": 6.0}
MAPPINGS = {DEFAULT_STRENGTHS: None, "equal": dict.fromkeys(EVENTS, 1.0), "buy_only": {"buy": 1.0}}


def interactions(seed=0):
    """Of 20 users and 30 items, each event with others of them."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 20, (len(EVENTS), 40)), rng.integers(0, 30, (len(EVENTS), 40))
    return interactions_of(
        [
            (int(user), int(item), event)
            for number, event in enumerate(EVENTS)
            for user, item in zip(users[number], items[number], strict=True)
        ],
        EVENTS,
    )


def splits(of, n_splits=3):
    """One after the other; nobody but the reader keeps one."""
    held_out = [leave_one_out(of.pattern, seed=seed, min_interactions=3) for seed in range(n_splits)]
    return of.splits(split_of(of, *held_out), MAPPINGS, weigh_all=True)


def arrays(split):
    """By name."""
    patterns = {"pattern": split.pattern, "exclusions": split.exclusions, **split.training}
    return {
        "users": split.users,
        "items": split.items,
        **{f"strengths of {name}": each for name, each in split.strengths.items()},
        **{f"training strengths of {name}": each for name, each in split.training_strengths.items()},
        **{f"{name} indptr": pattern.indptr for name, pattern in patterns.items()},
        **{f"{name} indices": pattern.indices for name, pattern in patterns.items()},
        **{f"event {name}": each for name, each in split.events.items()},
    }


def differences(made, found):
    made, found = arrays(made), arrays(found)
    assert made.keys() == found.keys()
    return [
        name
        for name in made
        if made[name].dtype != found[name].dtype or not np.array_equal(made[name], found[name])
    ]


def test_a_stream_of_splits_arrives_intact_though_one_is_gone_when_the_next_one_comes(tmp_path):
    """A new array may get the id, and the place in memory, of one that is gone."""
    of = interactions()
    share(splits(of), tmp_path, events=True)
    found = mapped(tmp_path)

    assert len(found) == 3
    for made, each in zip(splits(of), found, strict=True):
        assert not differences(made, each)
    left = [split.training_strengths["equal"].tolist() for split in found]
    assert left[0] != left[1] != left[2]


def test_no_more_than_one_split_is_kept_while_the_next_one_is_made(tmp_path):
    made, alive = [], []

    def stream():
        for split in splits(interactions(), 5):
            made.append(weakref.ref(split))
            alive.append(sum(reference() is not None for reference in made))
            yield split

    share(stream(), tmp_path, events=True)
    assert max(alive) == 2
    assert not any(reference() for reference in made)


def test_also_where_the_splits_have_nothing_in_common(tmp_path):
    share((split for seed in range(6) for split in splits(interactions(seed), 1)), tmp_path, events=True)

    for seed, found in enumerate(mapped(tmp_path)):
        (made,) = splits(interactions(seed), 1)
        assert not differences(made, found)


def test_what_splits_share_is_written_once(tmp_path):
    for n_splits in (1, 2):
        (tmp_path / str(n_splits)).mkdir()
        share(splits(interactions(), n_splits), tmp_path / str(n_splits))
    one, two = (len(list((tmp_path / name).glob("*.npy"))) for name in ("1", "2"))

    # Of the second one: users, items, what each mapping leaves of the strengths and, twice, of the pattern
    # (`default` and `equal` leave the same interactions), and the exclusions.
    assert two - one == 2 + len(MAPPINGS) + 2 * 2 + 2


@pytest.mark.parametrize("events", [True, False])
def test_the_events_travel_only_where_somebody_asks(tmp_path, events):
    share(splits(interactions(), 1), tmp_path, events=events)

    assert set(mapped(tmp_path)[0].events) == (set(EVENTS) if events else set())


def test_a_worker_may_write_to_what_it_maps_and_nobody_else_sees_it(tmp_path):
    share(splits(interactions(), 1), tmp_path)
    (first,), (second,) = mapped(tmp_path), mapped(tmp_path)
    before = second.pattern.indices.tolist()
    first.pattern.indices[:] = 0

    assert second.pattern.indices.tolist() == before
