"""What an experiment tracker is told of a release: figures, parameters and tags, by names that it takes."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from recsys_pipeline.core import columns
from recsys_pipeline.core.evaluation import BLEND, TUNED
from recsys_pipeline.core.sources import BLEND as BY_BLEND

# MLflow takes letters, digits and these in the name of a metric or parameter, and 250 of them.
_NOT_IN_NAMES = re.compile(r"[^\w.\- :/]")
_MOST_OF_NAME = 250
_MOST_OF_PARAMETER = 500

VERSION_TAG = "recsys_pipeline.release"
MANIFEST_TAG = "recsys_pipeline.manifest_sha256"
PLACE_TAG = "recsys_pipeline.location"
RUN_TAG = "recsys_pipeline.dagster_run"
TABLES_TAG = "recsys_pipeline.tables"

# Of the evaluation's models, in the order in which they are told.
_FIGURES = {
    columns.MAP: "MAP at {k}",
    columns.MAP_LOW: "MAP at {k} low",
    columns.MAP_HIGH: "MAP at {k} high",
    columns.NDCG: "NDCG at {k}",
    columns.HIT_RATE: "HitRate at {k}",
    columns.COVERAGE: "coverage",
    columns.NOVELTY: "novelty",
}


class Tracked(NamedTuple):
    """What is told of a release.

    Attributes:
        metrics: finite numbers by name.
        parameters: texts by name.
        tags: texts by name; those that say which release it is, a run is found by.
    """

    metrics: dict[str, float]
    parameters: dict[str, str]
    tags: dict[str, str]


def tracked(manifest: Mapping[str, Any], manifest_sha256: str, place: str, dagster_run: str) -> Tracked:
    """What the manifest of a release says, as a tracker of experiments takes it.

    The metrics of `unseen/` are those of the model that makes the lists, on data that no search has scored;
    `models/` has everyone that it was compared with, and `search/` the figures by which it was chosen.

    Args:
        manifest: of the release.
        manifest_sha256: of its file.
        place: where the release lies.
        dagster_run: the run that made it.
    """
    metrics = {_name(name): float(value) for name, value in _figures(manifest) if _is_finite(value)}
    tags = {
        VERSION_TAG: str(manifest["version"]),
        MANIFEST_TAG: manifest_sha256,
        PLACE_TAG: place,
        RUN_TAG: dagster_run,
    }
    return Tracked(metrics, _parameters(manifest), tags)


def _figures(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    k = _evaluation_of(manifest).get("k", 10)
    released = BLEND if manifest.get("scorer") == BY_BLEND else TUNED
    for row in manifest.get("evaluation", {}).get("models", []):
        model = row[columns.MODEL]
        groups = [f"models/{model}", *(["unseen"] if model == released else [])]
        for group in groups:
            for column, told in _FIGURES.items():
                yield f"{group}/{told.format(k=k)}", row.get(column)
    for name, value in manifest["metrics"].items():
        yield f"search/{name}", value
    for name, value in manifest["counts"].items():
        yield f"counts/{name}", value


def _parameters(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The hyperparameters, which include how interactions are weighted, and what else a fit depends on."""
    evaluation = _evaluation_of(manifest)
    strengths = ", ".join(f"{name}={value:g}" for name, value in manifest["strengths"].items())
    told = {
        **manifest["hyperparameters"],
        "seed": manifest["seed"],
        "solver": manifest["solver"],
        # By which the hyperparameter `strengths` means a set of them by name.
        "strengths of events": strengths,
        "target events": ", ".join(manifest["target_events"]),
        "seen events": ", ".join(manifest["seen_events"]),
        "split": evaluation.get("protocol"),
        "seeds of the evaluation": evaluation.get("seeds"),
        "scorer": manifest.get("scorer"),
    }
    return {_name(name): _cut(value) for name, value in told.items() if value is not None}


def _evaluation_of(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the card says of the evaluation; releases of former versions of this package have no card."""
    evaluation: Mapping[str, Any] = (manifest.get("card") or {}).get("evaluation") or {}
    return evaluation


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _name(text: str) -> str:
    return _NOT_IN_NAMES.sub("", text.replace("@", " at "))[:_MOST_OF_NAME]


def _cut(value: object) -> str:
    text = str(value)
    return text if len(text) <= _MOST_OF_PARAMETER else f"{text[: _MOST_OF_PARAMETER - 1]}…"
