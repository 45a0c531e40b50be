"""Every asset's tables, replaced all at once.

A state is a folder that never changes once it is there: the tables of one materialization and a manifest
with the size and SHA-256 of each file. Its name is a digest of the manifest, so that a state is verified by
its own name. `current` names the state that readers get:

- on a local file system a symbolic link, replaced by one rename; plain paths such as
  `bm25_matrix/users.parquet` or `grid_search_results.parquet` are links that lead through it, for pandas,
  DuckDB and people;
- on an object store, which knows no links, a small object `current.json`.

The state before stays until the next replacement, for readers that are still at it; not where users are to be
forgotten, who may be in it.
"""

import errno
import hashlib
import json
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, TypeVar

from upath import UPath

from recsys_pipeline.core.errors import InputError, naming
from recsys_pipeline.storage.atomic import (
    atomic_file,
    fetched,
    is_local,
    local_path,
    put_folder,
    replace_link,
    staging_folder,
    sweep,
)
from recsys_pipeline.storage.conditional import see
from recsys_pipeline.storage.lock import exclusive

FOLDER = ".tables"
_MANIFEST = "manifest.json"
_CURRENT = "current"
_POINTER = "current.json"
_FORMAT = 1
_WRITE_ID = re.compile("[0-9a-f]{32}")
_ATTEMPTS = 5
_LONGEST_UPLOAD = timedelta(days=1)

T = TypeVar("T")


class States:
    """The states of one asset."""

    def __init__(self, warehouse: UPath, asset: str) -> None:
        self.asset = asset
        self._root = warehouse
        self._folder = warehouse / FOLDER / asset

    @contextmanager
    def replacing(self, *, keep_before: bool = True) -> Iterator[Path]:
        """Yield a local folder for the files of a new state; readers get it when the block ends."""
        with staging_folder(self._folder / "new") as staged:
            yield staged
            self._put(staged, keep_before)

    def _put(self, staged: Path, keep_before: bool) -> None:
        files = sorted(path for path in staged.rglob("*") if path.is_file())
        manifest = {
            "format": _FORMAT,
            "asset": self.asset,
            "files": {path.relative_to(staged).as_posix(): _stamp(path) for path in files},
        }
        text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
        (staged / _MANIFEST).write_text(text, encoding="utf-8")
        write_id = _write_id(text.encode())
        state = self._folder / write_id
        with exclusive(self._folder):
            before = self._before()
            if not self._is_whole(write_id):
                self._remove(state)
                put_folder(staged, state)
            self._point_to(write_id)
            self._remove_all_but({write_id, before})
            if not keep_before and before and before != write_id:
                self._remove(self._folder / before)

    def _before(self) -> str | None:
        try:
            return self.current()
        except InputError:
            return None  # damaged, and about to be replaced

    def _is_whole(self, write_id: str) -> bool:
        """Whether this very state is there already, from an earlier run on the same input."""
        try:
            self._verified(write_id, self._folder / write_id)
        except (InputError, FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _point_to(self, write_id: str) -> None:
        if not is_local(self._folder):
            with atomic_file(self._folder / _POINTER) as pointer:
                pointer.write_text(json.dumps({"write_id": write_id}) + "\n", encoding="utf-8")
            return
        replace_link(local_path(self._folder) / _CURRENT, write_id)
        state = local_path(self._folder / write_id)
        names = {path.name for path in state.iterdir() if not path.name.startswith(".")} - {_MANIFEST}
        root = local_path(self._root)
        # Tables beside one of the asset's own name lie in the warehouse itself, others in a folder.
        if f"{self.asset}.parquet" in names:
            through = f"{FOLDER}/{self.asset}/{_CURRENT}/"
            for name in names:
                replace_link(root / name, through + name)
            for path in list(root.iterdir()):
                if path.is_symlink() and path.name not in names and os.readlink(path).startswith(through):
                    path.unlink()  # of a table that the asset no longer has
        else:
            up = "../" * self.asset.count("/")
            replace_link(root / self.asset, f"{up}{FOLDER}/{self.asset}/{_CURRENT}")

    def _remove_all_but(self, kept: set[str | None]) -> None:
        if is_local(self._folder):
            sweep(local_path(self._folder))
            sweep(local_path(self._root))
        for path in list(self._folder.iterdir()):
            if _WRITE_ID.fullmatch(path.name) and path.name not in kept and self._is_settled(path):
                # What cannot be removed now goes another time; the work is done.
                with suppress(Exception):
                    self._remove(path)

    def _is_settled(self, state: UPath) -> bool:
        """Whether nobody can be writing this state any more.

        An object store has no locks: there another run may be about to point to what it has just written.
        """
        if is_local(state):
            return True
        try:
            latest = max(state.fs.modified(file) for file in state.fs.find(state.path))
        except (OSError, ValueError, NotImplementedError):
            return False
        if latest.tzinfo is None:
            latest = latest.replace(tzinfo=UTC)
        return bool(datetime.now(UTC) - latest > _LONGEST_UPLOAD)

    def _remove(self, path: UPath) -> None:
        if not path.exists():
            return
        if is_local(path):
            # All at once, so that who lists the files of a table finds all of them or none.
            with staging_folder(path) as aside:
                os.rename(local_path(path), aside / path.name)
        else:
            path.fs.rm(path.path, recursive=True)

    def current(self) -> str | None:
        """The write id of the state that readers get; None where there is none.

        Raises:
            InputError: what names it is damaged.
        """
        name = _CURRENT if is_local(self._folder) else _POINTER
        try:
            if is_local(self._folder):
                write_id = (local_path(self._folder) / name).readlink().name
            else:
                content = see(self._folder / name).content
                if content is None and not (self._folder / name).exists():
                    return None
                write_id = json.loads(content or b"")["write_id"]
            if isinstance(write_id, str) and _WRITE_ID.fullmatch(write_id):
                return write_id
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError, IsADirectoryError):
            pass
        except OSError as error:
            # A folder or file in place of the link, as some ways of copying a warehouse leave it.
            if error.errno != errno.EINVAL:
                raise
        raise InputError(
            f"{self._folder / name} does not name a state as it should: materialize the asset "
            f"`{self.asset}` again."
        )

    def folder(self) -> UPath | None:
        """The folder of the state that readers get, not verified; None where there is none."""
        write_id = self.current()
        return self._folder / write_id if write_id else None

    def exists(self) -> bool:
        """Whether there is a state to read."""
        return self.current() is not None

    def plain_path(self, name: str | None = None) -> UPath:
        """Where readers without this package find the asset's folder or table, or one of its tables."""
        root = self._root
        folder = root / self.asset
        if not is_local(root):
            root = folder = self._folder / (self.current() or _CURRENT)
        in_folder = not (root / f"{self.asset}.parquet").exists() and folder.exists()
        if in_folder:
            return folder / f"{name}.parquet" if name else folder
        return root / f"{name or self.asset}.parquet"

    def read(self, reader: Callable[[UPath, list[str]], T]) -> tuple[T, str]:
        """What `reader` makes of the current state, verified, and its write id.

        Args:
            reader: given the folder of the state and the names of its tables; it reads one whole state, also
                while that is replaced. Of an object store the folder is a copy on this machine, which is
                fetched once and is gone when the reader returns.

        Raises:
            InputError: there is no state, or it is not what was written.
        """
        for attempt in range(_ATTEMPTS):
            write_id = self.current()
            if write_id is None:
                raise self._unusable("does not exist")
            try:
                with naming(self._root / self.asset), fetched(self._folder / write_id) as folder:
                    return reader(UPath(folder), self._verified(write_id, UPath(folder))), write_id
            except (FileNotFoundError, NotADirectoryError) as error:
                # Replaced twice while it was read: there is a newer one.
                if self.current() == write_id or attempt == _ATTEMPTS - 1:
                    raise self._unusable(f"lacks {error.filename or error}") from None
        raise AssertionError

    def files(self, write_id: str) -> dict[str, UPath]:
        """By name, the files of a state, not verified.

        Raises:
            InputError: it is not there.
        """
        state = self._folder / write_id
        try:
            manifest = json.loads((state / _MANIFEST).read_bytes())
            return {name: state / name for name in manifest["files"]}
        except (OSError, ValueError, KeyError, TypeError):
            raise self._unusable(f"lacks its state {write_id}") from None

    def _verified(self, write_id: str, folder: UPath) -> list[str]:
        """The names of the tables of a state whose files are those that were written.

        Args:
            write_id: of the state.
            folder: where its files are, or a copy of them.

        Raises:
            InputError: one is not; the message names it.
            FileNotFoundError: one is missing.
        """
        state = self._folder / write_id
        found = _regular_files(folder)
        content = _existing(folder, _MANIFEST, found).read_bytes()
        if _write_id(content) != write_id:
            raise self._damaged(state / _MANIFEST)
        files: dict[str, list[Any]] = json.loads(content)["files"]
        for name, stamp in files.items():
            if _stamp(_existing(folder, name, found)) != stamp:
                raise self._damaged(state / name)
        for name in sorted(found - {*files, _MANIFEST}):
            # Readers of Parquet folders skip such names; file managers leave them everywhere.
            if not PurePosixPath(name).name.startswith((".", "_")):
                raise InputError(
                    f"{state / name} was put there by another program. Remove it, or materialize the asset "
                    f"`{self.asset}` again."
                )
        parts = (PurePosixPath(name).parts[0] for name in files)
        return sorted({part.removesuffix(".parquet") for part in parts})

    def _unusable(self, what: str) -> InputError:
        return InputError(f"{self._root / self.asset} {what}: materialize the asset `{self.asset}` again.")

    def _damaged(self, path: UPath) -> InputError:
        return InputError(
            f"{path} is not what was written, its SHA-256 differs: the disk or another program changed it. "
            f"Materialize the asset `{self.asset}` again."
        )


def stated_sha256(file: UPath) -> str | None:
    """What the manifest of a state says of one of its files; None for a file of no state."""
    state = file.parent
    if not _WRITE_ID.fullmatch(state.name):
        return None
    content = (state / _MANIFEST).read_bytes()
    if _write_id(content) != state.name:
        return None
    stamp = json.loads(content)["files"].get(file.name)
    return str(stamp[1]) if stamp else None


def _regular_files(folder: UPath) -> set[str]:
    """The paths within a folder of its files; no pipe, which never ends, and no device."""
    if not is_local(folder):
        return {posixpath.relpath(path, folder.path) for path in folder.fs.find(folder.path)}

    def fail(error: OSError) -> NoReturn:
        raise error

    root = local_path(folder)
    walked = os.walk(root, onerror=fail)
    paths = (Path(parent, name) for parent, _, names in walked for name in names)
    return {path.relative_to(root).as_posix() for path in paths if path.is_file()}


def _existing(state: UPath, name: str, found: set[str]) -> UPath:
    if name not in found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(state / name))
    return state / name


def _write_id(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()[:32]


def _stamp(path: Path | UPath) -> list[Any]:
    """Size and SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        # Not where reading ended: of a file in memory the digest is taken without reading.
        return [file.seek(0, os.SEEK_END), digest]
