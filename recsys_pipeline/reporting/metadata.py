"""What the Dagster UI shows of a materialization."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
from dagster import MarkdownMetadataValue, MetadataValue, TableColumn, TableSchema
from numpy.typing import NDArray

from recsys_pipeline.core.columns import DESCRIPTIONS

Metadata = dict[str, Any]

_QUANTILES = {"min": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "99 %": 0.99, "max": 1.0}


def rounded(value: float) -> float:
    """Six significant digits: what a person reads and a plot shows."""
    return float(f"{value:.6g}")


def fixed(value: float | None) -> str:
    """Four decimals, as scores are told; empty for none."""
    return "" if value is None else f"{value:.4f}"


def with_error(value: float | None, standard_error: float | None) -> str:
    """A score and its standard error."""
    return "" if value is None else f"{fixed(value)} +- {fixed(standard_error)}"


def interval(low: float | None, high: float | None) -> str:
    """Ends of the interval of a difference; empty for none."""
    return "" if low is None else f"{low:+.4f} to {high:+.4f}"


def table_metadata(schema: pa.Schema, n_rows: int, path: object) -> Metadata:
    """Rows, columns and path of a table, under the keys for which Dagster has sections of its own."""
    columns = [
        TableColumn(field.name, str(field.type), description=DESCRIPTIONS.get(field.name)) for field in schema
    ]
    return {
        "dagster/row_count": n_rows,
        "dagster/column_schema": TableSchema(columns=columns),
        "path": MetadataValue.path(path if isinstance(path, PurePath) else str(path)),
    }


def shape_metadata(n_users: int, n_items: int, n_pairs: int) -> Metadata:
    """The shape as two integers, which plot over time, the pairs, and the filled share."""
    return {
        "users": n_users,
        "items": n_items,
        "pairs": n_pairs,
        "density": rounded(n_pairs / (n_users * n_items)),
    }


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> MarkdownMetadataValue:
    """A table that the UI shows."""
    lines = [header, ["---"] * len(header), *rows]
    cells = (
        [
            f"{cell:.6g}"
            if isinstance(cell, float)
            else ""
            if cell is None
            else str(cell).replace("|", "\\|")
            for cell in line
        ]
        for line in lines
    )
    return MetadataValue.md("\n".join(f"| {' | '.join(line)} |" for line in cells))


def counts_table(label: str, counts: Mapping[str, int]) -> MarkdownMetadataValue:
    """How often each value occurs, most frequent first."""
    most_frequent = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return markdown_table([label, "count"], most_frequent)


def distribution_table(samples: Mapping[str, NDArray[Any]]) -> MarkdownMetadataValue:
    """Quantiles and mean of each sample, a row a sample."""
    rows = []
    for label, values in samples.items():
        quantiles = np.quantile(values, list(_QUANTILES.values())).tolist()
        rows.append([label, *(rounded(value) for value in quantiles), rounded(float(np.mean(values)))])
    return markdown_table(["", *_QUANTILES, "mean"], rows)
