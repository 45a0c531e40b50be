"""`python -m recsys_pipeline_tests.faults`: disturb runs, one fault each, and tell how they were survived.

After each fault a reader must get whole tables and a whole model, of the run before or of this one; the next
run must succeed, give what an undisturbed one gives, and leave nothing behind. A fault that is no kill must
also end in one clear sentence, or be survived at once.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from recsys_pipeline_tests.faults.injection import (
    DISK_FULL,
    INTERRUPTED,
    IO_ERROR,
    KILLED,
    READ_ONLY,
    TERMINATED,
    Kind,
    Operations,
    in_fork,
    must,
    preload,
)
from recsys_pipeline_tests.faults.released import cases
from recsys_pipeline_tests.faults.shop import ASSETS, Shop, prepare, upstream

_YESTERDAY, _TODAY = 1, 2
_KINDS = (KILLED, DISK_FULL, READ_ONLY, IO_ERROR)
_SIGNALS = (TERMINATED, INTERRUPTED)
_WHOLE_GRAPH, _ROLLBACK, _RELEASED = "whole graph", "rollback", "a released warehouse"
_NAMES = [*ASSETS, _WHOLE_GRAPH, _ROLLBACK, _RELEASED]
_LANES = 2
_MOST_LETTERS = 500


class Scene(NamedTuple):
    """Something to disturb, and what comes of it when nobody does.

    Attributes:
        name: the asset, the whole graph, or a command.
        kinds: the faults.
        work: what is disturbed, and done again afterwards.
        before: the shop as it is before.
        old: what readers see before.
        new: what they see afterwards.
        clean: what lies about at most after doing it once and twice, undisturbed.
        counted: how many operations of these kinds it takes.
    """

    name: str
    kinds: tuple[Kind, ...]
    work: Callable[[Shop], Callable[[], dict[str, str]]]
    before: Shop
    old: dict[str, str]
    new: dict[str, str]
    clean: dict[str, int]
    counted: dict[Operations, int]


class Fault(NamedTuple):
    """One fault.

    Attributes:
        of: what is disturbed.
        kind: of fault.
        name: of this very fault.
        complaint: given a folder that may be replaced, what is wrong afterwards; empty for nothing.
    """

    of: str
    kind: str
    name: str
    complaint: Callable[[Path], str]


def main() -> int:
    """Disturb, and print two tables."""
    arguments = argparse.ArgumentParser(prog="python -m recsys_pipeline_tests.faults")
    arguments.add_argument("--every", type=int, default=1, help="inject every n-th fault")
    arguments.add_argument("--assets", nargs="*", default=_NAMES, choices=_NAMES, help="what to disturb")
    chosen = arguments.parse_args()
    signal.signal(signal.SIGALRM, _too_late)
    preload()
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        begin = time.monotonic()
        prepare(folder / "prepared")
        faults = list(_faults(folder / "scenes", chosen.assets, chosen.every))
        complaints = _in_lanes(faults, folder)
    _print_table([(fault.of, fault.kind) for fault in faults], complaints)
    for complaint in filter(None, complaints):
        print(complaint)
    n_survived = complaints.count("")
    print(f"{len(faults):,} faults injected, {n_survived:,} survived, {time.monotonic() - begin:.0f} s")
    return 0 if faults and n_survived == len(faults) else 1


def _too_late(*_: object) -> None:
    raise TimeoutError


def _faults(folder: Path, names: list[str], every: int) -> Iterator[Fault]:
    """All of the scenes and cases, each on a warehouse of yesterday with everything upstream of today."""
    yesterday = Shop(folder / "yesterday").open(_YESTERDAY)
    # Everything, or what the chosen runs need and make.
    needed = {each for name in names if name in ASSETS for each in (*upstream(name), name)}
    made = [asset for asset in ASSETS if asset in needed] if set(names) <= set(ASSETS) else []
    must(in_fork(yesterday.run(*made), yesterday.folder))
    today = yesterday.copied_to(folder / "today").open(_TODAY)
    done: list[str] = []
    nth = Nth(every)
    # In the order of the graph, so that what is upstream is made once.
    for name in (name for name in _NAMES if name in names):
        wanted = [] if name == _WHOLE_GRAPH else upstream(name) if name in ASSETS else list(ASSETS)
        if missing := [asset for asset in wanted if asset not in done]:
            must(in_fork(today.run(*missing), today.folder))
            done += missing
        before = (today if wanted else yesterday).copied_to(folder / name.replace(" ", "_")).open(_TODAY)
        if name == _RELEASED:
            for case in cases(before, every):
                yield Fault(name, case.group, case.name, _of_case(case.check, before))
        else:
            yield from _of_scene(_scene(name, before, folder), nth)


def _scene(name: str, before: Shop, folder: Path) -> Scene:
    kinds = _KINDS
    if name == _ROLLBACK:
        version = before.versions()[0]
        kinds = (*_KINDS, *_SIGNALS)

        def work(shop: Shop) -> Callable[[], dict[str, str]]:
            return shop.recsys("releases", "rollback", version)
    else:
        assets = [] if name == _WHOLE_GRAPH else [name]
        kinds = (*_KINDS, *_SIGNALS) if name == "release" else _KINDS

        def work(shop: Shop) -> Callable[[], dict[str, str]]:
            return shop.run(*assets)

    undisturbed = before.copied_to(folder / "undisturbed")
    old = must(in_fork(undisturbed.seen, undisturbed.folder))
    clean: dict[str, int] = {}
    counted: dict[Operations, int] = {}
    first, *others = dict.fromkeys(kind.operations for kind in kinds)
    for operations in (first, Operations.none):
        undisturbed_run = in_fork(work(undisturbed), undisturbed.folder, Kind("counted", 0, operations))
        must(undisturbed_run)
        counted[operations] = undisturbed_run.operations
        for path, count in undisturbed.litter().items():
            clean[path] = max(count, clean.get(path, 0))
    new = must(in_fork(undisturbed.seen, undisturbed.folder))
    for operations in others:
        shop = before.copied_to(folder / "counted")
        counted[operations] = in_fork(work(shop), shop.folder, Kind("counted", 0, operations)).operations
    return Scene(name, kinds, work, before, old, new, clean, counted)


class Nth:
    """Every n-th of all operations, through whatever they belong to."""

    def __init__(self, every: int) -> None:
        self._every, self._next = every, 1

    def of(self, n_operations: int) -> range:
        """Those of the next so many operations, from 1 on."""
        chosen = range(self._next, n_operations + 1, self._every)
        self._next = (self._next - n_operations - 1) % self._every + 1
        return chosen


def _of_scene(scene: Scene, nth: Nth) -> Iterator[Fault]:
    for kind in scene.kinds:
        for at in nth.of(scene.counted[kind.operations]):
            yield Fault(scene.name, kind.name, f"operation {at}", _of_operation(scene, kind, at))


def _of_operation(scene: Scene, kind: Kind, at: int) -> Callable[[Path], str]:
    return lambda folder: _disturb(scene, kind, at, scene.before.copied_to(folder))


def _of_case(check: Callable[[Shop], None], before: Shop) -> Callable[[Path], str]:
    def complaint(folder: Path) -> str:
        check(before.copied_to(folder))
        return ""

    return complaint


def _in_lanes(faults: list[Fault], folder: Path) -> list[str]:
    """The complaint about each fault, empty for none; two at a time."""
    lanes = []
    for lane in range(_LANES):
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                for number in range(lane, len(faults), _LANES):
                    complaint = _complaint(faults[number], folder / f"lane{lane}")
                    os.write(writing, f"{number}\t{complaint[:2000]!r}\n".encode())
            finally:
                # Not by way of what the parent process has still to clean up.
                os._exit(0)
        os.close(writing)
        lanes.append((pid, reading))
    complaints = ["no answer"] * len(faults)
    for pid, reading in lanes:
        with os.fdopen(reading, encoding="utf-8") as answers:
            for line in answers:
                number, _, told = line.rstrip("\n").partition("\t")
                complaints[int(number)] = told[1:-1]
        os.waitpid(pid, 0)
    return complaints


def _complaint(fault: Fault, folder: Path) -> str:
    try:
        problem = fault.complaint(folder)
    except Exception as error:
        problem = repr(error)
    return f"{fault.of}, {fault.kind}, {fault.name}: {problem}" if problem else ""


def _disturb(scene: Scene, kind: Kind, at: int, shop: Shop) -> str:
    """What is wrong after the fault; empty for nothing."""
    disturbed = in_fork(scene.work(shop), shop.folder, kind, at)
    seen = must(in_fork(shop.seen, shop.folder))
    for asset, digest in seen.items():
        if digest not in (scene.old.get(asset), scene.new[asset]):
            return f"{asset} is neither the old one nor the new one"
    if lost := set(scene.old) - set(seen):
        return f"lost: {', '.join(lost)}"
    if not disturbed.was_killed:
        if kind is KILLED:
            return "the process was not killed"
        message = disturbed.value.get("failed") or disturbed.value.get("unforeseen")
        if message is None and seen != scene.new:
            return "claims success without the new state"
        is_said = kind.ends_by is None and message
        if is_said and ("\n" in message or len(message) > _MOST_LETTERS or str(shop.folder) not in message):
            return f"not one clear sentence that names the path: {message}"
    must(in_fork(scene.work(shop), shop.folder))
    if must(in_fork(shop.seen, shop.folder)) != scene.new:
        return "doing it again does not give what an undisturbed run gives"
    litter = shop.litter()
    if more := {name: n for name, n in litter.items() if n > scene.clean.get(name, 0)}:
        return f"left behind: {more}"
    return ""


def _print_table(of_faults: list[tuple[str, str]], complaints: list[str]) -> None:
    """As many lines as things that were disturbed, and then as many as ways to damage what was released."""
    survived: dict[tuple[str, str], list[bool]] = {}
    for cell, complaint in zip(of_faults, complaints, strict=True):
        survived.setdefault(cell, []).append(not complaint)
    told = {cell: f"{sum(each)} of {len(each)}" for cell, each in survived.items()}
    kinds = [kind.name for kind in (*_KINDS, *_SIGNALS)]
    rows = [of for of in dict.fromkeys(of for of, _ in told) if of != _RELEASED]
    if rows:
        print(f"{'run':<22}" + "".join(f"{kind:>15}" for kind in kinds))
    for of in rows:
        print(f"{of:<22}" + "".join(f"{told.get((of, kind), '-'):>15}" for kind in kinds))
    for (of, kind), cell in told.items():
        if of == _RELEASED:
            print(f"{kind:<67}{cell:>15}")


if __name__ == "__main__":
    sys.exit(main())
