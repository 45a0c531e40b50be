"""The release store: one folder a version of the model, and a pointer to the current one."""

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from upath import UPath

from recsys_pipeline.core.columns import (
    ITEM,
    ITEM_INDEX,
    SEEN,
    USER,
    USER_INDEX,
    WEIGHT,
    count_column,
    counted_events,
)
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.storage.atomic import atomic_file, new_folder
from recsys_pipeline.storage.tables import COMPRESSION, parse_parquet

FOLDER = "best_model"
POINTER = "current.json"
MANIFEST = "manifest.json"
FACTORS = "factors"
_USER_FACTORS = "user_factors.parquet"
_ITEM_FACTORS = "item_factors.parquet"
_USER_ITEMS = "user_items.parquet"
_PICKLE = "implicit_recommender_model.pkl"
_FORMAT = 2


@dataclass(frozen=True)
class Release:
    """A trained model with all that recommending takes.

    Attributes:
        users: raw id of each row of `user_factors`.
        items: raw id of each row of `item_factors`.
        user_factors: (n_users, factors) float32.
        item_factors: (n_items, factors) float32.
        pattern: all pairs, so what each user already knows.
        weights: (n_pairs,) float32, what each pair weighs in training; 0 for one it was not trained on.
        seen: (n_pairs,) pairs that hide their item from recommendation.
        counts: by event, (n_pairs,) how often it occurred.
        manifest: how it was made and how good it is.
    """

    users: pa.Array
    items: pa.Array
    user_factors: NDArray[np.float32]
    item_factors: NDArray[np.float32]
    pattern: Pattern
    weights: NDArray[np.float32]
    seen: NDArray[np.bool_]
    counts: Mapping[str, NDArray[np.int32]]
    manifest: Mapping[str, Any]


def publish(warehouse: UPath, release: Release, model: AlternatingLeastSquares) -> UPath:
    """Write a new version, then point to it; a reader sees the last version until the new one is whole.

    Args:
        warehouse: its root.
        release: what to write; its manifest gets version, time, library versions and files.
        model: the same model, pickled as the notebook did for those who read that file.

    Returns:
        The folder of the version.
    """
    now = datetime.now(UTC)
    store = warehouse / FOLDER
    name = now.strftime("%Y%m%dT%H%M%S%fZ")
    with new_folder(store / name) as folder:
        _write_factors(folder / _USER_FACTORS, USER, release.users, release.user_factors)
        _write_factors(folder / _ITEM_FACTORS, ITEM, release.items, release.item_factors)
        pairs = {
            USER_INDEX: release.pattern.user_of_pair,
            ITEM_INDEX: release.pattern.indices,
            WEIGHT: release.weights,
            SEEN: release.seen,
            **{count_column(event): counts for event, counts in release.counts.items()},
        }
        pq.write_table(pa.table(pairs), folder / _USER_ITEMS, compression=COMPRESSION)
        # Written for the notebook's consumers, and read nowhere in this project.
        with (folder / _PICKLE).open("wb") as file:
            pickle.dump(model, file)
        manifest = {
            "format": _FORMAT,
            "version": name,
            "created": now.isoformat(timespec="seconds"),
            **release.manifest,
            "versions": {
                library: version(library)
                for library in ("recsys_pipeline", "implicit", "numpy", "scipy", "pyarrow", "dagster")
            },
            "files": {file.name: _sha256(file.read_bytes()) for file in sorted(folder.iterdir())},
        }
        _write_json(folder / MANIFEST, manifest)
    with atomic_file(store / POINTER) as pointer:
        _write_json(pointer, {"version": name})
    return store / name


def current_release(path: str | Path | UPath) -> UPath:
    """The folder of a release: `path` itself, or the current one of a release store or warehouse.

    Raises:
        InputError: there is none.
    """
    start = UPath(path)
    if (start / MANIFEST).exists():
        return start
    for store in (start, start / FOLDER):
        if (store / POINTER).exists():
            return store / str(_read_json(store / POINTER)["version"])
    raise InputError(
        f"{start} holds no model: neither {MANIFEST}, nor {POINTER}, nor {FOLDER}/{POINTER}. "
        "Materialize the asset best_model first, or give the path of the warehouse."
    )


def read_manifest(release: UPath) -> dict[str, Any]:
    """The manifest of a release.

    Raises:
        InputError: it is missing, unreadable, or of a later format.
    """
    manifest = _read_json(release / MANIFEST)
    if manifest.get("format") != _FORMAT:
        raise InputError(
            f"{release / MANIFEST} has format {manifest.get('format')!r}, this version reads {_FORMAT}. "
            "Upgrade recsys_pipeline, or materialize best_model again."
        )
    return manifest


def read_release(release: UPath) -> Release:
    """Read a release, verified: every file has the SHA-256 that the manifest states.

    Raises:
        InputError: a file is missing or differs.
    """
    manifest = read_manifest(release)
    contents = {}
    for name, expected in manifest["files"].items():
        try:
            contents[name] = (release / name).read_bytes()
        except FileNotFoundError:
            raise _damaged(release / name, "is missing") from None
        if _sha256(contents[name]) != expected:
            raise _damaged(release / name, "is not the file that was published: its SHA-256 differs")
    users, user_factors = _read_factors(contents[_USER_FACTORS], USER)
    items, item_factors = _read_factors(contents[_ITEM_FACTORS], ITEM)
    pairs = parse_parquet(contents[_USER_ITEMS])
    pattern = Pattern.from_coordinates(
        pairs[USER_INDEX].to_numpy(), pairs[ITEM_INDEX].to_numpy(), (len(users), len(items))
    )
    weights, seen = pairs[WEIGHT].to_numpy(), pairs[SEEN].to_numpy()
    counts = {event: pairs[count_column(event)].to_numpy() for event in counted_events(pairs.schema.names)}
    return Release(users, items, user_factors, item_factors, pattern, weights, seen, counts, manifest)


def _write_factors(file: Path, id_name: str, ids: pa.Array, factors: NDArray[np.float32]) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(factors.ravel()), factors.shape[1])
    pq.write_table(pa.table({id_name: ids, FACTORS: vectors}), file, compression=COMPRESSION)


def _read_factors(content: bytes, id_name: str) -> tuple[pa.Array, NDArray[np.float32]]:
    table = parse_parquet(content)
    vectors = table[FACTORS].combine_chunks()
    # A copy: implicit needs arrays that it may write to.
    factors = vectors.values.to_numpy().reshape(-1, vectors.type.list_size).copy()
    return table[id_name].combine_chunks(), factors


def _damaged(path: UPath, what: str) -> InputError:
    return InputError(
        f"{path} {what}. Restore it, point {POINTER} to another version, or materialize best_model again."
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _read_json(path: UPath) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _damaged(path, "is missing") from None
    except ValueError:
        raise _damaged(path, "is not JSON") from None
    if not isinstance(content, dict):
        raise _damaged(path, "is not a JSON object")
    return content
