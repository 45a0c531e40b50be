"""What people read of a model."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from recsys_pipeline.core.columns import CHOSEN
from recsys_pipeline.core.hyperparameters import DIMENSIONS, Hyperparameters, ends
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.presets import Preset, preset_to_try_next


def told_hyperparameters(hyperparameters: Hyperparameters) -> str:
    """On one line: those that the notebook had, and of the others what is not as `implicit` has it."""
    usual = {dimension.name: dimension.values[0] for dimension in DIMENSIONS if len(dimension.values) == 1}
    told = hyperparameters.told()
    return told_values({name: value for name, value in told.items() if usual.get(name) != value})


def told_values(values: Mapping[str, Any]) -> str:
    """Names and values on one line."""
    return ", ".join(
        f"{name} {value if isinstance(value, str) else f'{value:g}'}" for name, value in values.items()
    )


def told_further(preset: Preset) -> str:
    """That a preset looks further."""
    return f"preset {preset.value} of grid_search_results looks further"


def told_number_of_ends(table: pa.Table) -> str:
    """On how many dimensions that is so, in a few words; empty for none."""
    _, found, _ = _ends_of(table)
    if not found:
        return ""
    several = f"{len(found)} dimensions are at the ends of their lists"
    return "1 dimension is at the end of its list" if len(found) == 1 else several


def _ends_of(table: pa.Table) -> tuple[Hyperparameters, dict[str, str], Preset]:
    """The chosen trial, on which dimensions it has the smallest or largest value, and the preset."""
    rows = table.to_pylist()
    chosen = next(Hyperparameters.from_mapping(row) for row in rows if row[CHOSEN])
    found = ends(chosen, map(Hyperparameters.from_mapping, rows))
    preset = Preset(stored_metadata(table).get("preset", Preset.notebook.value))
    if preset is not Preset.notebook:
        found = {name: side for name, side in found.items() if name == "factors"}
    return chosen, found, preset


def told_ends(table: pa.Table) -> str:
    """On which dimensions the chosen value is the smallest or largest that was tried, and what to do then.

    The other dimensions of a preset are no lists with ends: their values follow from the data and each other.
    """
    chosen, found, preset = _ends_of(table)
    sentences = []
    for which in ("largest", "smallest"):
        told = [f"{name} {getattr(chosen, name):g}" for name, side in found.items() if side == which]
        if told:
            *others, last = told
            subject = f"{', '.join(others)} and {last} are" if others else f"{last} is"
            sentences.append(f"{subject} the {which} tried")
    if not sentences:
        return ""
    further = preset_to_try_next(preset)
    ways = [
        *(
            []
            if preset is not Preset.notebook
            else ["widen the list" if len(found) == 1 else "widen these lists"]
        ),
        *([f"set preset {further.value}"] if further else []),
        *([] if preset is Preset.notebook else ["go on with lists of your own"]),
    ]
    return f"{'; '.join(sentences)}: {', or '.join(ways)}"
