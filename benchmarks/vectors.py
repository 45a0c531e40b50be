"""Recall of an approximate vector index on the factors of a release, against exact search, and its speed.

    python -m benchmarks.vectors [--warehouse data/warehouse] [--users 1000] [--expansions 64 256 1024]

Measures the ten items of the largest inner product for each of some users, nothing left out, by usearch.
`inner product` indexes the vectors of the items as they are, `cosine` with one more coordinate that makes
them all equally long, as docs/releases.md shows.
"""

import argparse
import time

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from usearch.index import Index

from recsys_pipeline import settings
from recsys_pipeline.storage.releases import current_release

_K = 10
_Vectors = NDArray[np.float32]


def _equally_long(items: _Vectors, users: _Vectors) -> tuple[_Vectors, _Vectors]:
    lengths = np.linalg.norm(items, axis=1)
    extra = np.sqrt(np.maximum(lengths.max() ** 2 - lengths**2, 0))
    return np.column_stack([items, extra]), np.column_stack([users, np.zeros(len(users), np.float32)])


def _row(metric: str, items: _Vectors, users: _Vectors, exact: NDArray[np.int64], expansion: int) -> str:
    begin = time.perf_counter()
    index = Index(ndim=items.shape[1], metric=metric, dtype="f32", expansion_search=expansion)
    index.add(np.arange(len(items)), items)
    built = time.perf_counter()
    found = np.asarray(index.search(users, _K).keys)
    each = 1e3 * (time.perf_counter() - built) / len(users)
    recall = np.mean([np.isin(some, best).mean() for some, best in zip(found, exact, strict=True)])
    return f"{expansion} | {recall:.3f} | {built - begin:.1f} | {each:.2f} |"


def main() -> None:
    """Measure, and print a row per setting of the index."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--warehouse", default=settings.WAREHOUSE)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--expansions", nargs="+", type=int, default=[64, 256, 1024])
    arguments = parser.parse_args()
    release = current_release(arguments.warehouse).path
    users, items = (
        np.stack(pd.read_feather(f"{release}/{name}_factors.arrow")["factors"]) for name in ("user", "item")
    )
    users = users[np.unique(np.linspace(0, len(users) - 1, arguments.users).astype(int))]
    exact = np.argpartition(-(users @ items.T), _K, axis=1)[:, :_K]
    print(f"{len(users):,} users, {len(items):,} items, {items.shape[1]} factors\n")
    print("| index by | expansion_search | recall@10 | build s | search ms a user |\n|---|---|---|---|---|")
    for expansion in arguments.expansions:
        print(f"| inner product | {_row('ip', items, users, exact, expansion)}", flush=True)
    for expansion in arguments.expansions:
        longer = _equally_long(items, users)
        print(f"| cosine | {_row('cos', *longer, exact, expansion)}", flush=True)


if __name__ == "__main__":
    main()
