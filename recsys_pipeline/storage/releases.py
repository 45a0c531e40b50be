"""Reading releases: one immutable folder a release, and a pointer to the current one.

The pointer holds the SHA-256 of the release's manifest and the manifest that of every file, so that what is
read is what was published. Both are input like any other: names are plain, files regular, fields checked.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple, TypeGuard

import pyarrow as pa
from upath import UPath

from recsys_pipeline.core.errors import InputError, naming
from recsys_pipeline.core.model import Model
from recsys_pipeline.storage.conditional import Seen, see
from recsys_pipeline.storage.locations import opened_location
from recsys_pipeline.storage.models import model_in, require_description, table_files
from recsys_pipeline.storage.tables import parse_parquet
from recsys_pipeline.storage.verified import damaged, parsed, read_small, shown, verified

FOLDER = "releases"
# Where versions of this package before releases kept what readers follow.
FORMER_FOLDER = "best_model"
POINTER = "current.json"
MANIFEST = "manifest.json"
PICKLE = "implicit_recommender_model.pkl"
FORMAT = 5
# Of the tables of the model, by format of the manifest; other formats cannot be read.
_SUFFIXES = {3: ".parquet", 4: ".arrow", 5: ".arrow"}
_VERSION = re.compile("[0-9]{8}T[0-9]{12}Z")
_FILE = re.compile(r"[A-Za-z0-9_]+\.(arrow|parquet|pkl|md|png)")
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

    def told(self) -> str:
        """For people."""
        why = f" ({self.reason})" if self.reason else ""
        return (
            f"releases are held since {self.since}, when somebody rolled back from {self.rolled_back_from}"
            f"{why}: `recsys releases resume` ends that"
        )


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
        return json_bytes({**self._told(), "sha256": self.digest()})

    @property
    def hold_as_json(self) -> dict[str, str] | None:
        """The hold, if there is one."""
        return self.hold._asdict() if self.hold else None

    def digest(self) -> str:
        """SHA-256 of what it says."""
        return hashlib.sha256(json_bytes(self._told())).hexdigest()

    def _told(self) -> dict[str, Any]:
        return {**self._asdict(), "hold": self.hold_as_json, "manifests": dict(self.manifests)}


def see_pointer(warehouse: UPath) -> Seen:
    """What the pointer says now, for whoever will want to replace it."""
    return see(warehouse / FOLDER / POINTER)


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
    for store in (start, start / FOLDER, start / FORMER_FOLDER):
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
    return any((warehouse / folder / POINTER).exists() for folder in (FOLDER, FORMER_FOLDER))


def read_pointer(warehouse: UPath) -> Pointer:
    """What readers of the warehouse follow.

    Raises:
        InputError: there is none, or it is damaged.
    """
    return _pointer_at(current_release(warehouse).path.parent / POINTER)


def _pointer_at(path: UPath) -> Pointer:
    content = see(path).content
    # What cannot be read says why.
    return pointer_in(path, read_small(path) if content is None else content)


def pointer_in(path: UPath, content: bytes) -> Pointer:
    """What the content of the pointer says; `path` is for errors.

    Raises:
        InputError: it is damaged.
    """
    told = parsed(path, content)
    name, digest = told.get("version"), told.get("manifest_sha256")
    if not is_version(name):
        raise damaged(path, f"names no version: {shown(name)}")
    if not _is_digest(digest):
        raise damaged(path, "holds no SHA-256 of the manifest")
    # Pointers of former versions of this package have less.
    published, previous, hold = told.get("published", []), told.get("previous"), told.get("hold")
    if not (isinstance(published, list) and all(is_version(each) for each in published)):
        raise damaged(path, "lists no versions under 'published'")
    if not (previous is None or is_version(previous)):
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


def is_version(value: object) -> TypeGuard[str]:
    """Whether it is the name of a release."""
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
    if not is_version(name) or (release.manifest_sha256 and name != release.path.name):
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
        yield {
            name: opened.enter_context(_verified_in(release, manifest, f"{name}.parquet", mapped=True))
            for name in names
        }


def _verified_in(release: ReleaseFolder, manifest: Mapping[str, Any], file: str, *, mapped: bool) -> BinaryIO:
    if file not in manifest["files"]:
        raise InputError(
            f"{release.path} has no {file}: an earlier version of recsys_pipeline made it. "
            "Materialize the asset `release`."
        )
    return verified(release.path / file, manifest["files"][file], mapped=mapped)


def read_text(release: ReleaseFolder, manifest: Mapping[str, Any], name: str) -> str:
    """A text file of a release, verified.

    Raises:
        InputError: the release has no such file, or it is not what was published.
    """
    with _verified_in(release, manifest, name, mapped=False) as file, naming(release.path / name):
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


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """As a file of the store has it."""
    return (json.dumps(content, indent=2) + "\n").encode()
