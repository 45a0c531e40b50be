"""Releases in MLflow, for teams that look there: the only module that knows its client.

Of the client nothing is imported before there is something to log, and nothing is pickled: what is logged is
numbers, texts and files as the release has them.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from upath import UPath

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.tracked import MANIFEST_TAG, TABLES_TAG, VERSION_TAG, Tracked, tracked
from recsys_pipeline.storage.releases import MANIFEST, ReleaseFolder, current_release, read_manifest
from recsys_pipeline.storage.verified import verified

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

# Of a release, what people look at; the rest is tables, which are large.
_SHOWN = {".md", ".png", ".svg"}
# Set where a person has not: the step is retried as a whole, this machine reports to nobody, and a folder is
# a place like another.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_FINISHED = "FINISHED"
# Of the most that one request may carry.
_METRICS_AT_A_TIME = 500
_PARAMETERS_AT_A_TIME = 100
_MOST_SAID = 300
# What may pass by itself, in the words of the client: no answer, or one of a server that starts or is full.
_PASSING = re.compile(r"failed with exception|too many 5\d\d|error code (429|5\d\d)|timed out")
_PASSING_CODES = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}
_REFUSED = re.compile(r"error code (401|403)")
_REFUSED_CODES = {"UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"}


class Logged(NamedTuple):
    """What was done.

    Attributes:
        version: of the release.
        run_id: of the run in MLflow.
        experiment_id: that it belongs to.
        changed: whether anything was logged; False where it was there already.
        metrics: how many there are.
        files: those that were logged, by their names in the release.
    """

    version: str
    run_id: str
    experiment_id: str
    changed: bool
    metrics: int
    files: list[str]


def log_current(
    warehouse: UPath,
    uri: str,
    experiment: str,
    dagster_run: Callable[[str], str],
    log: Callable[[str], None],
    *,
    with_tables: bool = False,
) -> Logged:
    """Let MLflow have a run that says what the current release is, and one only.

    The run is found by the version and the SHA-256 of the manifest, which are among its tags. One that is
    finished stays as it is; one that was interrupted is completed.

    Args:
        warehouse: that has the release.
        uri: of the tracking server, or of a folder (`file:`).
        experiment: its name; made if there is none.
        dagster_run: the id of the run that made a version.
        log: told what is done.
        with_tables: whether the tables of the release are logged too; they are large.

    Raises:
        InputError: a person must mend it, says the message; or there is no release, or it was changed.
        OSError: the server cannot be reached, which may pass.
    """
    release = current_release(warehouse)
    manifest = read_manifest(release)
    assert release.manifest_sha256, "a warehouse has a pointer"
    version = manifest["version"]
    told = tracked(manifest, release.manifest_sha256, str(release.path), dagster_run(version))
    with _client(uri) as client:
        experiment_id = _experiment(client, experiment)
        run = _run_of(client, experiment_id, told)
        if run and run.info.status == _FINISHED and not _lacks_tables(run, with_tables):
            log(f"MLflow has release {version} already, as run {run.info.run_id}")
            return Logged(version, run.info.run_id, experiment_id, False, len(run.data.metrics), [])
        made_at = round(datetime.fromisoformat(manifest["created"]).timestamp() * 1000)
        if run is None:
            run = client.create_run(experiment_id, made_at, told.tags, version)
        log(f"logging release {version} as run {run.info.run_id}")
        try:
            files = _log(client, run.info.run_id, told, made_at, release, manifest, with_tables)
        except BaseException:
            # Whoever looks there sees that it is not whole; the next time completes it.
            with suppress(Exception):
                client.set_terminated(run.info.run_id, "FAILED")
            raise
        client.set_terminated(run.info.run_id, _FINISHED)
    return Logged(version, run.info.run_id, experiment_id, True, len(told.metrics), files)


def _log(
    client: "MlflowClient",
    run_id: str,
    told: Tracked,
    made_at: int,
    release: ReleaseFolder,
    manifest: Mapping[str, Any],
    with_tables: bool,
) -> list[str]:
    """Log all that there is of a release; the names of the files."""
    from mlflow.entities import Metric, Param, RunTag

    # At the time of the release: logged twice, it is the same point.
    metrics = [Metric(name, value, made_at, 0) for name, value in told.metrics.items()]
    parameters = [Param(name, value) for name, value in told.parameters.items()]
    tags = [RunTag(name, value) for name, value in told.tags.items()]
    for begin in range(0, len(metrics), _METRICS_AT_A_TIME):
        client.log_batch(run_id, metrics=metrics[begin : begin + _METRICS_AT_A_TIME])
    for begin in range(0, len(parameters), _PARAMETERS_AT_A_TIME):
        client.log_batch(run_id, params=parameters[begin : begin + _PARAMETERS_AT_A_TIME])
    client.log_batch(run_id, tags=tags)
    files = [name for name in manifest["files"] if with_tables or PurePosixPath(name).suffix in _SHOWN]
    with tempfile.TemporaryDirectory(prefix="recsys_pipeline.mlflow.") as folder:
        digests = {**manifest["files"], MANIFEST: release.manifest_sha256}
        for name in [MANIFEST, *files]:
            # A file at a time, so that no more than the largest one is there twice.
            copy = Path(folder) / PurePosixPath(name).name
            source = verified(release.path / name, digests[name], mapped=False)
            with source, copy.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            place = str(PurePosixPath("release") / PurePosixPath(name).parent)
            client.log_artifact(run_id, str(copy), place)
            copy.unlink()
    if with_tables:
        client.set_tag(run_id, TABLES_TAG, "true")
    return [MANIFEST, *files]


def _lacks_tables(run: "Run", with_tables: bool) -> bool:
    return with_tables and run.data.tags.get(TABLES_TAG) != "true"


def _experiment(client: "MlflowClient", name: str) -> str:
    """The id of the experiment of that name, which is made if there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            # Another run may have made it meanwhile.
            if (found := client.get_experiment_by_name(name)) is None:
                raise
    if found.lifecycle_stage != "active":
        raise InputError(
            f"RECSYS_MLFLOW: the experiment {name} is deleted there: restore it (mlflow experiments restore "
            f"--experiment-id {found.experiment_id}), or name another one (`experiment` of `mlflow_run`)."
        )
    return str(found.experiment_id)


def _run_of(client: "MlflowClient", experiment_id: str, told: Tracked) -> "Run | None":
    """The run that tells of the same release, the oldest if somebody has made more."""
    tags = {name: told.tags[name] for name in (VERSION_TAG, MANIFEST_TAG)}
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = client.search_runs([experiment_id], query, max_results=1, order_by=["attributes.start_time ASC"])
    return found[0] if found else None


@contextmanager
def _client(uri: str) -> "Iterator[MlflowClient]":
    """The client; its errors say what a person must mend, or are an `OSError` that may pass."""
    with _surroundings():
        try:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise InputError(
                f"RECSYS_MLFLOW needs a package that is not installed ({error}): .venv/bin/pip install -e "
                "'.[mlflow]'."
            ) from None
        try:
            yield MlflowClient(uri, uri)
        except MlflowException as error:
            raise _translated(error) from None
        except ImportError as error:
            raise InputError(
                f"RECSYS_MLFLOW: the server keeps its files where this machine lacks a package ({error}): "
                "install it, or let the server pass files on (mlflow server --serve-artifacts)."
            ) from None


def _translated(error: Any) -> InputError | ConnectionError:
    said, code = _said(error), getattr(error, "error_code", "")
    if code in _REFUSED_CODES or _REFUSED.search(said):
        return InputError(
            f"RECSYS_MLFLOW: the server refuses: {said} Give user and password by MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD, or a token by MLFLOW_TRACKING_TOKEN, not in the URL."
        )
    if code in _PASSING_CODES or _PASSING.search(said):
        return ConnectionError(f"RECSYS_MLFLOW: the tracking server cannot be reached: {said}")
    return InputError(
        f"RECSYS_MLFLOW: the server does not take it: {said} Is it the address of an MLflow tracking server?"
    )


def _said(error: Exception) -> str:
    """What the client said, on one line and not the whole page that a server may have answered."""
    said = " ".join(str(error).split())
    said = said if len(said) <= _MOST_SAID else f"{said[: _MOST_SAID - 1]}…"
    return said if said.endswith((".", "?", "…")) else f"{said}."


@contextmanager
def _surroundings() -> Iterator[None]:
    """The client's settings while it is at work, where nobody has set them."""
    missing = {name: value for name, value in _ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
