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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from recsys_pipeline_tests.faults.injection import (
    DISK_FULL,
    IO_ERROR,
    KILLED,
    Kind,
    Outcome,
    in_fork,
    preload,
)
from recsys_pipeline_tests.faults.shop import ASSETS, UPSTREAM, Shop, prepare

_YESTERDAY, _TODAY = 1, 2
_KINDS = (KILLED, DISK_FULL, IO_ERROR)
_LANES = 2
_MOST_LETTERS = 500


class Scene(NamedTuple):
    """A run to disturb, and what comes of it when nobody does.

    Attributes:
        name: the asset, or the whole graph.
        assets: what the run materializes; none for all.
        before: the shop as it is before the run.
        old: what readers see before.
        new: what they see afterwards.
        clean: what lies about at most after one and after two undisturbed runs.
    """

    name: str
    assets: tuple[str, ...]
    before: Shop
    old: dict[str, str]
    new: dict[str, str]
    clean: dict[str, int]


class Fault(NamedTuple):
    """One fault of one scene."""

    scene: int
    kind: int
    at: int


def main() -> int:
    """Disturb, and print a table."""
    arguments = argparse.ArgumentParser(prog="python -m recsys_pipeline_tests.faults")
    arguments.add_argument("--every", type=int, default=1, help="inject every n-th fault of each run")
    arguments.add_argument(
        "--assets", nargs="*", default=[*ASSETS, "whole graph"], help="the runs to disturb"
    )
    chosen = arguments.parse_args()
    signal.signal(signal.SIGALRM, _too_late)
    preload()
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        begin = time.monotonic()
        prepare(folder / "prepared")
        scenes = list(_scenes(folder / "scenes", chosen.assets))
        faults = [
            fault
            for number, scene in enumerate(scenes)
            for fault in _faults(number, scene, folder, chosen.every)
        ]
        survived = _in_lanes(scenes, faults, folder)
    _print_table(scenes, faults, survived)
    complaints = [complaint for complaint in survived if complaint]
    for complaint in complaints:
        print(complaint)
    print(
        f"{len(faults):,} faults injected, {len(faults) - len(complaints):,} survived, "
        f"{time.monotonic() - begin:.0f} s"
    )
    return 1 if complaints or not faults else 0


def _too_late(*_: object) -> None:
    raise TimeoutError


def _must(outcome: Outcome) -> Any:
    """What a process returned that nothing should disturb."""
    problem = outcome.value if not outcome.was_killed else "killed"
    if outcome.was_killed or (isinstance(problem, dict) and {"failed", "unforeseen"} & set(problem)):
        raise RuntimeError(f"an undisturbed process failed: {problem}")
    return outcome.value


def _scenes(folder: Path, names: list[str]) -> Iterator[Scene]:
    """The runs, each on a warehouse of yesterday with everything upstream of today."""
    yesterday = Shop(folder / "yesterday").open(_YESTERDAY)
    # Everything, or what the chosen runs need and make.
    needed = {each for name in names if name in ASSETS for each in (*UPSTREAM[name], name)}
    made = [asset for asset in ASSETS if asset in needed] if set(names) <= set(ASSETS) else []
    _must(in_fork(yesterday.run(*made), yesterday.folder))
    for name in names:
        assets = () if name not in ASSETS else (name,)
        before = yesterday.copied_to(folder / name).open(_TODAY)
        if assets and UPSTREAM[name]:
            _must(in_fork(before.run(*UPSTREAM[name]), before.folder))
        undisturbed = before.copied_to(folder / "undisturbed")
        old = _must(in_fork(undisturbed.seen, undisturbed.folder))
        clean: dict[str, int] = {}
        for _ in range(2):
            _must(in_fork(undisturbed.run(*assets), undisturbed.folder))
            for path, count in undisturbed.litter().items():
                clean[path] = max(count, clean.get(path, 0))
        new = _must(in_fork(undisturbed.seen, undisturbed.folder))
        yield Scene(name, assets, before, old, new, clean)


def _faults(number: int, scene: Scene, folder: Path, every: int) -> Iterator[Fault]:
    for kind, described in enumerate(_KINDS):
        shop = scene.before.copied_to(folder / "counted")
        counting = Kind("counted", 0, described.operations)
        n_operations = in_fork(shop.run(*scene.assets), shop.folder, counting).operations
        # Another offset for each kind and run, so that a sample is spread over the operations.
        yield from (
            Fault(number, kind, at) for at in range(1 + (number + kind) % every, n_operations + 1, every)
        )


def _in_lanes(scenes: list[Scene], faults: list[Fault], folder: Path) -> list[str]:
    """The complaint about each fault, empty for none; two at a time."""
    lanes = []
    for lane in range(_LANES):
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                for number in range(lane, len(faults), _LANES):
                    complaint = _complaint(scenes, faults[number], folder / f"lane{lane}")
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


def _complaint(scenes: list[Scene], fault: Fault, folder: Path) -> str:
    scene, kind = scenes[fault.scene], _KINDS[fault.kind]
    try:
        problem = _disturb(scene, kind, fault.at, scene.before.copied_to(folder))
    except Exception as error:
        problem = repr(error)
    return f"{scene.name}, {kind.name}, operation {fault.at}: {problem}" if problem else ""


def _disturb(scene: Scene, kind: Kind, at: int, shop: Shop) -> str:
    """What is wrong after the fault; empty for nothing."""
    disturbed = in_fork(shop.run(*scene.assets), shop.folder, kind, at)
    seen = _must(in_fork(shop.seen, shop.folder))
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
        if message and ("\n" in message or len(message) > _MOST_LETTERS or str(shop.folder) not in message):
            return f"not one clear sentence that names the path: {message}"
    _must(in_fork(shop.run(*scene.assets), shop.folder))
    if _must(in_fork(shop.seen, shop.folder)) != scene.new:
        return "the next run does not give what an undisturbed one gives"
    litter = shop.litter()
    if more := {name: n for name, n in litter.items() if n > scene.clean.get(name, 0)}:
        return f"left behind: {more}"
    return ""


def _print_table(scenes: list[Scene], faults: list[Fault], complaints: list[str]) -> None:
    print(f"{'run':<22}" + "".join(f"{kind.name:>28}" for kind in _KINDS))
    for number, scene in enumerate(scenes):
        cells = []
        for kind in range(len(_KINDS)):
            of_cell = [
                c for f, c in zip(faults, complaints, strict=True) if (f.scene, f.kind) == (number, kind)
            ]
            cells.append(f"{of_cell.count('')} of {len(of_cell)}")
        print(f"{scene.name:<22}" + "".join(f"{cell:>28}" for cell in cells))


if __name__ == "__main__":
    sys.exit(main())
