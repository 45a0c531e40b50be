"""What may happen to a warehouse with two releases: damaged files, races, rollbacks, clocks that go back."""

import functools
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, NamedTuple, Self
from unittest import mock

from upath import UPath

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.storage import publishing, releases
from recsys_pipeline.storage.conditional import Seen
from recsys_pipeline_tests.faults.injection import READ_ONLY, STOPPED, Fork, Kind, in_fork, must
from recsys_pipeline_tests.faults.shop import NOTEBOOKS_FILE, Shop

_MODEL = {"manifest.json", "user_factors.arrow", "item_factors.arrow", "user_items.arrow"}
# For what waits for a lock that the process which is stopped holds; and for what does not wait.
_WAIT_SECONDS, _MOST_SECONDS = 0.5, 60.0
_DEFAULT_RETENTION = publishing.Retention()
_MOVED = "was moved by another run or a rollback meanwhile"


class Case(NamedTuple):
    """A fault.

    Attributes:
        group: what kind of fault it is, as the printed table says.
        name: of this very one.
        check: let it happen to a shop with two releases, and assert what holds then.
    """

    group: str
    name: str
    check: Callable[[Shop], None]


def cases(shop: Shop, every: int) -> Iterator[Case]:
    """All of them, for a shop with two releases; in the middle of a release, at every n-th operation."""
    current = shop.releases / shop.pointer().version
    for number, file in enumerate(sorted(path.name for path in current.iterdir())):
        for place, (how, damage) in enumerate(_DAMAGES.items()):
            # To heal takes twenty times as long as to refuse: of a sample, one damage of each file.
            heals = every == 1 or number % len(_DAMAGES) == place
            check = functools.partial(_of_current, name=file, damage=damage, heals=heals)
            yield Case(f"a file of the current release, {how}", file, check)
    for file in ("manifest.json", "item_factors.arrow"):
        check = functools.partial(_of_release_before, name=file)
        yield Case("a file of the release before, one flipped byte", file, check)
    for name, damaged in _pointers(shop).items():
        yield Case("the pointer damaged or lost", name, functools.partial(_pointer, content=damaged))
    yield Case("the folder that the pointer names deleted", "", _no_folder)
    yield Case("a warehouse that is read-only", "readers, a rollback, a run", _read_only)
    publish = _publish(shop, releases.see_pointer(UPath(shop.warehouse)))
    for number, (group, work, check) in enumerate(
        (
            ("another run in the middle of a release", shop.run("release"), _another_run),
            ("another release in the middle of one", publish, _another_release),
            ("a rollback in the middle of a release", shop.run("release"), _rollback_meanwhile),
        )
    ):
        n_operations = _operations(shop, work)
        # Of a sample too, each has at least one.
        for at in range(1 + number * every // 3 % n_operations, n_operations + 1, every):
            yield Case(group, f"operation {at}", functools.partial(check, at=at))
    yield Case("a clock that goes backwards", "order and number", _clock_goes_back)
    yield Case("a clock that goes backwards", "age", _clock_goes_back_and_old_releases_go)


def _operations(shop: Shop, work: Callable[[], Any]) -> int:
    """At how many operations this work can be stopped; the shop stays as it is."""
    kept = shop.copied_to(shop.folder.with_name(f"{shop.folder.name}-kept"))
    counting = Kind("counted", 0, STOPPED.operations)
    n_operations = in_fork(work, shop.folder, counting).operations
    kept.copied_to(shop.folder)
    return n_operations


# --- Damaged files ---


def _truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flipped(content: bytes, place: int | None = None) -> bytes:
    place = len(content) // 2 if place is None else place
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def _damage(file: Path, damage: Callable[[bytes], bytes]) -> None:
    """In place, so that the disk of whatever is linked to it is damaged too."""
    content = damage(file.read_bytes())
    file.write_bytes(content)


_DAMAGES: dict[str, Callable[[bytes], bytes]] = {"truncated": _truncated, "one flipped byte": _flipped}


def _of_current(shop: Shop, name: str, damage: Callable[[bytes], bytes], heals: bool) -> None:
    before, _ = shop.versions()
    file = shop.releases / shop.pointer().version / name
    _damage(file, damage)

    loaded = in_fork(shop.load, shop.folder).value
    assert str(file) in loaded.get("failed", "") or name not in _MODEL, f"not refused: {loaded}"
    verified = in_fork(shop.recsys("releases", "verify"), shop.folder).value
    assert str(file) in verified.get("failed", ""), f"not named: {verified}"

    must(in_fork(shop.recsys("releases", "rollback", before), shop.folder))
    assert must(in_fork(shop.load, shop.folder)) == {"version": before}
    must(in_fork(shop.recsys("releases", "resume"), shop.folder))
    if not heals:
        return

    # A run of the release alone heals what is of the release alone, or says what to materialize.
    again = in_fork(shop.run("release"), shop.folder).value
    if again:
        assert "aterialize the asset" in again["failed"], again["failed"]
        assert must(in_fork(shop.load, shop.folder)) == {"version": before}
        must(in_fork(shop.run(), shop.folder))
    _assert_whole(shop)
    assert shop.pointer().version > file.parent.name


def _of_release_before(shop: Shop, name: str) -> None:
    before, current = shop.versions()
    file = shop.releases / before / name
    _damage(file, _flipped)

    refused = in_fork(shop.recsys("releases", "rollback"), shop.folder).value
    assert str(file) in refused.get("failed", ""), f"not named: {refused}"
    assert shop.pointer().version == current
    _assert_whole(shop)
    must(in_fork(shop.run("release"), shop.folder))
    _assert_whole(shop)


def _assert_whole(shop: Shop) -> None:
    """What readers get, in both ways, is the current release, each of whose files is what was published."""
    seen = must(in_fork(shop.seen, shop.folder))
    assert seen["release"].startswith(seen[NOTEBOOKS_FILE]), "the notebook's file is of another release"
    must(in_fork(shop.recsys("releases", "verify"), shop.folder))


# --- The pointer ---


def _pointers(shop: Shop) -> dict[str, bytes | None]:
    content = (shop.releases / releases.POINTER).read_bytes()
    flipped = {}
    for field in ("version", "manifest_sha256", "published", "previous", "hold"):
        for what, offset in {"name": 1, "value": len(field) + 12}.items():
            place = content.index(f'"{field}"'.encode()) + offset
            flipped[f"{what} of {field}"] = _flipped(content, place)
    return {"lost": None, "empty": b"", "truncated": _truncated(content), **flipped}


def _pointer(shop: Shop, content: bytes | None) -> None:
    before, current = shop.versions()
    path = shop.releases / releases.POINTER
    path.unlink() if content is None else path.write_bytes(content)

    loaded = in_fork(shop.load, shop.folder).value
    assert str(shop.warehouse) in loaded.get("failed", "") or loaded == {"version": current}, loaded
    # Who does not name a release is told which there are; nobody has to edit the pointer.
    if "failed" in loaded:
        refused = in_fork(shop.recsys("releases", "rollback"), shop.folder).value
        assert f"{before}, {current}" in refused["failed"], refused
    must(in_fork(shop.recsys("releases", "rollback", before), shop.folder))
    assert must(in_fork(shop.load, shop.folder)) == {"version": before}

    path.unlink() if content is None else path.write_bytes(content)
    must(in_fork(shop.run("release"), shop.folder))
    _assert_whole(shop)
    # Two are kept; which ones, nobody had to read in the pointer.
    assert shop.versions()[0] == current


def _no_folder(shop: Shop) -> None:
    before, current = shop.versions()
    (shop.releases / current).rename(shop.folder / "gone")

    refused = in_fork(shop.load, shop.folder).value
    assert str(shop.releases / current) in refused.get("failed", ""), refused
    must(in_fork(shop.recsys("releases", "rollback"), shop.folder))
    _assert_whole(shop)
    assert shop.pointer().version == before
    must(in_fork(shop.recsys("releases", "resume"), shop.folder))
    must(in_fork(shop.run("release"), shop.folder))
    _assert_whole(shop)
    assert shop.pointer().version > current


def _read_only(shop: Shop) -> None:
    before = shop.litter(), shop.pointer(), must(in_fork(shop.seen, shop.folder))

    assert must(in_fork(shop.seen, shop.folder, READ_ONLY, 1)) == before[-1]
    for command in ("list", "show", "verify"):
        must(in_fork(shop.recsys("releases", command), shop.folder, READ_ONLY, 1))
    for work in (shop.recsys("releases", "rollback"), shop.recsys("releases", "resume"), shop.run()):
        told = in_fork(work, shop.folder, READ_ONLY, 1).value.get("failed", "")
        assert "ead-only file system" in told, told
        assert str(shop.warehouse) in told, told
        assert "\n" not in told, told
    assert (shop.litter(), shop.pointer(), must(in_fork(shop.seen, shop.folder))) == before


# --- Two at once ---


def _in_the_middle(
    work: Callable[[], Any], shop: Shop, at: int, meanwhile: Callable[[], Any], most_seconds: float
) -> tuple[dict[str, str], dict[str, str]]:
    """What comes of work that is stopped at one of its operations, and of what another process does then.

    The other one goes on to its end beside the first one if it has not come to it after so many seconds.
    """
    stopped = Fork(work, shop.folder, STOPPED, at)
    stopped.wait_until_stopped()
    other = Fork(meanwhile, shop.folder)
    other.ends_within(most_seconds)
    stopped.go_on()
    return stopped.outcome().value, other.outcome().value


def _another_run(shop: Shop, at: int) -> None:
    ours, theirs = _in_the_middle(
        shop.run("release"), shop, at, shop.run("release", lock_seconds=0), _MOST_SECONDS
    )
    # Only before the first one has begun, and when it is done, can there be another one.
    refused = theirs.get("failed", "")
    assert ours == {}, ours
    assert not refused or "is in use by run" in refused, refused
    _assert_whole(shop)
    assert shop.versions() == shop.pointer().published


def _another_release(shop: Shop, at: int) -> None:
    seen = releases.see_pointer(UPath(shop.warehouse))
    both = _in_the_middle(_publish(shop, seen), shop, at, _publish(shop, seen), _WAIT_SECONDS)

    (refused,) = [told["failed"] for told in both if "failed" in told]
    (version,) = [told["version"] for told in both if "version" in told]
    assert _MOVED in refused, refused
    assert version in refused, refused
    assert shop.pointer().version == version
    assert len(shop.versions()) == 3
    _assert_whole(shop)


def _rollback_meanwhile(shop: Shop, at: int) -> None:
    before, current = shop.versions()
    rollback = shop.recsys("releases", "rollback")
    run, rolled_back = _in_the_middle(shop.run("release"), shop, at, rollback, _WAIT_SECONDS)

    _assert_whole(shop)
    pointer = shop.pointer()
    if "failed" in rolled_back:
        assert run == {}, run
        assert _MOVED in rolled_back["failed"], rolled_back
        return
    assert pointer.hold is not None, "the rollback was undone"
    if run:
        assert pointer.version == before
        assert _MOVED in run["failed"] or "rolled back" in run["failed"], run
    else:
        assert pointer.version == current
        assert pointer.hold.rolled_back_from > current
    refused = in_fork(shop.run("release"), shop.folder).value
    assert "`recsys releases resume` ends that" in refused.get("failed", ""), refused
    must(in_fork(shop.recsys("releases", "resume"), shop.folder))
    must(in_fork(shop.run("release"), shop.folder))
    _assert_whole(shop)
    assert shop.versions() == shop.pointer().published


def _publish(
    shop: Shop, seen: Seen, retention: publishing.Retention = _DEFAULT_RETENTION
) -> Callable[[], dict[str, str]]:
    """What was released last, released again as if the pointer still said what was seen."""

    def work() -> dict[str, str]:
        release = releases.current_release(shop.warehouse)
        manifest = releases.read_manifest(release)
        files = {name: release.path / name for name in manifest["files"]}
        told = {name: manifest[name] for name in set(manifest) - {"format", "version", "created", "files"}}
        try:
            folder = publishing.publish(
                UPath(shop.warehouse), files, {}, told, seen=seen, retention=retention
            )
        except InputError as error:
            return {"failed": str(error)}
        return {"version": folder.name}

    return work


# --- The clock ---


def _with_clock(days: int, work: Callable[[], dict[str, str]]) -> Callable[[], dict[str, str]]:
    """Work on a machine whose clock is wrong by so many days."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(days=days)

    def beside() -> dict[str, str]:
        with mock.patch.object(publishing, "datetime", Clock):
            return work()

    return beside


def _clock_goes_back(shop: Shop) -> None:
    for days in (0, -3, -1, 2, -30):
        last = shop.pointer().version
        must(in_fork(_with_clock(days, shop.run("release")), shop.folder))
        version = shop.pointer().version
        assert version > last, f"{version} after {last}"
        assert shop.versions() == shop.pointer().published == [last, version]
        _assert_whole(shop)


def _clock_goes_back_and_old_releases_go(shop: Shop) -> None:
    young = publishing.Retention(keep=7, most_days=1)
    for days, n_releases in {0: 3, -5: 4, -4: 5, 10: 2}.items():
        seen = releases.see_pointer(UPath(shop.warehouse))
        version = must(in_fork(_with_clock(days, _publish(shop, seen, young)), shop.folder))["version"]
        assert shop.pointer().version == version == shop.versions()[-1]
        assert len(shop.versions()) == n_releases, f"{days} days: {shop.versions()}"
        _assert_whole(shop)
