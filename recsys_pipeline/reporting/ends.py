"""Where a search may have stopped too early."""

import pyarrow as pa

from recsys_pipeline.core import columns
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.neighbourhood import ends


def told_ends(table: pa.Table) -> str:
    """On which dimensions the chosen value is the smallest or largest that was tried, as a sentence."""
    rows = table.to_pylist()
    chosen = next(Hyperparameters.from_mapping(row) for row in rows if row[columns.CHOSEN])
    found = ends(chosen, map(Hyperparameters.from_mapping, rows))
    sentences = []
    for which in ("largest", "smallest"):
        told = [f"{name} {getattr(chosen, name):g}" for name, side in found.items() if side == which]
        if told:
            *others, last = told
            subject = f"{', '.join(others)} and {last} are" if others else f"{last} is"
            sentences.append(f"{subject} the {which} tried")
    return "; ".join(sentences)
