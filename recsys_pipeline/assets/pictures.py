"""The pictures of an asset: drawn, kept in the warehouse, shown. A picture that fails fails nothing."""

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from dagster import AssetExecutionContext

from recsys_pipeline import settings
from recsys_pipeline.core.columns import MAP_AT_10
from recsys_pipeline.core.picture import Picture, content_digest
from recsys_pipeline.history import Past, past_materializations
from recsys_pipeline.reporting.metadata import MAP_UNSEEN, Metadata
from recsys_pipeline.reporting.pictures.history import Night
from recsys_pipeline.reporting.pictures.shown import picture_metadata
from recsys_pipeline.reporting.pictures.style import Sheet, rendered
from recsys_pipeline.storage.pictures import read_pictures, write_pictures
from recsys_pipeline.storage.warehouse import Warehouse

_MOST_NIGHTS = 30

Draw = Callable[[], Sheet | None]


def pictured(
    context: AssetExecutionContext, warehouse: Warehouse, drawn_from: str | Sequence[pa.Table], *draw: Draw
) -> Metadata:
    """Draw the pictures of an asset, keep them in the warehouse, and show them.

    Whatever goes wrong is a warning in the log, and all else goes on.

    Args:
        context: of the asset.
        warehouse: for the files.
        drawn_from: a write id, or the tables that the pictures show.
        draw: the pictures; None is nothing to see.
    """
    return kept(context, warehouse, drawn_from, drawn(context, *draw))


def kept(
    context: AssetExecutionContext,
    warehouse: Warehouse,
    drawn_from: str | Sequence[pa.Table],
    pictures: Sequence[Picture],
) -> Metadata:
    """Keep pictures in the warehouse, and show them; arguments as of `pictured`."""
    try:
        write_pictures(warehouse.root, context.asset_key.path[-1], pictures, _digest(drawn_from))
    except Exception as error:
        context.log.warning(f"the pictures are not in the warehouse: {_told(error)}")
    return picture_metadata(pictures)


def drawn(context: AssetExecutionContext, *draw: Draw) -> list[Picture]:
    """The pictures that could be drawn; none where the settings want none."""
    pictures = []
    for each in draw if settings.PICTURES else ():
        try:
            if (sheet := each()) is not None:
                pictures.append(rendered(sheet))
        except Exception as error:
            of = each.func if isinstance(each, functools.partial) else each
            name = getattr(of, "__name__", "one").replace("_", " ")
            context.log.warning(f"the picture of {name} is not drawn: {_told(error)}")
    return pictures


def pictures_of(
    context: AssetExecutionContext,
    warehouse: Warehouse,
    drawn_from: Mapping[str, str | Sequence[pa.Table]],
) -> list[Picture]:
    """The pictures of these assets that show just this, and no other state; as `pictured` has kept them."""
    pictures = []
    for asset, shown in drawn_from.items():
        try:
            pictures += read_pictures(warehouse.root, asset, _digest(shown))
        except Exception as error:
            context.log.warning(f"the pictures of {asset} are left out: {_told(error)}")
    return pictures


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _digest(drawn_from: str | Sequence[pa.Table]) -> str:
    return drawn_from if isinstance(drawn_from, str) else content_digest(*drawn_from)


def last_nights(context: AssetExecutionContext, k: int) -> list[Night]:
    """The last evaluations that Dagster knows of, the oldest first, the one of this release among them.

    The present release counts: whoever asks is about to make it.
    """
    evaluations, feeds, releases = (
        past_materializations(context.instance, asset, most=most)
        for asset, most in (("evaluation", _MOST_NIGHTS), ("raw_feedback", 2 * _MOST_NIGHTS), ("release", 60))
    )
    made = [each.when for each in releases] + [datetime.now(UTC)]
    nights = []
    ends = [*(each.when for each in evaluations[1:]), datetime.max.replace(tzinfo=UTC)]
    for each, end in zip(evaluations, ends, strict=False):
        figure = _first_figure(each, MAP_UNSEEN, f"MAP@{k}", MAP_AT_10)
        if figure is None:
            continue
        before = [feed for feed in feeds if feed.when <= each.when]
        events = _first_figure(before[-1], "Events", "dagster/row_count") if before else None
        released = any(each.when <= when < end for when in made)
        nights.append(Night(each.when, figure, events, released))
    return nights


def _first_figure(past: Past, *names: str) -> float | None:
    figures: list[Any] = [past.figure(name) for name in names]
    return next((figure for figure in figures if figure is not None), None)
