"""A `dagster dev` of this project with a home and a warehouse of its own."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

PROJECT = Path(__file__).parents[2]
_LAST_LINES = 4_000
T = TypeVar("T")


def wait_until(what: str, find: Callable[[], T], seconds: float) -> T:
    """The first thing found that is true.

    Raises:
        TimeoutError: nothing was found.
    """
    deadline = time.monotonic() + seconds
    while not (found := find()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:.0f} seconds: {what}")
        time.sleep(0.5)
    return found


class Served:
    """The web UI and the daemon, from entering to leaving; nothing of them is left afterwards."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.home, self.log = folder / "home", folder / "dagster.log"
        self.home.mkdir(parents=True)
        shutil.copy(PROJECT / "dagster.yaml", self.home)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self._environment = {**os.environ, "DAGSTER_HOME": str(self.home), **environment}

    def __enter__(self) -> Self:
        command = Path(sys.executable).with_name("dagster")
        port = self.url.rpartition(":")[2]
        subprocess.run(
            [command, "instance", "migrate"], env=self._environment, check=True, capture_output=True
        )
        self._process = subprocess.Popen(
            [command, "dev", "-w", "workspace.yaml", "--host", "127.0.0.1", "--port", port],
            cwd=PROJECT,
            env=self._environment,
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_until("the web UI does not answer", self._answers, 120)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(60)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self, argument: str = "") -> list[int]:
        """Of this instance those that run, with this text in their command line."""
        marked = f"DAGSTER_HOME={self.home}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                of_this = marked in (entry / "environ").read_bytes() + b"\0"
                if of_this and argument.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except (OSError, ValueError):
                continue
        return found

    def query(self, text: str, **variables: Any) -> dict[str, Any]:
        """The answer of the GraphQL API."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            json.dumps({"query": text, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
        return data

    def assets(self) -> set[str]:
        """Names of the assets of the code location."""
        nodes = self.query("{assetNodes {assetKey {path}}}")["assetNodes"]
        return {node["assetKey"]["path"][-1] for node in nodes}

    def runs(self) -> list[dict[str, Any]]:
        """Id and status of each, the latest first."""
        found = self.query("{runsOrError {... on Runs {results {id status}}}}")
        runs: list[dict[str, Any]] = found["runsOrError"]["results"]
        return runs

    def wait_for_run(self, statuses: set[str], seconds: float) -> dict[str, Any]:
        """The latest run, once its status is one of these.

        Raises:
            TimeoutError: it is none of them in this time; the last of what Dagster printed is told.
        """
        try:
            return wait_until(
                f"the latest run is none of {', '.join(sorted(statuses))}",
                lambda: next((run for run in self.runs()[:1] if run["status"] in statuses), None),
                seconds,
            )
        except TimeoutError as error:
            tail = self.log.read_text(errors="replace")[-_LAST_LINES:]
            raise TimeoutError(f"{error}; runs: {self.runs()}\n{tail}") from None

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"dagster dev ended:\n{self.log.read_text(errors='replace')[-_LAST_LINES:]}")
        try:
            return bool(self.assets())
        except (urllib.error.URLError, OSError, KeyError, TypeError):
            return False
