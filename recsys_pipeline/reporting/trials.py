"""What the UI shows of a search."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from dagster import MarkdownMetadataValue

from recsys_pipeline.core import columns
from recsys_pipeline.reporting.metadata import fixed, interval, markdown_table, rounded, with_error

_SHOWN = 10
_DIMENSIONS = (
    columns.FACTORS,
    columns.REGULARIZATION,
    columns.ALPHA,
    columns.ITERATIONS,
    columns.WEIGHTING,
    columns.BM25_K1,
    columns.BM25_B,
    columns.STRENGTHS,
    columns.STARTS,
    columns.NU,
    columns.UNOBSERVED_WEIGHT,
    columns.CONFIDENCE,
)


def best_trials_table(table: pa.Table) -> MarkdownMetadataValue:
    """The best trials: what they differ in, and how sure their order is."""
    rows = table.slice(0, _SHOWN).to_pylist()
    varying = [
        name
        for name in _DIMENSIONS
        if len({row[name] for row in table.select([name]).to_pylist()}) > 1 or name == columns.FACTORS
    ]
    header = [
        "",
        *varying,
        columns.MAP_AT_10,
        "95 % interval of the difference to the best",
        "distinguishable",
        columns.NDCG_AT_10,
        columns.HIT_RATE_AT_10,
    ]
    lines = [
        [
            "chosen" if row[columns.CHOSEN] else "",
            *(row[name] for name in varying),
            with_error(row[columns.MAP_AT_10], row[columns.MAP_AT_10_STANDARD_ERROR]),
            interval(row[columns.DIFFERENCE_LOW], row[columns.DIFFERENCE_HIGH]),
            {True: "yes", False: "no", None: "failed"}[row[columns.DISTINGUISHABLE]],
            fixed(row[columns.NDCG_AT_10]),
            fixed(row[columns.HIT_RATE_AT_10]),
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


def blend_table(blend: Mapping[str, Any]) -> MarkdownMetadataValue:
    """The weights of the blend."""
    return markdown_table(
        ["weight of", ""],
        [
            ["ALS score", rounded(blend["als"])],
            *([f"own {event}", rounded(weight)] for event, weight in blend["events"].items()),
            ["log popularity, target events", rounded(blend["target"])],
            ["log popularity, any event", rounded(blend["any"])],
        ],
    )


def worth_tables(table: pa.Table, dimensions: Sequence[str]) -> dict[str, MarkdownMetadataValue]:
    """Of each dimension that has several values: the best trial of each value."""
    tables = {}
    for name in dimensions:
        best_of: dict[str, dict[str, Any]] = {}
        for row in table.to_pylist():
            if row[columns.MAP_AT_10] is not None:
                best_of.setdefault(row[name], row)
        if len(best_of) > 1:
            tables[f"worth_of_{name}"] = markdown_table(
                [name, "best MAP@10", "95 % interval of the difference to the best"],
                [
                    [
                        value,
                        with_error(row[columns.MAP_AT_10], row[columns.MAP_AT_10_STANDARD_ERROR]),
                        interval(row[columns.DIFFERENCE_LOW], row[columns.DIFFERENCE_HIGH]),
                    ]
                    for value, row in best_of.items()
                ],
            )
    return tables
