"""Publishing releases: the pointer is replaced last, and only by somebody who has seen what it says.

Of two writers one wins, and the other is told so.
"""

import hashlib
import os
import pickle
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from upath import UPath

from recsys_pipeline.core.errors import InputError, naming
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
from recsys_pipeline.storage.lock import exclusive
from recsys_pipeline.storage.releases import (
    FOLDER,
    FORMAT,
    FORMER_FOLDER,
    MANIFEST,
    PICKLE,
    POINTER,
    Hold,
    Pointer,
    ReleaseFolder,
    current_release,
    is_version,
    json_bytes,
    pointer_in,
    problems_of,
    read_pointer,
    see_pointer,
)
from recsys_pipeline.storage.states import stated_sha256
from recsys_pipeline.storage.verified import read_small, sha256_of, shown, verified

if TYPE_CHECKING:
    from implicit.cpu.als import AlternatingLeastSquares

_LONGEST_UPLOAD = timedelta(days=1)
_TIME = "%Y%m%dT%H%M%S%fZ"


class Retention(NamedTuple):
    """Which releases stay, beside the current one and the one before it, which always do.

    Attributes:
        keep: so many of the newest.
        most_days: those that are older go; 0 for no limit.
    """

    keep: int = 7
    most_days: float = 0.0


def publish(
    warehouse: UPath,
    files: Mapping[str, UPath],
    documents: Mapping[str, bytes],
    manifest: Mapping[str, Any],
    *,
    seen: Seen,
    retention: Retention,
    unwanted: Collection[str] = (),
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
        unwanted: releases that go, whatever the retention says.

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
            **{name: stated_sha256(path) or sha256_of(path) for name, path in files.items()},
            **{name: hashlib.sha256(content).hexdigest() for name, content in documents.items()},
        }
        with exclusive(store):
            pointer = _pointer_in(store, seen)
            there = _versions(store)
            # Nothing is removed on the word of a pointer that is missing or damaged.
            published = [
                each
                for each in there
                if each not in unwanted and (not (pointer and pointer.published) or each in pointer.published)
            ]
            now = datetime.now(UTC)
            name = _later_than(there, now)
            content = json_bytes(
                {
                    "format": FORMAT,
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
                previous = (
                    pointer.version if pointer and pointer.version in set(there) - set(unwanted) else None
                )
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
            for each in unwanted:
                _remove(store / each)
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
        return pointer_in(store / POINTER, seen.content) if seen.content is not None else None
    except InputError:
        return None


def moved_meanwhile(store: UPath, now: Seen) -> InputError:
    """The error of the one of two writers who came too late."""
    by = "nothing"
    with suppress(InputError):
        by = pointer_in(store / POINTER, now.content or b"").version
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
    return sorted(path.name for path in there if is_version(path.name))


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
        if is_version(name) and name not in kept and (name < kept[0] or name < abandoned):
            _remove(path)


def _remove(release: UPath) -> None:
    # What cannot be removed now goes another time.
    with suppress(Exception):
        release.fs.rm(release.path, recursive=True)


def adopt_former(warehouse: UPath) -> None:
    """Let releases be what a version of this package before releases published; it stays readable."""
    former = local_path(warehouse / FORMER_FOLDER)
    store = local_path(warehouse / FOLDER)
    if (former / POINTER).is_file() and not former.is_symlink() and not store.exists():
        os.rename(former, store)
        flush(store.parent)


def roll_back(
    warehouse: UPath,
    to: str | None,
    reason: str,
    *,
    is_unwanted: Callable[[ReleaseFolder], bool] = lambda _: False,
) -> Pointer:
    """Point to an earlier release, at once, and hold back new ones until `resume`.

    Args:
        warehouse: its root.
        to: the release; None for the one before the current one. To the one that was rolled back to already
            changes nothing, so that who was interrupted may say the same again.
        reason: kept with the hold.
        is_unwanted: whether a release has users who are to be forgotten.

    Returns:
        What the pointer says now.

    Raises:
        InputError: there is no such release, it is not whole or has users who are to be forgotten; or the
            pointer moved meanwhile.
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
    if is_unwanted(folder):
        raise InputError(
            f"{to} has users who are to be forgotten (RECSYS_FORGET_USERS), so nothing was changed: name a "
            "later release, or materialize the assets again."
        )
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
