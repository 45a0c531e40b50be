"""What can be seen of files outside the warehouse: whether they have changed, and whether they are whole."""

import gzip
import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import BaseModel
from upath import UPath

from recsys_pipeline.core.errors import naming
from recsys_pipeline.fingerprints import CONTENT_TAG, SOURCE_TAG, digest
from recsys_pipeline.storage.atomic import is_local
from recsys_pipeline.storage.feeds.files import files_behind
from recsys_pipeline.storage.locations import OptionalLocation, opened_location
from recsys_pipeline.storage.verified import sha256_of

# Where only the dates of local files differ, so many bytes are hashed to see whether the content does.
MOST_HASHED_BYTES = 1 << 30
_CHUNK = 1 << 20
# What object stores call the digest, or version, of an object.
_ETAGS = ("ETag", "etag", "md5Hash", "content_md5")
_DATES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
_PARQUET_MARK = b"PAR1"


class SeenFile(NamedTuple):
    """A file as a listing shows it.

    Attributes:
        path: of it.
        size: in bytes; -1 where the store does not say.
        stamp: ETag or date of modification, which change when the file is written again.
        modified: when it was, as far as that is known.
    """

    path: UPath
    size: int
    stamp: str
    modified: datetime | None


class Source(NamedTuple):
    """The files behind some locations, as they were when somebody looked.

    Attributes:
        files: in the order of their locations and names.
        unseen: locations that cannot be looked at, such as a database: they may have changed at any time.
    """

    files: Sequence[SeenFile]
    unseen: Sequence[str] = ()

    @property
    def fingerprint(self) -> str:
        """Changes when a file comes, goes, or is written again."""
        return digest([[str(file.path), file.size, file.stamp] for file in self.files])

    def content(self) -> str:
        """Changes when the content of a file does; empty where it would take long to say.

        Raises:
            InputError: a file is gone.
        """
        if not self.files or self.unseen or not all(is_local(file.path) for file in self.files):
            return ""
        if sum(file.size for file in self.files) > MOST_HASHED_BYTES:
            return ""
        return digest([[file.path.name, sha256_of(file.path)] for file in self.files])

    def told(self) -> str:
        """How many files, and of when, for people."""
        dates = [file.modified for file in self.files if file.modified]
        when = f" of {max(dates).isoformat(sep=' ', timespec='seconds')}" if dates else ""
        return f"{self.files[0].path}{when}" if len(self.files) == 1 else f"{len(self.files):,} files{when}"


def seen(locations: Iterable[str]) -> Source:
    """The files behind these locations; the empty location has none.

    Raises:
        InputError: a location has none, or cannot be looked at.
    """
    files: list[SeenFile] = []
    unseen: list[str] = []
    for location in filter(None, locations):
        if location.startswith(("postgresql:", "postgres:")):
            unseen.append(location)
            continue
        with naming(location):
            # Another process may have written what an object store's list of yesterday does not show.
            opened_location(location).fs.invalidate_cache()
            files += [_seen_file(path) for path in files_behind(location)[0]]
    return Source(files, unseen)


def _seen_file(path: UPath) -> SeenFile:
    if is_local(path):
        found = path.stat()
        when = datetime.fromtimestamp(found.st_mtime, UTC)
        return SeenFile(path, found.st_size, str(found.st_mtime_ns), when)
    info = path.fs.info(path.path)
    etag = next((info[name] for name in _ETAGS if info.get(name)), None)
    date = next((info[name] for name in _DATES if info.get(name)), None)
    size = info.get("size")
    return SeenFile(
        path,
        -1 if size is None else int(size),
        str(etag or date),
        date if isinstance(date, datetime) else None,
    )


class Watched(NamedTuple):
    """The files that a step reads, seen before it did.

    Attributes:
        locations: of them.
        before: what they were then.
    """

    locations: Sequence[str]
    before: Source

    def tags(self) -> dict[str, str]:
        """What a materialization says of the files that it was made from.

        What was written again while the step read it is not what is there now, and the next look finds that.
        """
        tags = {SOURCE_TAG: self.before.fingerprint}
        if (content := self.before.content()) and seen(self.locations).fingerprint == self.before.fingerprint:
            tags[CONTENT_TAG] = content
        return tags


def watched(locations: Iterable[str]) -> Watched:
    """Look at files before they are read.

    Raises:
        InputError: as `seen`.
    """
    given = list(locations)
    return Watched(given, seen(given))


def locations_in(config: BaseModel) -> list[str]:
    """The values of the fields of a configuration that name files to read."""
    kinds = OptionalLocation.__metadata__  # type: ignore[attr-defined]  # of what Annotated returns
    return [
        str(getattr(config, name))
        for name, field in type(config).model_fields.items()
        if any(kind in field.metadata for kind in kinds) and getattr(config, name)
    ]


def unfinished(source: Source) -> str:
    """Why a file cannot be whole yet, such as an upload that has stopped half-way; empty if all may be.

    A gzip file must reach its end, and a Parquet file must end as one. Nothing can be said of plain CSV, nor
    of gzip files that are too large to be gone through.
    """
    for file in source.files:
        name = file.path.name.lower()
        try:
            if (
                name.endswith(".gz")
                and file.size <= MOST_HASHED_BYTES // 8
                and not _reaches_its_end(file.path)
            ):
                return f"{file.path} ends early"
            if name.endswith(".parquet") and not _ends_as_parquet(file.path, file.size):
                return f"{file.path} does not end as a Parquet file does"
        except FileNotFoundError:
            return f"{file.path} is gone"
    return ""


def _reaches_its_end(path: UPath) -> bool:
    with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as file:
        try:
            while file.read(_CHUNK):
                pass
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return False
    return True


def _ends_as_parquet(path: UPath, size: int) -> bool:
    if size < 2 * len(_PARQUET_MARK):
        return False
    with path.open("rb") as file:
        file.seek(-len(_PARQUET_MARK), 2)
        return bool(file.read() == _PARQUET_MARK)
