"""A tracking server of the tests' own, from a virtual environment that `make mlflow` makes."""

import importlib.util
import os
import signal
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.ports import free_port

# Not in the environment of the package: the server holds back pyarrow.
PROGRAM = PROJECT / ".venv-mlflow" / "bin" / "mlflow"
_SECONDS = 300
# It reports to nobody, and starts no workers for jobs that nobody asks for.
_SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def missing() -> list[str]:
    """What is not installed."""
    lacks = [] if importlib.util.find_spec("mlflow") else ["mlflow-skinny"]
    return lacks if PROGRAM.exists() else [*lacks, "a tracking server"]


class TrackingServer:
    """A server with its database and its files in a folder; it listens on loopback."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.uri = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "TrackingServer":
        command = [
            *(
                PROGRAM,
                "server",
                "--host",
                "127.0.0.1",
                "--port",
                self.uri.rpartition(":")[2],
                "--workers",
                "1",
            ),
            *("--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db"),
            *("--artifacts-destination", self._folder / "files"),
        ]
        # Of the tests' environment, nothing: it has another set of packages.
        environment = {
            name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ
        }
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                env={**environment, **_SETTINGS},
                cwd=self._folder,
                start_new_session=True,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"MLflow does not start:\n{(self._folder / 'log').read_text()}")
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process
        # With the workers that it has started: they are its group.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
            return bool(answer.status == 200)
        return False
