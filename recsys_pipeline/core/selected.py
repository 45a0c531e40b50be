"""What selected among the rows of a table, and the columns that say it."""

from collections.abc import Sequence

import pyarrow as pa

from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.selecting import Estimate, Selection

# In the metadata of the tables of trials and of baselines.
SELECTED_BY = "selected_by"


def selection_of(table: pa.Table) -> Selection:
    """What selected among the rows of `grid_search_results`, or of `baselines`."""
    return Selection.from_mapping(stored_metadata(table).get(SELECTED_BY))


def selected_columns(selection: Selection, selected: Sequence[Estimate | None]) -> dict[str, pa.Array]:
    """The columns of what selects and of its standard error; none for MAP@10, which every table has."""
    if selection.is_default:
        return {}
    names = (selection.column, selection.error_column)
    rows = [each or (None, None) for each in selected]
    return {name: pa.array([row[n] for row in rows], pa.float64()) for n, name in enumerate(names)}
