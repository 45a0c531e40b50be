"""The jobs, how a run is configured, and what executes it."""

from pathlib import Path
from typing import Any

import yaml
from dagster import (
    AssetSelection,
    ExecutorDefinition,
    define_asset_job,
    in_process_executor,
    multiprocess_executor,
)

from recsys_pipeline import settings
from recsys_pipeline.settings import SettingError


def run_config(path: str) -> dict[str, Any] | None:
    """The run configuration of the nightly retrain, from a YAML file; None when no file is named.

    Raises:
        SettingError: the file is missing or is no YAML mapping.
    """
    if not path:
        return None
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SettingError(f"RECSYS_RUN_CONFIG: cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise SettingError(f"RECSYS_RUN_CONFIG: {path} must hold a mapping with `resources` or `ops`")
    return content


def executor(name: str) -> ExecutorDefinition:
    """The executor of that name: `in_process` or `multiprocess`."""
    # In one process by default: a process a step costs more than the steps.
    return {"in_process": in_process_executor, "multiprocess": multiprocess_executor}[name]


RUN_CONFIG = run_config(settings.RUN_CONFIG)

retrain = define_asset_job(
    "retrain",
    selection=AssetSelection.all(),
    description="Everything, from the feed of events to the published model.",
    config=RUN_CONFIG,
    tags={
        "dagster/max_runtime": str(round(settings.MAX_RUN_HOURS * 3600)),
        # dagster.yaml lets one of these run at a time.
        "recsys_pipeline/queue": "retrain",
    },
)
