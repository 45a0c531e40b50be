"""How long recommending takes, and how near folding in comes to training.

    python -m benchmarks.recommending speed [--sizes 5000x64 92000x512] [--items 20000] [--people 10000]
    python -m benchmarks.recommending folding [FEEDBACK] [--people 1000]

`speed` times a model of random numbers: ten items for ten thousand people, in one table and one at a time, of
which 200 are timed. All items have factors of about the same length, so that no item can be passed over: the
worst case. CPU seconds on one core, for ten thousand people.

`folding` takes people out of a feed in 20 groups. Of each person one interaction is held out. A model that
was trained without a group is asked for lists by the events of its people, and compared with models that were
trained with everybody: by the share of the top ten that both have, and by how many lists have the interaction
that was held out (HitRate@10, beside its standard error).
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

# Before NumPy is imported: cores that wait for each other would count.
os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1"))

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.data import STRENGTHS, held_out_interactions
from recsys_pipeline.core.blending import Blend
from recsys_pipeline.core.hyperparameters import NO_WEIGHTING, ONE_PLUS_ALPHA_W, Hyperparameters
from recsys_pipeline.core.interactions import Interactions
from recsys_pipeline.core.model import Contents, Model
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.core.weighting import weigh_trained
from recsys_pipeline.engines.local.solvers import trainer_for
from recsys_pipeline.engines.local.training import train_to_the_end
from recsys_pipeline.recommender import Recommender

_INTERACTIONS_PER_USER = 20
_SIZES = ("5000x64", "92000x512", "92000x1536")
_TIMED = 200
_GROUPS = 20

NOTEBOOK = Hyperparameters(64, 0.01, 10.0, 10, 50.0, 0.6)
IALS = Hyperparameters(64, 0.01, 1.0, 16, 50.0, 0.6, nu=0.9, unobserved_weight=0.25, weighting=NO_WEIGHTING)
SETTINGS = {
    "the sample's winner": NOTEBOOK,
    "32 factors": NOTEBOOK.replace(factors=32),
    "regularization 1, alpha 1": NOTEBOOK.replace(regularization=1.0, alpha=1.0),
    "no BM25": NOTEBOOK.replace(weighting=NO_WEIGHTING),
    "`1 + alpha * w`": NOTEBOOK.replace(confidence=ONE_PLUS_ALPHA_W),
    "nu 0.9, unobserved weight 0.25, no BM25": IALS,
    "ensemble of 8": NOTEBOOK.replace(ensemble_size=8),
}


def random_model(n_users: int, n_items: int, n_factors: int) -> Model:
    """Random factors; everybody viewed 20 items."""
    rng = np.random.default_rng(0)
    factors = Factors(*(rng.random((n, n_factors), dtype=np.float32) - 0.5 for n in (n_users, n_items)))
    stride = n_items // _INTERACTIONS_PER_USER
    first = rng.integers(0, stride, n_users, dtype=np.int32)
    indices = (first[:, None] + np.arange(_INTERACTIONS_PER_USER, dtype=np.int32) * stride).ravel()
    pattern = Pattern(np.arange(n_users + 1) * _INTERACTIONS_PER_USER, indices, n_items)
    ones = np.ones(len(indices), dtype=np.int32)
    contents = Contents(pattern, ones.astype(np.float32), ones.astype(bool), {"view": ones})
    users, items = pa.array(np.arange(n_users)), pa.array(np.arange(n_items)).cast(pa.string())
    manifest = _manifest(NOTEBOOK.replace(factors=n_factors), {"view": 1.0})
    blend = Blend(als=1.0, events={"view": 1.0}, target=0.1, any=0.1)
    return Model(users, items, factors, contents, {**manifest, "blend": blend.as_dict()})


def _manifest(hyperparameters: Hyperparameters, strengths: dict[str, float]) -> dict[str, Any]:
    return {
        "hyperparameters": hyperparameters.as_dict(),
        "seed": 1,
        "strengths": strengths,
        "target_events": list(strengths),
        "seen_events": list(strengths),
        "blend": None,
    }


def events_of(contents: Contents, items: list[Any]) -> list[list[tuple[Any, str]]]:
    """What each of these users did."""
    people: list[list[tuple[Any, str]]] = [[] for _ in range(contents.pattern.n_users)]
    for event, counts in contents.counts.items():
        for place in np.flatnonzero(counts):
            item = items[contents.pattern.indices[place]]
            user = contents.pattern.user_of_interaction[place]
            people[user] += [(item, event)] * int(counts[place])
    return people


def seconds_of(ask: Callable[[Any], object], questions: list[Any]) -> float:
    """CPU seconds that the questions take but for the first, which prepares what all need."""
    ask(questions[0])
    begin = time.process_time()
    for question in questions[1:]:
        ask(question)
    return time.process_time() - begin


def speed(sizes: list[str], n_items: int, n_people: int) -> None:
    """Print a row per size."""
    columns = [
        f"{name}, {form}"
        for name in ("`recommend`", "with the blend", "`recommend_for`")
        for form in ("one at a time", "at once")
    ]
    print(f"| Users x factors | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}", flush=True)
    for size in sizes:
        n_users, n_factors = map(int, size.split("x"))
        found = random_model(n_users, n_items, n_factors)
        model = Recommender(found)
        asked = np.arange(n_people) % n_users
        ids, histories = asked.tolist(), events_of(found.contents.of(asked), model.items.tolist())
        cells = []
        for one, many, people in (
            (model.recommend, model.recommend_many, ids),
            (partial(model.recommend, blend=True), partial(model.recommend_many, blend=True), ids),
            (model.recommend_for, model.recommend_for_many, histories),
        ):
            cells.append(seconds_of(one, people[: _TIMED + 1]) / _TIMED * n_people)
            cells.append(seconds_of(many, [people[:1], people]))
        print(f"| {n_users:,} x {n_factors:,} | {' | '.join(f'{cell:.1f}' for cell in cells)} |", flush=True)


def trained(
    interactions: Interactions, kept: np.ndarray, hyperparameters: Hyperparameters, seed: int
) -> Recommender:
    """A model of the interactions that are kept; users and items, and so the random start, stay the same."""
    pattern = interactions.pattern.select(kept)
    weights = weigh_trained(pattern, interactions.strengths[kept], hyperparameters)
    trainer = trainer_for(Solver.batched)
    state = train_to_the_end(trainer, pattern.user_items(weights), hyperparameters, seed)
    counts = {event: count[kept] for event, count in interactions.counts.items()}
    contents = Contents(pattern, weights, np.ones(len(weights), dtype=bool), counts)
    manifest = _manifest(hyperparameters, {event: STRENGTHS[event] for event in counts})
    return Recommender(Model(interactions.users, interactions.items, state.factors, contents, manifest))


def shared(lists: pd.DataFrame, others: pd.DataFrame) -> float:
    """Share of the entries of these lists that the others have too."""
    return len(lists.merge(others, on=["user", "item"])) / len(others)


def folding(feedback: str, n_people: int) -> None:
    """Print a row per setting."""
    with tempfile.TemporaryDirectory() as warehouse:
        interactions, held_out = held_out_interactions(feedback, warehouse)
    rng = np.random.default_rng(0)
    held_out = np.sort(rng.permutation(held_out)[:n_people])
    pattern = interactions.pattern
    people, wanted = pattern.users_at(held_out), interactions.items.take(pa.array(pattern.indices[held_out]))
    users = interactions.users.take(pa.array(people)).to_pylist()
    answers = pd.DataFrame({"user": users, "item": wanted.to_pandas()})
    left = np.ones(pattern.n_interactions, dtype=bool)
    left[held_out] = False
    groups = np.arange(len(people)) % _GROUPS
    print(f"{pattern.shape} users x items, {pattern.n_interactions:,} interactions, {len(people):,} people\n")
    columns = [
        "Folded in / trained, same start",
        "another start",
        "Trained / trained, another start",
        "Folded into the model trained with them / that model",
        "HitRate@10 folded in",
        "trained",
    ]
    print(f"| Setting | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}", flush=True)
    for name, hyperparameters in SETTINGS.items():
        with_them = trained(interactions, left, hyperparameters, seed=1)
        otherwise = trained(interactions, left, hyperparameters, seed=2)
        own, another = (model.recommend_many(users) for model in (with_them, otherwise))

        def folded_into(model: Recommender, places: np.ndarray, known: Recommender = with_them) -> Any:
            contents = known._release.contents.of(people[places])
            table = model.recommend_for_many(events_of(contents, model.items.tolist()), fill_up=False)
            return table.assign(user=np.array(users)[places][table["user"]])

        tables = []
        for group in range(_GROUPS):
            of_group = np.isin(pattern.user_of_interaction, people[groups == group])
            without = trained(interactions, left & ~of_group, hyperparameters, seed=1)
            tables.append(folded_into(without, np.flatnonzero(groups == group)))
        folded = pd.concat(tables)
        into_the_same = folded_into(with_them, np.arange(len(people)))
        shares = [
            shared(folded, own),
            shared(folded, another),
            shared(own, another),
            shared(into_the_same, own),
        ]
        hits = [len(answers.merge(table, on=["user", "item"])) / len(answers) for table in (folded, own)]
        errors = [np.sqrt(rate * (1 - rate) / len(answers)) for rate in hits]
        cells = [f"{share:.2f}" for share in shares]
        cells += [f"{rate:.3f} ± {error:.3f}" for rate, error in zip(hits, errors, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    of_speed = commands.add_parser("speed")
    of_speed.add_argument("--sizes", nargs="+", default=list(_SIZES), help="users x factors")
    of_speed.add_argument("--items", type=int, default=20_000)
    of_speed.add_argument("--people", type=int, default=10_000)
    of_folding = commands.add_parser("folding")
    of_folding.add_argument("feedback", nargs="?", default="data/feedback_implicit.csv")
    of_folding.add_argument("--people", type=int, default=1_000)
    arguments = parser.parse_args()
    if arguments.command == "speed":
        speed(arguments.sizes, arguments.items, arguments.people)
    else:
        folding(arguments.feedback, arguments.people)


if __name__ == "__main__":
    main()
