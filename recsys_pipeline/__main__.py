"""`python -m recsys_pipeline`: a few lines on the current model, for a terminal."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from upath import UPath

try:
    from recsys_pipeline import settings
except click.ClickException as error:
    # Before there is a command that could say it.
    error.show()
    sys.exit(error.exit_code)
from recsys_pipeline.core.columns import (
    HIT_RATE_AT_10,
    MAP,
    MAP_AT_10,
    MAP_HIGH,
    MAP_LOW,
    NDCG_AT_10,
)
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.lineage import Lineage
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.selected import SELECTED_BY
from recsys_pipeline.core.selecting import Selection
from recsys_pipeline.reporting.model import told_ends, told_hyperparameters
from recsys_pipeline.storage.locations import opened_location
from recsys_pipeline.storage.reading import read_table
from recsys_pipeline.storage.releases import current_release, read_manifest
from recsys_pipeline.storage.states import States


def summary(warehouse: str) -> str:
    """What was made, how good it is, where it is, and how to look at it.

    Raises:
        InputError: the warehouse holds no model.
    """
    release = current_release(warehouse)
    manifest = read_manifest(release)
    metrics, counts = manifest["metrics"], manifest["counts"]
    # Models from before there was a choice were chosen by MAP@10.
    selection = Selection.from_mapping(manifest.get(SELECTED_BY))
    at_10 = {
        "MAP@10": MAP_AT_10,
        "NDCG@10": NDCG_AT_10,
        "HitRate@10": HIT_RATE_AT_10,
    }
    for name in (*at_10.values(), selection.column, selection.error_column):
        if not isinstance(metrics.get(name), float):
            raise InputError(f"the manifest of {release.path} has no {name}: materialize the assets again.")
    others = ", ".join(
        f"{name} {metrics[column]:.4f}" for name, column in at_10.items() if name != selection.name
    )
    hyperparameters = Hyperparameters.from_mapping(manifest["hyperparameters"])
    return "\n".join(
        [
            *_evaluated(opened_location(warehouse), manifest),
            f"in the search    {selection.name} {metrics[selection.column]:.4f} +- "
            f"{metrics[selection.error_column]:.4f} ({others})",
            f"hyperparameters  {told_hyperparameters(hyperparameters)}",
            *_at_the_ends(opened_location(warehouse), manifest),
            f"trained on       {counts['interactions']:,} interactions of {counts['users']:,} users "
            f"and {counts['items']:,} items",
            f"release          {release.path}",
            f"artefacts        {warehouse}",
            "to recommend     recsys_pipeline.load_model(...).recommend(user_id)",
            f"to look at it    make dev, then open {_ui()}",
        ]
    )


def _ui() -> str:
    """Where `make dev` serves the UI, which has these two variables from the environment."""
    host = os.environ.get("RECSYS_UI_HOST") or "127.0.0.1"
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{os.environ.get('RECSYS_UI_PORT') or '3000'}"  # noqa: S104


def _evaluated(warehouse: UPath, manifest: Mapping[str, Any]) -> list[str]:
    """The figure of the evaluation, where there is one of the search that chose this model."""
    nothing = ["on unseen data   not evaluated yet: materialize the asset evaluation"]
    if not States(warehouse, "evaluation").exists():
        return nothing
    models = read_table(warehouse, "evaluation", "models")
    stored, lineage = stored_metadata(models), Lineage.of(models)
    of_search = lineage.ancestors.get("grid_search_results") if lineage else None
    if of_search != manifest["inputs"].get("grid_search_results"):
        return nothing
    tuned = models.slice(0, 1).to_pylist()[0]
    return [
        f"on unseen data   MAP@{stored['k']} {tuned[MAP]:.4f}, 95 % interval {tuned[MAP_LOW]:.4f} to "
        f"{tuned[MAP_HIGH]:.4f}",
        f"verdict          {stored['verdict']}",
    ]


def _at_the_ends(warehouse: UPath, manifest: Mapping[str, Any]) -> list[str]:
    """Where the search that chose this model came to the end of what it tried."""
    if not States(warehouse, "grid_search_results").exists():
        return []
    results = read_table(warehouse, "grid_search_results")
    lineage = Lineage.of(results)
    told = told_ends(results)
    if not told or not lineage or lineage.write_id != manifest["inputs"].get("grid_search_results"):
        return []
    return [f"at the ends      {told}"]


def main(arguments: Sequence[str] = ()) -> int:
    """Print the summary of the current model."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys_pipeline",
        description="Says how good the released model is, how it was made and where it lies.",
        epilog="The warehouse is that of RECSYS_WAREHOUSE. `recsys` looks at all releases and lists.",
    )
    parser.parse_args(arguments)
    try:
        print(summary(settings.WAREHOUSE), flush=True)
    except BrokenPipeError:
        # Whoever reads, such as `head`, has seen enough; Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
