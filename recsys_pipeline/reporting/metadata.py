"""What the Dagster UI shows of a materialization."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from dagster import MarkdownMetadataValue, MetadataValue
from numpy.typing import NDArray

Metadata = dict[str, Any]

# The UI shows the entries of a materialization in the order of their names, capitals before small letters.
# So the sentence that matters has the first name; figures, which plot over time, begin with a capital; tables
# and pictures do not; what was set is in `settings`, and paths are in `where it is`.
AT_A_GLANCE = "At a glance"
SETTINGS = "settings"
# Of the chosen trial, by which it was chosen; and of the evaluation, on what no search has seen.
MAP_IN_SEARCH = "MAP@10 (search)"
MAP_UNSEEN = "MAP@10 (unseen)"

# Of a name, and of a table of names: what a person can read.
_MOST_LETTERS = 80
_MOST_ROWS = 50
_MEANINGFUL = re.compile(r"([\\`*_\[\]|!~#>])")

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


def shape_metadata(n_users: int, n_items: int, n_interactions: int) -> Metadata:
    """The shape as two integers, which plot over time, the interactions, and the filled share."""
    return {
        "users": n_users,
        "items": n_items,
        "interactions": n_interactions,
        "density": rounded(n_interactions / (n_users * n_items)),
    }


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> MarkdownMetadataValue:
    """A table that the UI shows."""
    return MetadataValue.md(table_lines(header, rows))


def table_lines(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown, all cells as data."""
    lines = [[_cell(cell) for cell in line] for line in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(sentences: Sequence[str]) -> MarkdownMetadataValue:
    """Sentences below each other."""
    return MetadataValue.md("\n".join(f"- {escaped(sentence)}" for sentence in sentences))


def _cell(cell: Any) -> str:
    if cell is None:
        return ""
    return f"{cell:.6g}" if isinstance(cell, float) else shown(str(cell))


def shown(text: str) -> str:
    """A name as data: cut, on one line, and with nothing in it that means something in Markdown or HTML.

    Names of events come from the feed, and the UI's browser would follow an image link in one of them.
    """
    cut = text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 1]}…"
    return escaped(cut)


def escaped(text: str) -> str:
    """A sentence that may have names in it: on one line, nothing of it Markdown or HTML."""
    on_one_line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return _MEANINGFUL.sub(r"\\\1", on_one_line).replace("&", "&amp;").replace("<", "&lt;")


def told_unknown(file: str, users: int, items: int) -> str:
    """That a file of held-out interactions names users and items that the feedback does not have."""
    return (
        f"{file}: {users:,} held-out rows are of users and {items:,} of items that the feedback does not "
        "have; all count as misses"
    )


def counts_table(label: str, counts: Mapping[str, int]) -> MarkdownMetadataValue:
    """How often each value occurs, most frequent first."""
    most_frequent = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    rest = most_frequent[_MOST_ROWS:]
    more = [(f"{len(rest):,} more", sum(count for _, count in rest))] if rest else []
    return markdown_table([label, "count"], [*most_frequent[:_MOST_ROWS], *more])


def distribution_table(samples: Mapping[str, NDArray[Any]]) -> MarkdownMetadataValue:
    """Quantiles and mean of each sample, a row a sample."""
    rows = []
    for label, values in samples.items():
        quantiles = np.quantile(values, list(_QUANTILES.values())).tolist()
        rows.append([label, *(rounded(value) for value in quantiles), rounded(float(np.mean(values)))])
    return markdown_table(["", *_QUANTILES, "mean"], rows)
