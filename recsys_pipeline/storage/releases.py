"""The release store: one immutable folder a release, and a pointer to the current one.

The pointer holds the SHA-256 of the release's manifest and the manifest that of every file, so that what is
read is what was published. Both are input like any other: names are plain, files regular, fields checked.
The pointer is only ever replaced by somebody who has seen what it says: of two writers one wins, and the
other is told so.
"""

import hashlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeGuard

import pyarrow as pa
from upath import UPath

from recsys_pipeline.core.errors import InputError, naming
from recsys_pipeline.core.model import Model
from recsys_pipeline.storage.atomic import (
    atomic_file,
    flush,
    is_local,
    local_path,
    make_folder,
    put_folder,
    staging_folder,
    sweep,
)
from recsys_pipeline.storage.conditional import Seen, replace_if_as_seen, see
from recsys_pipeline.storage.locations import opened_location
from recsys_pipeline.storage.lock import exclusive
from recsys_pipeline.storage.models import model_in, require_description, table_files
from recsys_pipeline.storage.states import stated_sha256
from recsys_pipeline.storage.tables import parse_parquet
from recsys_pipeline.storage.verified import damaged, open_regular, parsed, read_small, shown, verified

if TYPE_CHECKING:
    from implicit.cpu.als import AlternatingLeastSquares

FOLDER = "releases"
# Where versions of this package before releases kept what readers follow.
_FORMER_FOLDER = "best_model"
POINTER = "current.json"
MANIFEST = "manifest.json"
PICKLE = "implicit_recommender_model.pkl"
_FORMAT = 5
# Of the tables of the model, by format of the manifest; other formats cannot be read.
_SUFFIXES = {3: ".parquet", 4: ".arrow", 5: ".arrow"}
_LONGEST_UPLOAD = timedelta(days=1)
_TIME = "%Y%m%dT%H%M%S%fZ"
_VERSION = re.compile("[0-9]{8}T[0-9]{12}Z")
_FILE = re.compile(r"[A-Za-z0-9_]+\.(arrow|parquet|pkl|md)")
_SHA256 = re.compile("[0-9a-f]{64}")


class ReleaseFolder(NamedTuple):
    """Where a release lies.

    Attributes:
        path: its folder.
        manifest_sha256: of its manifest, where the pointer says so; None for a folder that was named by hand.
    """

    path: UPath
    manifest_sha256: str | None


class Hold(NamedTuple):
    """Why nothing new is released until a person says so.

    Attributes:
        since: when, ISO 8601.
        rolled_back_from: the release that was current before.
        reason: in the words of whoever rolled back; may be empty.
    """

    since: str
    rolled_back_from: str
    reason: str


class Pointer(NamedTuple):
    """What readers follow.

    Attributes:
        version: the current release.
        manifest_sha256: of its manifest.
        published: the releases that readers were pointed to and that are kept, oldest first.
        previous: the release that was current before; None for the first.
        hold: None where the next run may release.
        manifests: by release that is kept, the SHA-256 of its manifest, as far as it is known.
    """

    version: str
    manifest_sha256: str
    published: list[str]
    previous: str | None = None
    hold: Hold | None = None
    manifests: Mapping[str, str] = MappingProxyType({})

    def folder(self, store: UPath, version: str) -> ReleaseFolder:
        """Where a release lies."""
        return ReleaseFolder(store / version, self.known_manifests().get(version))

    def known_manifests(self) -> dict[str, str]:
        """By release, the SHA-256 of its manifest; former versions of this package knew the current one's."""
        return {**self.manifests, self.version: self.manifest_sha256}

    def to_bytes(self) -> bytes:
        """As the file has it: with its own SHA-256, so that no flipped bit loses a release or a hold."""
        return _json({**self._told(), "sha256": self.digest()})

    def digest(self) -> str:
        """SHA-256 of what it says."""
        return hashlib.sha256(_json(self._told())).hexdigest()

    def _told(self) -> dict[str, Any]:
        hold = self.hold._asdict() if self.hold else None
        return {**self._asdict(), "hold": hold, "manifests": dict(self.manifests)}


class Retention(NamedTuple):
    """Which releases stay, beside the current one and the one before it, which always do.

    Attributes:
        keep: so many of the newest.
        most_days: those that are older go; 0 for no limit.
    """

    keep: int = 7
    most_days: float = 0.0


def see_pointer(warehouse: UPath) -> Seen:
    """What the pointer says now, for whoever will want to replace it."""
    return see(warehouse / FOLDER / POINTER)


def publish(
    warehouse: UPath,
    files: Mapping[str, UPath],
    documents: Mapping[str, bytes],
    manifest: Mapping[str, Any],
    *,
    seen: Seen,
    retention: Retention,
) -> UPath:
    """Write a new release, then point to it; a reader sees the last one until the new one is whole.

    Args:
        warehouse: its root.
        files: by name in the release, files that never change: linked where that is possible, else copied,
            which an object store does by itself.
        documents: by name, the content of further files.
        manifest: how it was made; version, time and files are added.
        seen: what the pointer said when the decision to release was taken.
        retention: which releases stay.

    Returns:
        The folder of the release.

    Raises:
        InputError: somebody else has moved the pointer since it was seen.
    """
    store = warehouse / FOLDER
    if is_local(store):
        adopt_former(warehouse)
        make_folder(local_path(store))
    with staging_folder(store / "new") as folder:
        for name, content in documents.items():
            (folder / name).write_bytes(content)
        if is_local(store):
            for name, path in files.items():
                _link(local_path(path), folder / name)
        stated = {
            **{name: stated_sha256(path) or _sha256(path) for name, path in files.items()},
            **{name: hashlib.sha256(content).hexdigest() for name, content in documents.items()},
        }
        with exclusive(store):
            pointer = _pointer_in(store, seen)
            there = _versions(store)
            # Nothing is removed on the word of a pointer that is missing or damaged.
            published = [
                each for each in there if not (pointer and pointer.published) or each in pointer.published
            ]
            now = datetime.now(UTC)
            name = _later_than(there, now)
            content = _json(
                {
                    "format": _FORMAT,
                    "version": name,
                    "created": now.isoformat(timespec="seconds"),
                    **manifest,
                    "files": stated,
                }
            )
            release = store / name
            if is_local(store):
                (folder / MANIFEST).write_bytes(content)
                put_folder(folder, release)
            elif not replace_if_as_seen(release / MANIFEST, content, Seen(None)):
                raise InputError(
                    f"{release} is being written by another run. Nothing was changed; materialize the asset "
                    "release again."
                )
            try:
                if not is_local(store):
                    put_folder(folder, release)
                    for member, path in files.items():
                        with naming(path):
                            release.fs.cp_file(path.path, (release / member).path)
                _read_back(release, stated)
                previous = pointer.version if pointer and pointer.version in there else None
                kept = _kept([*published, name], {name, previous}, retention, now)
                digest = hashlib.sha256(content).hexdigest()
                known = pointer.known_manifests() if pointer else {}
                manifests = {each: known[each] for each in kept if each in known} | {name: digest}
                told = Pointer(name, digest, kept, previous, manifests=manifests)
                _point(store, told, seen)
            except BaseException:
                # The error may have come after the pointer was replaced; if nobody is pointed there, it goes.
                if not _may_point_to(store, name):
                    _remove(release)
                raise
            _remove_all_but(store, kept)
    return release


@contextmanager
def gathered(warehouse: UPath, files: Mapping[str, UPath]) -> Iterator[Path]:
    """A local folder with these files, as a release would have them, for the length of the block.

    Links to them where they lie on this machine, else copies.
    """
    with staging_folder(warehouse / FOLDER / "candidate") as staged:
        for name, path in files.items():
            if is_local(path):
                _link(local_path(path), staged / name)
            else:
                with naming(path):
                    path.fs.get_file(path.path, str(staged / name))
        yield staged


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Another file system, or one that has no links.
        shutil.copyfile(source, target)


def _read_back(release: UPath, stated: Mapping[str, str]) -> None:
    """Refuse a release that does not lie there as it was meant to; every file is read once."""
    for name, digest in stated.items():
        verified(release / name, digest, mapped=False).close()


def _pointer_in(store: UPath, seen: Seen) -> Pointer | None:
    """What was seen; None where that was nothing, or damaged.

    Raises:
        InputError: the pointer says something else by now.
    """
    now = see(store / POINTER)
    if now.content != seen.content:
        raise moved_meanwhile(store, now)
    try:
        return _pointer(store / POINTER, seen.content) if seen.content is not None else None
    except InputError:
        return None


def moved_meanwhile(store: UPath, now: Seen) -> InputError:
    """The error of the one of two writers who came too late."""
    by = "nothing"
    with suppress(InputError):
        by = _pointer(store / POINTER, now.content or b"").version
    return InputError(
        f"{store / POINTER} was moved by another run or a rollback meanwhile and names {by} now. Nothing was "
        "changed; materialize the asset release again if this release is still wanted."
    )


def _point(store: UPath, told: Pointer, seen: Seen) -> None:
    if not replace_if_as_seen(store / POINTER, told.to_bytes(), seen):
        raise moved_meanwhile(store, see(store / POINTER))


def _versions(store: UPath) -> list[str]:
    """The releases that are there, oldest first."""
    there = store.iterdir() if store.exists() else ()
    return sorted(path.name for path in there if _VERSION.fullmatch(path.name))


def _kept(published: list[str], always: set[str | None], retention: Retention, now: datetime) -> list[str]:
    """The releases that stay, oldest first."""
    young = [
        name
        for name in published[-retention.keep :]
        if not retention.most_days or now - time_of(name) <= timedelta(days=retention.most_days)
    ]
    return [name for name in published if name in {*young, *always}]


def time_of(version: str) -> datetime:
    """When a release was made, by its name."""
    return datetime.strptime(version, _TIME).replace(tzinfo=UTC)


def _may_point_to(store: UPath, name: str) -> bool:
    try:
        return current_release(store).path.name == name
    except InputError:
        return False  # no reader gets through either
    except OSError:
        return True


def _later_than(versions: list[str], now: datetime) -> str:
    """The name of a release: the time, or just after the last one should the clock have gone back."""
    name = now.strftime(_TIME)
    if versions and name <= versions[-1]:
        name = (time_of(versions[-1]) + timedelta(microseconds=1)).strftime(_TIME)
    return name


def _remove_all_but(store: UPath, kept: list[str]) -> None:
    """Remove old releases, and those that an interrupted run never pointed to.

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


def _remove(release: UPath) -> None:
    # What cannot be removed now goes another time.
    with suppress(Exception):
        release.fs.rm(release.path, recursive=True)


def adopt_former(warehouse: UPath) -> None:
    """Let releases be what a version of this package before releases published; it stays readable."""
    former = local_path(warehouse / _FORMER_FOLDER)
    store = local_path(warehouse / FOLDER)
    if (former / POINTER).is_file() and not former.is_symlink() and not store.exists():
        os.rename(former, store)
        flush(store.parent)


def roll_back(warehouse: UPath, to: str | None, reason: str) -> Pointer:
    """Point to an earlier release, at once, and hold back new ones until `resume`.

    Args:
        warehouse: its root.
        to: the release; None for the one before the current one. To the one that was rolled back to already
            changes nothing, so that who was interrupted may say the same again.
        reason: kept with the hold.

    Returns:
        What the pointer says now.

    Raises:
        InputError: there is no such release, or it is not whole; or the pointer moved meanwhile.
    """
    store = warehouse / FOLDER
    if is_local(store):
        adopt_former(warehouse)
    seen = see_pointer(warehouse)
    pointer = _pointer_to_leave(warehouse, to)
    to = to or pointer.previous
    if to is None:
        raise InputError(
            f"{store} holds no release before {pointer.version}: there is nothing to roll back to."
        )
    if to == pointer.version:
        if pointer.hold:
            return pointer
        raise InputError(f"{to} is the current release already.")
    if to not in pointer.published:
        there = ", ".join(name for name in pointer.published if name != pointer.version)
        raise InputError(f"{store} holds no release {shown(to)}; there are: {there or 'no others'}.")
    folder = pointer.folder(store, to)
    for problem in problems_of(folder):
        raise InputError(f"{to} is not whole, so nothing was changed: {problem}")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    digest = hashlib.sha256(read_small(folder.path / MANIFEST)).hexdigest()
    previous = pointer.version if pointer.version in pointer.published else None
    manifests = {**pointer.manifests, to: digest}
    told = Pointer(to, digest, pointer.published, previous, Hold(now, pointer.version, reason), manifests)
    with exclusive(store):
        _point(store, told, seen)
    return told


def _pointer_to_leave(warehouse: UPath, to: str | None) -> Pointer:
    """What the pointer says; one that is lost or damaged is no obstacle to a release that is named."""
    try:
        return read_pointer(warehouse)
    except InputError as error:
        there = _versions(warehouse / FOLDER)
        if not there:
            raise
        if to is None:
            told = f"{error} These releases are there, and can be named: {', '.join(there)}."
            raise InputError(told) from None
        return Pointer("a damaged pointer", "", there)


def resume(warehouse: UPath) -> Pointer:
    """End the hold that a rollback began: the next run may release again.

    Raises:
        InputError: there is no release; or the pointer moved meanwhile.
    """
    seen = see_pointer(warehouse)
    pointer = read_pointer(warehouse)._replace(hold=None)
    with exclusive(warehouse / FOLDER):
        _point(warehouse / FOLDER, pointer, seen)
    return pointer


def write_pickle(warehouse: UPath, version: str, model: "AlternatingLeastSquares | None") -> None:
    """Keep a release as the notebook's file, for those who read that; None: there is no such file.

    It lies beside the releases, always under the same name, and is written nowhere else. If the release is
    not the current one any more, nothing happens: whoever moved the pointer sees to the file.
    """
    store = warehouse / FOLDER
    with exclusive(store):
        if current_release(warehouse).path.name != version:
            return
        if model is None:
            (store / PICKLE).unlink(missing_ok=True)
            return
        with atomic_file(store / PICKLE) as staged, staged.open("wb") as file:
            # Read nowhere in this project. From protocol 5 on, arrays that cannot be written to stay so, and
            # implicit needs to write.
            pickle.dump(model, file, protocol=4)


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
    for store in (start, start / FOLDER, start / _FORMER_FOLDER):
        if (store / POINTER).exists():
            pointer = _pointer_at(store / POINTER)
            return pointer.folder(store, pointer.version)
    raise InputError(
        f"{start} holds no release: neither {MANIFEST}, nor {POINTER}, nor {FOLDER}/{POINTER}. "
        "Materialize the asset release first, or give the path of the warehouse."
    )


def has_release(warehouse: UPath) -> bool:
    """Whether anything was ever released; it may be damaged."""
    warehouse.fs.invalidate_cache()
    return any((warehouse / folder / POINTER).exists() for folder in (FOLDER, _FORMER_FOLDER))


def read_pointer(warehouse: UPath) -> Pointer:
    """What readers of the warehouse follow.

    Raises:
        InputError: there is none, or it is damaged.
    """
    return _pointer_at(current_release(warehouse).path.parent / POINTER)


def _pointer_at(path: UPath) -> Pointer:
    content = see(path).content
    # What cannot be read says why.
    return _pointer(path, read_small(path) if content is None else content)


def _pointer(path: UPath, content: bytes) -> Pointer:
    told = parsed(path, content)
    name, digest = told.get("version"), told.get("manifest_sha256")
    if not _is_version(name):
        raise damaged(path, f"names no version: {shown(name)}")
    if not _is_digest(digest):
        raise damaged(path, "holds no SHA-256 of the manifest")
    # Pointers of former versions of this package have less.
    published, previous, hold = told.get("published", []), told.get("previous"), told.get("hold")
    if not (isinstance(published, list) and all(_is_version(each) for each in published)):
        raise damaged(path, "lists no versions under 'published'")
    if not (previous is None or _is_version(previous)):
        raise damaged(path, f"names no version under 'previous': {shown(previous)}")
    if hold is not None:
        names = Hold._fields
        if not (isinstance(hold, dict) and all(isinstance(hold.get(each), str) for each in names)):
            raise damaged(path, "has no valid field 'hold'")
        hold = Hold(**{each: hold[each] for each in names})
    manifests = told.get("manifests", {})
    if not (isinstance(manifests, dict) and all(_is_digest(each) for each in manifests.values())):
        raise damaged(path, "holds no SHA-256 under 'manifests'")
    pointer = Pointer(name, digest, published, previous, hold, manifests)
    # Those of former versions state none.
    if told.get("sha256") not in (None, pointer.digest()):
        raise damaged(path, "is not what was written: its SHA-256 differs")
    return pointer


def _is_version(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(_VERSION.fullmatch(value))


def _is_digest(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(_SHA256.fullmatch(value))


def read_manifest(release: ReleaseFolder) -> dict[str, Any]:
    """The manifest of a release, verified against the pointer.

    Raises:
        InputError: it is missing, damaged, or of another format.
    """
    path = release.path / MANIFEST
    content = read_small(path)
    if release.manifest_sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise damaged(path, "is not the manifest that was published: its SHA-256 differs")
    manifest = parsed(path, content)
    if manifest.get("format") not in list(_SUFFIXES):
        raise InputError(
            f"{path} has format {shown(manifest.get('format'))}, this version reads "
            f"{', '.join(map(str, _SUFFIXES))}. Upgrade recsys_pipeline, or materialize the assets again."
        )
    for name, kind in {"version": str, "created": str, "files": dict}.items():
        if not isinstance(manifest.get(name), kind):
            raise damaged(path, f"has no valid field {name!r}")
    name = manifest["version"]
    # A folder that is named by hand may have been renamed too.
    if not _is_version(name) or (release.manifest_sha256 and name != release.path.name):
        raise damaged(path, f"is that of another release: {shown(name)}")
    require_description(path, manifest)
    for name, digest in manifest["files"].items():
        if not (_FILE.fullmatch(name) and _is_digest(digest)):
            raise damaged(path, f"lists a file under no plain name: {shown(name)}")
    if missing := set(_model_files(manifest)) - set(manifest["files"]):
        raise damaged(path, f"does not list {', '.join(sorted(missing))}")
    return manifest


def _model_files(manifest: Mapping[str, Any]) -> list[str]:
    return table_files(_SUFFIXES[manifest["format"]])


def read_release(release: ReleaseFolder) -> Model:
    """Open the model of a release; each of its files has the SHA-256 that the manifest states.

    The tables are mapped into memory; only the interactions are gone through.

    Raises:
        InputError: a file is missing or differs, or holds no such table.
    """
    manifest = read_manifest(release)
    names = _model_files(manifest)
    with ExitStack() as opened:
        # What is mapped is the very file that was hashed, whatever its name leads to by then.
        files = [
            opened.enter_context(verified(release.path / name, manifest["files"][name], mapped=True))
            for name in names
        ]
        return model_in([release.path / name for name in names], files, manifest)


@contextmanager
def open_tables(
    release: ReleaseFolder, manifest: Mapping[str, Any], names: Iterable[str]
) -> Iterator[dict[str, BinaryIO]]:
    """The Parquet files of some tables of a release, verified, by name; they stay whatever becomes of it.

    Raises:
        InputError: the release has no such table, or it is not what was published.
    """
    with ExitStack() as opened:
        files = {}
        for name in names:
            file = f"{name}.parquet"
            if file not in manifest["files"]:
                raise InputError(
                    f"{release.path} has no {file}: an earlier version of recsys_pipeline made it. "
                    "Materialize the asset `release`."
                )
            files[name] = opened.enter_context(
                verified(release.path / file, manifest["files"][file], mapped=True)
            )
        yield files


def read_text(release: ReleaseFolder, manifest: Mapping[str, Any], name: str) -> str:
    """A text file of a release, verified.

    Raises:
        InputError: the release has no such file, or it is not what was published.
    """
    if name not in manifest["files"]:
        raise InputError(f"{release.path} has no {name}: an earlier version of recsys_pipeline made it.")
    path = release.path / name
    with verified(path, manifest["files"][name], mapped=False) as file, naming(path):
        return file.read().decode("utf-8")


def has_table(manifest: Mapping[str, Any], name: str) -> bool:
    """Whether a release has the table."""
    return f"{name}.parquet" in manifest["files"]


def read_table(release: ReleaseFolder, manifest: Mapping[str, Any], name: str) -> pa.Table:
    """A table of a release, such as `recommendations`, verified.

    Raises:
        InputError: the release has no such table, or it is not what was published.
    """
    with open_tables(release, manifest, [name]) as files, naming(release.path / f"{name}.parquet"):
        return parse_parquet(files[name].read())


def problems_of(release: ReleaseFolder) -> Iterator[str]:
    """What of a release is not as it was published: every file is read and hashed."""
    try:
        manifest = read_manifest(release)
    except InputError as error:
        yield str(error)
        return
    for name, digest in manifest["files"].items():
        try:
            verified(release.path / name, digest, mapped=False).close()
        except InputError as error:
            yield str(error)
    there = {path.name for path in release.path.iterdir()}
    for name in sorted(there - {*manifest["files"], MANIFEST}):
        # File managers leave such names everywhere.
        if not name.startswith("."):
            yield f"{release.path / name} is not of the release: another program put it there."


def _sha256(path: UPath) -> str:
    with open_regular(path) as file, naming(path):
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
