"""Making a release again from its manifest and the same feed, to see whether it comes out the same."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from upath import UPath

from recsys_pipeline.core.blending import Blend
from recsys_pipeline.core.catalogue import offer_in
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.exports import popular_items_of
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS, Hyperparameters
from recsys_pipeline.core.ids import IdType
from recsys_pipeline.core.metadata import stored_metadata, with_metadata
from recsys_pipeline.core.model import Model
from recsys_pipeline.core.offer import Popularity
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.sources import BLEND, GRAPH
from recsys_pipeline.core.strengths import EventRules
from recsys_pipeline.engines.chosen import chosen_engine
from recsys_pipeline.engines.engine import ExportPlan
from recsys_pipeline.machine.memory import memory_limit
from recsys_pipeline.reporting.card import card, with_decision
from recsys_pipeline.storage.days import ingest_days
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.ingest import ingest
from recsys_pipeline.storage.models import CARD, DESCRIBED, read_model, table_files, write_model
from recsys_pipeline.storage.releases import ReleaseFolder, has_table, read_manifest, read_release, read_table
from recsys_pipeline.storage.verified import sha256_of
from recsys_pipeline.storage.warehouse import Warehouse

_LISTS = ("recommendations", "similar_items", "popular_items")


class Rebuilt(NamedTuple):
    """What came of it.

    Attributes:
        same_input: whether the feed is what the release was made from, event by event.
        files: by name, whether the file is identical, byte by byte.
        versions: by library, what the release was made with and what it was rebuilt with, where they differ.
    """

    same_input: bool
    files: Mapping[str, bool]
    versions: Mapping[str, tuple[str, str]]

    @property
    def identical(self) -> bool:
        """Whether every file came out as it was."""
        return all(self.files.values())


def rebuild(
    release: ReleaseFolder, folder: Path, path_of_feed: str | None, log: Callable[[str], None]
) -> Rebuilt:
    """Make a release again and compare.

    Not searched again: the manifest says which configuration was chosen.

    Args:
        release: which one.
        folder: an empty one, for what is made.
        path_of_feed: where the feed is now; None for where it was.
        log: told what is being done.

    Raises:
        InputError: the release does not say what it was made from, or the feed cannot be read.
    """
    manifest = read_manifest(release)
    if "feedback" not in manifest:
        raise InputError(
            f"{release.path} does not say how its feed was read: an earlier version of "
            "recsys_pipeline made it."
        )
    warehouse = Warehouse(path=str(folder / "warehouse"))
    feedback = _feedback(release, manifest, path_of_feed)
    log(f"reading {feedback.path}")
    if feedback.first_day:
        ingest_days(feedback, warehouse)
    else:
        ingest(feedback, warehouse, accepted="raw_feedback", rejected="rejected_feedback")
    same_input = warehouse.write_id("raw_feedback") == manifest["inputs"].get("raw_feedback")
    log("the feed is the same" if same_input else "the feed is another one than the release was made from")

    rules = EventRules.from_metadata(manifest["rules"])
    engine = chosen_engine()
    # In the order in which the columns of the counts were.
    rules = rules._replace(strengths=feedback.strengths)
    strengths = engine.strengths(warehouse.open_table("raw_feedback"), rules, memory_limit(0.0))
    described = with_metadata(strengths, rules.to_metadata())
    warehouse.write_tables("feedback_strengths", {"feedback_strengths": described})
    matrix = engine.matrix(warehouse.open_table("feedback_strengths"), k1=1.0, b=0.0)
    warehouse.write_tables("bm25_matrix", matrix.tables)
    log(f"training on {matrix.n_interactions:,} interactions")
    fitted = engine.refit(warehouse.open_tables("bm25_matrix"), _winner(manifest))
    (folder / "model").mkdir()
    description = {name: manifest[name] for name in (*DESCRIBED, "blend", "rules")}
    description["graph"] = manifest.get("graph")
    write_model(folder / "model", fitted.factors, fitted.interactions, description)
    made = {name: UPath(folder / "model" / name) for name in table_files()}
    if has_table(manifest, "catalogue"):
        log("making the lists, by the catalogue of the release")
        made |= _lists(release, manifest, read_model(UPath(folder / "model")), warehouse)
    if "card" in manifest:
        # Rendered again from its facts: what the evaluation found is not measured again.
        made[CARD] = UPath(folder / CARD)
        text = with_decision(card(manifest["card"]), manifest["decision"]["reasons_for"], manifest["card"])
        made[CARD].write_text(text, encoding="utf-8")
    versions = json.loads((folder / "model" / "model.json").read_text())["versions"]
    return Rebuilt(
        same_input,
        {name: sha256_of(path) == manifest["files"].get(name) for name, path in made.items()},
        {
            library: (was, versions[library])
            for library, was in manifest["versions"].items()
            if versions.get(library, was) != was
        },
    )


def _lists(
    release: ReleaseFolder, manifest: Mapping[str, Any], model: Model, warehouse: Warehouse
) -> dict[str, UPath]:
    """The tables of the release, made again by its own catalogue; by name of the file."""
    released = {name: read_table(release, manifest, name) for name in ("catalogue", *_LISTS)}
    offer = offer_in(released["catalogue"])
    engine = chosen_engine()
    said = {name: stored_metadata(released[name]) for name in _LISTS}
    plan = ExportPlan(said["recommendations"]["n"], said["recommendations"]["scorer"] == BLEND)
    by_graph = said["similar_items"].get("scorer") == GRAPH
    similar = ExportPlan(said["similar_items"]["n"], graph=by_graph)
    streams = {
        "recommendations": engine.recommendations(model, offer, plan),
        "similar_items": engine.similar_items(model, offer, similar),
    }
    for name, rows in streams.items():
        warehouse.write_tables(name, {name: with_metadata(rows, said[name])})
    popularity = Popularity.in_model(model, offer)
    table = popular_items_of(popularity, offer, model.items, said["popular_items"]["n"])
    warehouse.write_tables("popular_items", {"popular_items": with_metadata(table, said["popular_items"])})
    return {f"{name}.parquet": warehouse.path_of(name) for name in _LISTS}


def _feedback(release: ReleaseFolder, manifest: Mapping[str, Any], path: str | None) -> Feedback:
    """How the feed was read, with the types that its ids turned out to have."""
    model = read_release(release)
    kinds = [
        IdType.integer if str(ids.type).startswith("int") else IdType.string
        for ids in (model.users, model.items)
    ]
    # Releases from before a feed could be read by days say nothing of them.
    told = {"first_day": "", **manifest["feedback"], "user_id_type": kinds[0], "item_id_type": kinds[1]}
    return Feedback(**({**told, "path": path} if path else told))


def _winner(manifest: Mapping[str, Any]) -> Winner:
    hyperparameters = Hyperparameters.from_mapping(manifest["hyperparameters"])
    strengths = None if hyperparameters.strengths == DEFAULT_STRENGTHS else manifest["strengths"]
    blend = Blend.from_mapping(manifest["blend"]) if manifest.get("blend") else None
    return Winner(hyperparameters, manifest["seed"], manifest["solver"], strengths, {}, blend)
