"""The release: what readers get, once it deserves it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    DataVersion,
    Failure,
    MaterializeResult,
    MetadataValue,
    asset,
)
from pydantic import Field
from upath import UPath

from recsys_pipeline import settings
from recsys_pipeline.assets.check_results import failed_checks
from recsys_pipeline.assets.pictures import drawn, kept, last_nights
from recsys_pipeline.assets.run_tags import RELEASE, tag_run
from recsys_pipeline.configuration import Knobs
from recsys_pipeline.core import columns
from recsys_pipeline.core.card import Card
from recsys_pipeline.core.decision import Evidence, decide
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.evaluation import BLEND, POPULARITY, TUNED
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.implicit_model import trained_model
from recsys_pipeline.core.interactions import Tables
from recsys_pipeline.core.lineage import ancestors_of
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.model import Model
from recsys_pipeline.core.picture import SUFFIX
from recsys_pipeline.core.sources import ALS
from recsys_pipeline.core.sources import BLEND as BY_BLEND
from recsys_pipeline.machine.memory import memory_limit
from recsys_pipeline.machine.scratch import scratch_folder
from recsys_pipeline.reporting.card import with_decision
from recsys_pipeline.reporting.configuration import settings_table
from recsys_pipeline.reporting.metadata import AT_A_GLANCE, SETTINGS, WHERE_IT_IS, bullets, rounded
from recsys_pipeline.reporting.pictures.history import history
from recsys_pipeline.reporting.pictures.style import Sheet
from recsys_pipeline.steps.step import asset_step
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.forgetting import Forgotten, read_forgotten, releases_that_hold
from recsys_pipeline.storage.models import CARD, DESCRIPTION
from recsys_pipeline.storage.promises import broken_promises
from recsys_pipeline.storage.publishing import Retention, gathered, publish, write_pickle
from recsys_pipeline.storage.releases import (
    current_release,
    has_release,
    read_manifest,
    read_pointer,
    see_pointer,
)
from recsys_pipeline.storage.warehouse import Warehouse

# Whose files a release has.
_MEMBERS = ("best_model", "catalogue", "recommendations", "similar_items", "popular_items")
DESERVED = "the_release_is_deserved"


class _Evaluated(NamedTuple):
    """Where the evaluation has a scorer.

    Attributes:
        told: the scorer, for people.
        model: name of its row.
        low: column with the lower end of the difference to it.
        high: column with the upper end.
    """

    told: str
    model: str
    low: str
    high: str


_EVALUATED = {
    ALS: _Evaluated("ALS", TUNED, columns.TO_TUNED_LOW, columns.TO_TUNED_HIGH),
    BY_BLEND: _Evaluated("the blend", BLEND, columns.TO_BLEND_LOW, columns.TO_BLEND_HIGH),
}


class ReleaseConfig(Knobs):
    """When a release is refused, and which ones stay."""

    must_beat_popularity: bool = Field(
        default=True,
        description="Refuse a model whose mean average precision in `evaluation` is not above that of "
        "popularity by more than chance.",
    )
    max_feed_shrink: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Refuse if more than this share of the events of the last release is missing.",
    )
    keep_releases: int = Field(
        default=7,
        ge=1,
        description="So many of the newest releases stay. The current one and the one before it always do.",
    )
    keep_days: float = Field(
        default=0, ge=0, description="Releases that are older, in days, go; 0 for no such limit."
    )
    memory_limit: float = Field(
        default=settings.MEMORY_LIMIT,
        ge=0,
        description="GB for counting whether the tables keep their promises; what does not fit is kept on "
        "the disk (RECSYS_MEMORY_LIMIT).",
    )
    write_pickle: bool = Field(
        default=True,
        description="Whether the current release is also kept as the notebook's file, "
        "`releases/implicit_recommender_model.pkl`. It is as large as all factors together; this project "
        "does not read it.",
    )


@asset(
    kinds={"arrow", "parquet"},
    check_specs=[
        AssetCheckSpec(
            DESERVED,
            asset="release",
            description="No check failed, every promise of the tables is kept, the model is better than "
            "popularity, and the feed has not collapsed.",
        )
    ],
    # After every check that can run by then: it looks at what they say.
    op_tags={"dagster/priority": "-100"},
)
@asset_step
def release(
    context: AssetExecutionContext,
    config: ReleaseConfig,
    warehouse: Warehouse,
    feedback: Feedback,
    best_model: Model,
    evaluation: Tables,
    catalogue: pa.Table,
    recommendations: ds.Dataset,
    similar_items: ds.Dataset,
    popular_items: pa.Table,
    model_card: Card,
) -> Iterator[AssetCheckResult | MaterializeResult[None]]:
    """What readers get: replaced as a whole if the new one deserves it; else the last release stays.

    A release is one folder: the model, the tables, the card and a manifest with the SHA-256 of every file.
    `releases/current.json` is replaced last. A refusal fails the run and says why.
    """
    lists = [catalogue, recommendations, similar_items, popular_items]
    inputs = ancestors_of([best_model, evaluation, *lists, model_card])
    forgotten = read_forgotten(feedback)
    _require_none_of(forgotten, best_model)
    files = _files(warehouse, inputs)
    seen = see_pointer(warehouse.root)
    last = _last(context, warehouse)
    holding = releases_that_hold(warehouse.root, forgotten)
    with gathered(warehouse.root, files) as candidate, scratch_folder() as scratch:
        broken = broken_promises(candidate, memory_limit(config.memory_limit), scratch)
    evidence = _evidence(
        context,
        warehouse,
        best_model,
        evaluation,
        stored_metadata(recommendations)["scorer"],
        inputs,
        last,
        broken,
    )
    decision = decide(
        evidence,
        must_beat_popularity=config.must_beat_popularity,
        max_feed_shrink=config.max_feed_shrink,
    )
    told = bullets([*decision.reasons_against, *decision.reasons_for])
    yield AssetCheckResult(
        check_name=DESERVED,
        passed=decision.released,
        severity=AssetCheckSeverity.ERROR,
        description="; ".join(decision.reasons_against or decision.reasons_for),
    )
    if not decision.released:
        tag_run(context, RELEASE, "refused")
        # Whoever rolled back meanwhile has changed what that is.
        stays = _last(context, warehouse)
        version = str(stays["version"]) if stays else "none"
        told_stays = f"Readers keep release {version}" if stays else "There is no release yet"
        if version in holding:
            told_stays += ", which has users who are to be forgotten"
        raise Failure(
            description=f"not released: {'; '.join(decision.reasons_against)}. {told_stays}.",
            metadata={"reasons": told, "current release": version},
            allow_retries=False,
        )
    pictures = drawn(context, partial(_history, context, evidence.k))
    drawn_here = {each.name: each.reference() for each in pictures}
    facts = {**model_card.facts, "pictures": {**model_card.facts.get("pictures", {}), **drawn_here}}
    manifest = {
        **best_model.manifest,
        "inputs": inputs,
        "evaluation": {
            "verdict": stored_metadata(evaluation["models"])["verdict"],
            "models": evaluation["models"].to_pylist(),
        },
        "scorer": stored_metadata(recommendations)["scorer"],
        "similar_items_scorer": stored_metadata(similar_items).get("scorer", ALS),
        "decision": decision._asdict(),
        "card": facts,
        "feedback": feedback.model_dump(mode="json"),
    }
    retention = Retention(config.keep_releases, config.keep_days)
    card = with_decision(model_card.text, decision.reasons_for, facts)
    documents = {CARD: card.encode(), **{each.file: each.content for each in pictures}}
    folder = publish(
        warehouse.root,
        files,
        documents,
        manifest,
        seen=seen,
        retention=retention,
        unwanted=holding,
    )
    if holding:
        context.log.info(
            f"removed, because they had users who are to be forgotten: {', '.join(holding)}; a rollback "
            "cannot lead there any more"
        )
    for name in holding:
        if (left := folder.parent / name).exists():
            context.log.warning(
                f"{left} could not be removed: remove it, it has users who are to be forgotten"
            )
    _keep_as_pickle(config, warehouse, folder.name, best_model)
    assert evidence.released_map is not None  # else it would not have been released
    tag_run(context, RELEASE, folder.name)
    tag_run(context, f"MAP@{evidence.k}", f"{evidence.released_map:.4f}")
    context.log.info(f"released {folder.name}: {'; '.join(decision.reasons_for)}")
    yield MaterializeResult(
        metadata={
            AT_A_GLANCE: f"released {folder.name}: {decision.against_popularity}",
            f"MAP@{evidence.k} (unseen)": rounded(evidence.released_map),
            "Events": evidence.events,
            "Releases": len(read_pointer(warehouse.root).published),
            "decision": told,
            "release": folder.name,
            "release before": str(last["version"]) if last else "none",
            **({"removed releases": ", ".join(holding)} if holding else {}),
            SETTINGS: settings_table(config, lists_scored_by=evidence.scorer),
            WHERE_IT_IS: MetadataValue.path(str(folder)),
            **kept(context, warehouse, folder.name, pictures),
        },
        data_version=DataVersion(folder.name),
    )


def _history(context: AssetExecutionContext, k: int) -> Sheet | None:
    return history(last_nights(context, k), k)


def _require_none_of(forgotten: Forgotten, model: Model) -> None:
    """Refuse a model that has users who are to be forgotten: the file has changed since the feed was read.

    Raises:
        InputError: it has some.
    """
    if n := int(np.count_nonzero(forgotten.among(model.users))):
        raise InputError(
            f"best_model has {n:,} users who are to be forgotten since: materialize `raw_feedback`, "
            "then what follows it."
        )


def _last(context: AssetExecutionContext, warehouse: Warehouse) -> Mapping[str, Any] | None:
    """The manifest of the release that readers have now; None where there is none that can be read."""
    if not has_release(warehouse.root):
        return None
    try:
        return read_manifest(current_release(warehouse.root))
    except InputError as error:
        # A whole release is what mends it.
        context.log.warning(f"the last release counts as none: {error}")
        return None


def _files(warehouse: Warehouse, inputs: Mapping[str, str]) -> dict[str, UPath]:
    """By name in the release, the files of the assets that it is made of."""
    files = {
        name: path
        for asset_name in _MEMBERS
        for name, path in warehouse.files_of(asset_name, inputs[asset_name]).items()
    }
    del files[DESCRIPTION]  # the manifest says all that it says
    of_card = warehouse.files_of("model_card", inputs["model_card"])
    return files | {name: path for name, path in of_card.items() if name.endswith(SUFFIX)}


def _evidence(
    context: AssetExecutionContext,
    warehouse: Warehouse,
    best_model: Model,
    evaluation: Tables,
    scorer: str,
    inputs: Mapping[str, str],
    last: Mapping[str, Any] | None,
    broken: Sequence[str],
) -> Evidence:
    models = {row[columns.MODEL]: row for row in evaluation["models"].to_pylist()}
    evaluated = _EVALUATED[scorer]
    # Popularity is missing where its worker failed, and so may the blend be.
    released, popularity = models.get(evaluated.model, {}), models.get(POPULARITY, {})
    # Releases of former versions of this package count no events.
    events_of_last = (last["counts"].get("events") if last else None) or None
    return Evidence(
        failed_checks=failed_checks(context, inputs),
        broken_promises=broken,
        factors_are_finite=all(bool(np.isfinite(factors).all()) for factors in best_model.factors),
        k=stored_metadata(evaluation["models"])["k"],
        scorer=evaluated.told,
        released_map=released.get(columns.MAP),
        popularity_map=popularity.get(columns.MAP),
        popularity_low=popularity.get(evaluated.low),
        popularity_high=popularity.get(evaluated.high),
        events=best_model.manifest["counts"]["events"],
        events_of_last=events_of_last,
        held=_held(warehouse),
    )


def _held(warehouse: Warehouse) -> str:
    """Why somebody holds releases back, whatever became of the last one."""
    try:
        hold = read_pointer(warehouse.root).hold
    except InputError:
        return ""
    return hold.told() if hold else ""


def _keep_as_pickle(config: ReleaseConfig, warehouse: Warehouse, version: str, best_model: Model) -> None:
    model = None
    if config.write_pickle:
        hyperparameters = Hyperparameters.from_mapping(best_model.manifest["hyperparameters"])
        model = trained_model(hyperparameters, best_model.manifest["seed"], best_model.factors)
    write_pickle(warehouse.root, version, model)
