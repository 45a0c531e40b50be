"""What the UI shows of an evaluation."""

from typing import Any

import pyarrow as pa
from dagster import MarkdownMetadataValue

from recsys_pipeline.core import columns
from recsys_pipeline.reporting.metadata import fixed, interval, markdown_table, with_error


def models_markdown(models: pa.Table, k: int) -> MarkdownMetadataValue:
    """A row a model, the tuned one first."""
    header = [
        "model",
        f"MAP@{k}",
        "95 % interval",
        "difference to the tuned",
        f"NDCG@{k}",
        f"HitRate@{k}",
        f"Recall@{k}",
        "coverage",
        "novelty (bits)",
        "users reached",
    ]
    return markdown_table(
        header,
        [
            [
                row[columns.MODEL],
                with_error(row[columns.MAP], row[columns.MAP_STANDARD_ERROR]),
                f"{row[columns.MAP_LOW]:.4f} to {row[columns.MAP_HIGH]:.4f}",
                interval(row[columns.TO_TUNED_LOW], row[columns.TO_TUNED_HIGH]) if place else "",
                fixed(row[columns.NDCG]),
                fixed(row[columns.HIT_RATE]),
                fixed(row[columns.RECALL]),
                f"{row[columns.COVERAGE]:.1%}",
                f"{row[columns.NOVELTY]:.1f}",
                f"{row[columns.USERS_REACHED]:.1%}",
            ]
            for place, row in enumerate(models.to_pylist())
        ],
    )


def segments_markdown(table: pa.Table) -> MarkdownMetadataValue:
    """A row a segment, a column a model."""
    rows = table.to_pylist()
    models = list(dict.fromkeys(row[columns.MODEL] for row in rows))
    lines: dict[str, list[Any]] = {}
    for row in rows:
        head = [row[columns.SEGMENT_KIND], row[columns.SEGMENT], row[columns.HELD_OUT_PAIRS]]
        line = lines.setdefault(row[columns.SEGMENT], head)
        line.append(with_error(row[columns.MAP], row[columns.MAP_STANDARD_ERROR]))
    return markdown_table(["of", "segment", "held-out pairs", *models], list(lines.values()))
