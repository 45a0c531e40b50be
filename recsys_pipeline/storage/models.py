"""The files of a model: its factors beside the raw ids, its interactions, and how it was made."""

import errno
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO

import pyarrow as pa
from upath import UPath

from recsys_pipeline.core.columns import (
    EXCLUDED,
    ITEM,
    ITEM_INDEX,
    USER,
    USER_INDEX,
    WEIGHT,
    count_column,
    counted_events,
    fade_column,
    faded_events,
)
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.factors import FACTORS, FactorTables, Rows
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.model import Contents, Model
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.core.sources import ALS, BLEND, GRAPH
from recsys_pipeline.storage.atomic import fetched
from recsys_pipeline.storage.mapped import ColumnArrays, in_one_piece, write_mappable
from recsys_pipeline.storage.tables import parse_parquet
from recsys_pipeline.storage.verified import damaged, on_this_machine, parsed, read_small, shown

DESCRIPTION = "model.json"
CARD = "model_card.md"
CARD_FACTS = "model_card.json"
_NAMES = ("user_factors", "item_factors", "user_items")
_FIELDS = {
    "hyperparameters": dict,
    "seed": int,
    "solver": str,
    "strengths": dict,
    "target_events": list,
    "seen_events": list,
    "metrics": dict,
    "counts": dict,
    "inputs": dict,
    "versions": dict,
}
# Who made the lists, which releases from before it was a choice do not say.
_SCORERS = {"scorer": (ALS, BLEND), "similar_items_scorer": (ALS, GRAPH)}
_LIBRARIES = ("recsys_pipeline", "implicit", "numpy", "scipy", "numba", "pyarrow", "dagster")


# What the description of a model has to say, and with it the manifest of a release.
DESCRIBED = tuple(_FIELDS)


def table_files(suffix: str = ".arrow") -> list[str]:
    """The names of the files of the tables: users, items, interactions."""
    return [f"{name}{suffix}" for name in _NAMES]


def write_model(
    folder: Path, factors: FactorTables, interactions: Rows, description: Mapping[str, Any]
) -> None:
    """Write a model into a folder.

    Args:
        folder: an empty one.
        factors: of the model, beside the raw ids.
        interactions: what it carries along, as `Contents.to_table`.
        description: how the model was made; the versions of the libraries are added.
    """
    tables = (factors.users, factors.items, interactions)
    for name, rows in zip(table_files(), tables, strict=True):
        with (folder / name).open("wb") as file, in_one_piece(rows) as table:
            write_mappable(table, file)
    versions = {library: version(library) for library in _LIBRARIES}
    text = json.dumps({**description, "versions": versions}, indent=2) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")


def read_model(folder: UPath) -> Model:
    """Open the model in a folder whose files were verified.

    The tables are mapped into memory; only the interactions are gone through.

    Raises:
        InputError: a file is missing, or holds no such table.
    """
    path = folder / DESCRIPTION
    description = parsed(path, read_small(path))
    require_description(path, description)
    with ExitStack() as opened:
        files = [opened.enter_context(on_this_machine(folder / name)) for name in table_files()]
        model = model_in([folder / name for name in table_files()], files, description)
    return replace(model, reopen=partial(read_again, str(folder.absolute())))


def read_again(folder: str) -> Model:
    """The model in this folder, or in a copy where it is one of an object store."""
    with fetched(UPath(folder)) as copy:
        return read_model(UPath(copy))


def users_in(folder: UPath) -> pa.Array:
    """The raw ids of the users of a model, and nothing else of it; not verified.

    Raises:
        InputError: the file holds no such table.
        FileNotFoundError: it is missing.
    """
    path = folder / table_files()[0]
    if not path.exists():
        path = folder / table_files(".parquet")[0]
    try:
        with path.open("rb") as file:
            if path.suffix == ".parquet":
                return parse_parquet(file.read(), [USER])[USER].combine_chunks()
            table = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=[0])).read_all()
            return table[USER].combine_chunks()
    except (KeyError, pa.ArrowException) as error:
        raise damaged(path, f"is no table of a model: {shown(str(error))}") from None


def require_description(path: UPath, description: Mapping[str, Any]) -> None:
    """Refuse what does not describe a model.

    Args:
        path: where it was read.
        description: a manifest, or the content of `model.json`.

    Raises:
        InputError: it lacks a field.
    """
    for name, kind in _FIELDS.items():
        if not isinstance(description.get(name), kind):
            raise damaged(path, f"has no valid field {name!r}")
    try:
        Hyperparameters.from_mapping(description["hyperparameters"])
    except (TypeError, ValueError):
        raise damaged(path, "has no valid field 'hyperparameters'") from None
    for name in ("blend", "graph"):
        if not isinstance(description.get(name), (dict, NoneType)):
            raise damaged(path, f"has no valid field {name!r}")
    for name, scorers in _SCORERS.items():
        if description.get(name, ALS) not in scorers:
            raise damaged(path, f"has no valid field {name!r}")


def model_in(paths: list[UPath], files: list[BinaryIO], description: Mapping[str, Any]) -> Model:
    """The model that open files hold.

    Args:
        paths: of the files, for errors.
        files: users, items, interactions; what is mapped stays when they are closed.
        description: how the model was made; checked.

    Raises:
        InputError: a file holds no such table.
    """
    width = Hyperparameters.from_mapping(description["hyperparameters"]).width
    with _columns(paths[0], files[0]) as table:
        users, user_factors = table.ids(USER), table.vectors(FACTORS, width)
    with _columns(paths[1], files[1]) as table:
        items, item_factors = table.ids(ITEM), table.vectors(FACTORS, width)
    with _columns(paths[2], files[2]) as table:
        contents = _contents_in(table, (len(users), len(items)))
    return Model(users, items, Factors(user_factors, item_factors), contents, description)


@contextmanager
def _columns(path: UPath, file: BinaryIO) -> Iterator[ColumnArrays]:
    """The columns of a verified file, to be read within the block; they may still be none of a model."""
    try:
        yield ColumnArrays.mapped(file) if path.suffix != ".parquet" else ColumnArrays.parsed(file.read())
    except (ValueError, OSError, MemoryError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise InputError(
                f"{path} does not fit into the memory that this process may use: it has "
                f"{path.stat().st_size / 1e9:.1f} GB. Raise the limit (ulimit -v, the container's memory), "
                "open the model on a larger machine, or read the release's tables: its lists need no model."
            ) from None
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise damaged(path, f"is no table of a model: {shown(str(error))}") from None


def _contents_in(table: ColumnArrays, shape: tuple[int, int]) -> Contents:
    user_index, item_index = (table.numbers(name, pa.int32()) for name in (USER_INDEX, ITEM_INDEX))
    for name, index, n in zip((USER_INDEX, ITEM_INDEX), (user_index, item_index), shape, strict=True):
        if len(index) and not (index.min() >= 0 and index.max() < n):
            raise ValueError(f"column {name} leads beyond the factors")
    return Contents(
        Pattern.from_coordinates(user_index, item_index, shape),
        table.numbers(WEIGHT, pa.float32()),
        table.numbers(EXCLUDED, pa.bool_()),
        {event: table.numbers(count_column(event), pa.int32()) for event in counted_events(table.names)},
        {event: table.numbers(fade_column(event), pa.float64()) for event in faded_events(table.names)},
    )
