"""The release store: one folder a version of the model, and a pointer to the current one.

The pointer holds the SHA-256 of the version's manifest and the manifest that of every file, so that what is
loaded is what was published. Both are input like any other: names are plain, files regular, fields checked.
"""

import hashlib
import json
import os
import pickle
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

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
)
from recsys_pipeline.core.errors import InputError, naming
from recsys_pipeline.core.factors import FACTORS, FactorTables
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.model import Contents, Model
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.storage.atomic import (
    atomic_file,
    is_local,
    local_path,
    put_folder,
    staging_folder,
    sweep,
)
from recsys_pipeline.storage.locations import opened_location
from recsys_pipeline.storage.lock import exclusive
from recsys_pipeline.storage.mapped import ColumnArrays, HashedFile, write_mappable

if TYPE_CHECKING:
    from implicit.cpu.als import AlternatingLeastSquares

FOLDER = "best_model"
POINTER = "current.json"
MANIFEST = "manifest.json"
_USER_FACTORS = "user_factors"
_ITEM_FACTORS = "item_factors"
_USER_ITEMS = "user_items"
_PICKLE = "implicit_recommender_model.pkl"
_FORMAT = 4
# Of the files of the tables, by format of the manifest; other formats cannot be read.
_SUFFIXES = {3: ".parquet", 4: ".arrow"}
_LONGEST_UPLOAD = timedelta(days=1)
_TIME = "%Y%m%dT%H%M%S%fZ"
_VERSION = re.compile(r"\d{8}T\d{12}Z")
_FILE = re.compile(r"[A-Za-z0-9_]+\.(arrow|parquet|pkl)")
_SHA256 = re.compile("[0-9a-f]{64}")
# A manifest is some kilobytes; nothing of the size of a model is read as JSON.
_MOST_JSON_BYTES = 1 << 20
_CHUNK = 1 << 20
_FIELDS = {
    "version": str,
    "created": str,
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
    "files": dict,
}


class ReleaseFolder(NamedTuple):
    """Where a version lies.

    Attributes:
        path: its folder.
        manifest_sha256: of its manifest, where the pointer says so; None for a folder that was named by hand.
    """

    path: UPath
    manifest_sha256: str | None


def publish(
    warehouse: UPath,
    factors: FactorTables,
    contents: Contents,
    manifest: Mapping[str, Any],
    model: "AlternatingLeastSquares | None",
    keep_versions: int,
) -> UPath:
    """Write a new version, then point to it; a reader sees the last version until the new one is whole.

    Args:
        warehouse: its root.
        factors: of the model, beside the raw ids.
        contents: the interactions.
        manifest: how the model was made; version, time, library versions and files are added.
        model: the same model, pickled as the notebook did for those who read that file; None: no such file.
        keep_versions: so many of the newest versions stay, this one among them.

    Returns:
        The folder of the version.
    """
    store = warehouse / FOLDER
    with staging_folder(store / "new") as folder:
        interactions = {
            USER_INDEX: contents.pattern.user_of_interaction,
            ITEM_INDEX: contents.pattern.indices,
            WEIGHT: contents.weights,
            EXCLUDED: contents.excluded,
            **{count_column(event): counts for event, counts in contents.counts.items()},
        }
        tables = {
            _USER_FACTORS: factors.users,
            _ITEM_FACTORS: factors.items,
            _USER_ITEMS: pa.table(interactions),
        }
        files: dict[str, str] = {}
        for name, table in tables.items():
            with _hashed(folder / f"{name}{_SUFFIXES[_FORMAT]}", files) as file:
                write_mappable(table, file)
        if model is not None:
            # Written for the notebook's consumers, and read nowhere in this project. From protocol 5 on,
            # arrays that cannot be written to stay so, and implicit needs to write.
            with _hashed(folder / _PICKLE, files) as file:
                pickle.dump(model, file, protocol=4)
        with exclusive(store):
            published = _published(store)
            now = datetime.now(UTC)
            name = _later_than(_versions(store), now)
            content = _json(
                {
                    "format": _FORMAT,
                    "version": name,
                    "created": now.isoformat(timespec="seconds"),
                    **manifest,
                    "versions": {
                        library: version(library)
                        for library in ("recsys_pipeline", "implicit", "numpy", "scipy", "pyarrow", "dagster")
                    },
                    "files": files,
                }
            )
            (folder / MANIFEST).write_bytes(content)
            put_folder(folder, store / name)
            kept = [*published, name][-keep_versions:]
            told = {"version": name, "manifest_sha256": _digest(content), "published": kept}
            try:
                with atomic_file(store / POINTER) as pointer:
                    pointer.write_bytes(_json(told))
            except OSError:
                # The error may have come after the pointer was replaced; if nobody is pointed there, it goes.
                if not _may_point_to(store, name):
                    _remove(store / name)
                raise
            _remove_all_but(store, kept)
    return store / name


@contextmanager
def _hashed(path: Path, files: dict[str, str]) -> Iterator[HashedFile]:
    """A file to write, whose SHA-256 then stands among `files`."""
    with path.open("wb") as file:
        hashed = HashedFile(file)
        yield hashed
    files[path.name] = hashed.sha256


def _versions(store: UPath) -> list[str]:
    """The versions that are there, oldest first."""
    there = store.iterdir() if store.exists() else ()
    return sorted(path.name for path in there if _VERSION.fullmatch(path.name))


def _published(store: UPath) -> list[str]:
    """The versions that readers were pointed to and that are still there, oldest first."""
    there = _versions(store)
    pointer = store / POINTER
    try:
        told = _parse(pointer, _read_small(pointer)).get("published")
    except InputError:
        told = None
    # Nothing is removed on the word of a pointer that is missing, damaged or of another format.
    return [name for name in there if name in told] if isinstance(told, list) else there


def _may_point_to(store: UPath, name: str) -> bool:
    try:
        return current_release(store).path.name == name
    except InputError:
        return False  # no reader gets through either
    except OSError:
        return True


def _later_than(versions: list[str], now: datetime) -> str:
    """The name of a version: the time, or just after the last version should the clock have gone back."""
    name = now.strftime(_TIME)
    if versions and name <= versions[-1]:
        last = datetime.strptime(versions[-1], _TIME).replace(tzinfo=UTC)
        name = (last + timedelta(microseconds=1)).strftime(_TIME)
    return name


def _remove_all_but(store: UPath, kept: list[str]) -> None:
    """Remove old versions, and those that an interrupted publish never pointed to.

    Not younger ones on an object store, which has no locks: another run may be about to point to one.
    """
    abandoned = kept[-1]
    if is_local(store):
        sweep(local_path(store))
    else:
        abandoned = (datetime.now(UTC) - _LONGEST_UPLOAD).strftime(_TIME)
    for path in list(store.iterdir()):
        name = path.name
        if _VERSION.fullmatch(name) and name not in kept and (name < kept[0] or name < abandoned):
            _remove(path)


def _remove(version: UPath) -> None:
    # What cannot be removed now goes another time.
    with suppress(Exception):
        version.fs.rm(version.path, recursive=True)


def current_release(path: str | Path | UPath) -> ReleaseFolder:
    """The folder of a release: `path` itself, or the current one of a release store or warehouse.

    Raises:
        InputError: there is none, or the pointer is damaged.
    """
    start = opened_location(str(path)) if isinstance(path, str) else UPath(path)
    # Another process may have published what an object store's list of yesterday does not show.
    start.fs.invalidate_cache()
    if (start / MANIFEST).exists() and not (start / POINTER).exists():
        return ReleaseFolder(start, None)
    for store in (start, start / FOLDER):
        if (store / POINTER).exists():
            pointer = store / POINTER
            told = _parse(pointer, _read_small(pointer))
            name, digest = told.get("version"), told.get("manifest_sha256")
            if not (isinstance(name, str) and _VERSION.fullmatch(name)):
                raise _damaged(pointer, f"names no version: {_shown(name)}")
            if not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
                raise _damaged(pointer, "holds no SHA-256 of the manifest")
            return ReleaseFolder(store / name, digest)
    raise InputError(
        f"{start} holds no model: neither {MANIFEST}, nor {POINTER}, nor {FOLDER}/{POINTER}. "
        "Materialize the asset best_model first, or give the path of the warehouse."
    )


def has_release(warehouse: UPath) -> bool:
    """Whether a model was ever published; it may be damaged."""
    warehouse.fs.invalidate_cache()
    return bool((warehouse / FOLDER / POINTER).exists())


def read_manifest(release: ReleaseFolder) -> dict[str, Any]:
    """The manifest of a release, verified against the pointer.

    Raises:
        InputError: it is missing, damaged, or of another format.
    """
    path = release.path / MANIFEST
    content = _read_small(path)
    if release.manifest_sha256 not in (None, _digest(content)):
        raise _damaged(path, "is not the manifest that was published: its SHA-256 differs")
    manifest = _parse(path, content)
    if manifest.get("format") not in list(_SUFFIXES):
        raise InputError(
            f"{path} has format {_shown(manifest.get('format'))}, this version reads "
            f"{' and '.join(map(str, _SUFFIXES))}. "
            "Upgrade recsys_pipeline, or materialize best_model again."
        )
    for name, kind in _FIELDS.items():
        if not isinstance(manifest.get(name), kind):
            raise _damaged(path, f"has no valid field {name!r}")
    try:
        Hyperparameters.from_mapping(manifest["hyperparameters"])
    except (TypeError, ValueError):
        raise _damaged(path, "has no valid field 'hyperparameters'") from None
    if not isinstance(manifest.get("blend"), (dict, NoneType)):
        raise _damaged(path, "has no valid field 'blend'")
    for name, digest in manifest["files"].items():
        if not (_FILE.fullmatch(name) and isinstance(digest, str) and _SHA256.fullmatch(digest)):
            raise _damaged(path, f"lists a file under no plain name: {_shown(name)}")
    if missing := set(_names_of(manifest)) - set(manifest["files"]):
        raise _damaged(path, f"does not list {', '.join(sorted(missing))}")
    return manifest


def _names_of(manifest: Mapping[str, Any]) -> list[str]:
    """The names of the files of the tables: users, items, interactions."""
    suffix = _SUFFIXES[manifest["format"]]
    return [f"{name}{suffix}" for name in (_USER_FACTORS, _ITEM_FACTORS, _USER_ITEMS)]


def read_release(release: ReleaseFolder) -> Model:
    """Open a release, verified: every file has the SHA-256 that the manifest states.

    The tables are mapped into memory; only the interactions are gone through.

    Raises:
        InputError: a file is missing or differs, or holds no such table.
    """
    manifest = read_manifest(release)
    width = Hyperparameters.from_mapping(manifest["hyperparameters"]).width
    with ExitStack() as opened:
        # What is mapped is the very file that was hashed, whatever its name leads to by then.
        files = {
            name: opened.enter_context(_verified(release.path / name, digest, name in _names_of(manifest)))
            for name, digest in manifest["files"].items()
        }
        of_users, of_items, interactions = _names_of(manifest)
        with _columns(release.path / of_users, files[of_users]) as table:
            users, user_factors = table.ids(USER), table.vectors(FACTORS, width)
        with _columns(release.path / of_items, files[of_items]) as table:
            items, item_factors = table.ids(ITEM), table.vectors(FACTORS, width)
        with _columns(release.path / interactions, files[interactions]) as table:
            contents = _contents_in(table, (len(users), len(items)))
    return Model(users, items, Factors(user_factors, item_factors), contents, manifest)


@contextmanager
def _columns(path: UPath, file: BinaryIO) -> Iterator[ColumnArrays]:
    """The columns of a verified file, to be read within the block; they may still be none of a model."""
    try:
        yield ColumnArrays.mapped(file) if path.suffix != ".parquet" else ColumnArrays.parsed(file.read())
    except (ValueError, OSError, MemoryError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise _damaged(path, f"is no table of a model: {_shown(str(error))}") from None


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
    )


def _verified(path: UPath, digest: str, is_table: bool) -> BinaryIO:
    """The open file, after it has been hashed; a table lies on this machine, to be mapped."""
    try:
        file = _on_this_machine(path) if is_table else _open_regular(path)
        try:
            with naming(path):
                found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
                file.seek(0)
            if found != digest:
                raise _damaged(path, "is not the file that was published: its SHA-256 differs")
        except BaseException:
            file.close()
            raise
    except FileNotFoundError:
        raise _damaged(path, "is missing") from None
    return file


def _on_this_machine(path: UPath) -> BinaryIO:
    """A regular file, opened; of an object store a copy without a name, which goes when it is closed."""
    file = _open_regular(path)
    if is_local(path):
        return file
    with file, naming(path):
        with naming(tempfile.gettempdir()):
            copy = tempfile.TemporaryFile()  # noqa: SIM115  # for the caller to close
        try:
            while chunk := file.read(_CHUNK):
                with naming(tempfile.gettempdir()):
                    copy.write(chunk)
            with naming(tempfile.gettempdir()):
                copy.seek(0)
        except BaseException:
            copy.close()
            raise
    return copy


def _open_regular(path: UPath) -> BinaryIO:
    """No folder, no device, no pipe that never ends."""
    try:
        if not path.is_file():
            raise _damaged(path, "is no regular file" if path.exists() else "is missing")
        if not is_local(path):
            with naming(path):
                remote: BinaryIO = path.open("rb")
            return remote
        # What it was a moment ago need not be what is opened.
        descriptor = os.open(local_path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _damaged(path, "is missing") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _damaged(path, "is no regular file")
    return os.fdopen(descriptor, "rb")


def _read_small(path: UPath) -> bytes:
    with _open_regular(path) as file, naming(path):
        content = file.read(_MOST_JSON_BYTES + 1)
    if len(content) > _MOST_JSON_BYTES:
        raise _damaged(path, "is too large to be what it should be")
    return content


def _damaged(path: UPath, what: str) -> InputError:
    return InputError(f"{path} {what}. Restore it from a backup, or materialize best_model again.")


def _shown(value: object) -> str:
    return repr(value)[:80]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _parse(path: UPath, content: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        raise _damaged(path, "is not JSON") from None
    if not isinstance(parsed, dict):
        raise _damaged(path, "is not a JSON object")
    return parsed
