"""What the Dagster UI shows of a materialization."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from dagster import MarkdownMetadataValue, MetadataValue
from upath import UPath

from recsys_pipeline.core.distribution import Distribution

Metadata = dict[str, Any]

# What a person wants first comes first (`in_order`): the sentence that matters; figures, which plot over time
# and whose names begin with a capital; tables and pictures, whose names do not; what was set; and paths.
AT_A_GLANCE = "At a glance"
SETTINGS = "settings"
WHERE_IT_IS = "where it is"
# Of the chosen trial, by which it was chosen; and of the evaluation, on what no search has seen.
MAP_IN_SEARCH = "MAP@10 (search)"
NOTEBOOK_MAP_IN_SEARCH = "MAP@10 (search, the notebook's formula)"
MAP_UNSEEN = "MAP@10 (unseen)"
OUT_OF_REACH = "Held-out share out of reach"

# The UI shows shorter Markdown inline, in a narrow column that cuts tables at the right without a hint, and
# longer Markdown in a dialog.
_LEAST_LETTERS_OF_A_DIALOG = 1000
# What fits inline.
_MOST_COLUMNS_INLINE = 5
_MOST_LETTERS_INLINE = 44

# Of a name, and of a table of names: what a person can read.
_MOST_LETTERS = 80
_MOST_ROWS = 50
_MEANINGFUL = re.compile(r"([\\`*_\[\]|!~#>])")

# Those of `core.distribution.PROBABILITIES`.
_QUANTILES = ("min", "10 %", "median", "90 %", "99 %", "max")


def in_order(metadata: Mapping[str, Any]) -> Metadata:
    """The entries as the UI is to show them, which keeps their order; those of one kind as they were."""
    return {name: metadata[name] for name in sorted(metadata, key=_kind)}


def _kind(name: str) -> int:
    """The lower, the earlier it is shown."""
    special = {AT_A_GLANCE: 0, SETTINGS: 3, WHERE_IT_IS: 4}
    return special.get(name, 1 if name[:1].isupper() else 2)


def facts_metadata(facts: Mapping[str, Any]) -> Metadata:
    """What an error knows beside its message: counts as tables, paths as such."""

    def as_shown(name: str, fact: Any) -> Any:
        if isinstance(fact, Mapping):
            return counts_table(name, fact)
        return MetadataValue.path(str(fact)) if isinstance(fact, PurePath | UPath) else fact

    return {name: as_shown(name, fact) for name, fact in facts.items()}


def rounded(value: float) -> float:
    """Four significant digits: what a person reads and a plot shows."""
    return float(f"{value:.4g}")


def fixed(value: float | None) -> str:
    """Four decimals, as scores are told; empty for none."""
    return "" if value is None else f"{value:.4f}"


def with_error(value: float | None, standard_error: float | None) -> str:
    """A score and its standard error."""
    return "" if value is None else f"{fixed(value)} +- {fixed(standard_error)}"


def interval(low: float | None, high: float | None) -> str:
    """Ends of the interval of a difference; empty for none."""
    return "" if low is None else f"{low:+.4f} to {high:+.4f}"


def told_beside(other: str, difference: float, low: float, high: float, who_is: str = "") -> str:
    """How something compares with another by its difference to that and the ends of its 95 % interval.

    Args:
        other: its name.
        difference: to the other.
        low: lower end of the interval.
        high: upper end.
        who_is: what the other is, in a few words.
    """
    named = f"{other}, {who_is}," if who_is else other
    if low > 0:
        return f"better than {named} by {fixed(difference)}, 95 % {fixed(low)} to {fixed(high)}"
    if high < 0:
        return f"worse than {named} by {fixed(-difference)}, 95 % {fixed(-high)} to {fixed(-low)}"
    return f"not distinguishable from {named.rstrip(',')}: {difference:+.4f}, 95 % {interval(low, high)}"


def shape_metadata(n_users: int, n_items: int, n_interactions: int) -> Metadata:
    """The shape as two integers, which plot over time, the interactions, and the filled share."""
    return {
        "Users": n_users,
        "Items": n_items,
        "Interactions": n_interactions,
        "Density": rounded(n_interactions / (n_users * n_items)),
    }


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], introduction: str = ""
) -> MarkdownMetadataValue:
    """A table that the UI shows whole: a narrow one inline, a wide one in a dialog.

    Args:
        header: names of the columns.
        rows: cells, which are shown as data.
        introduction: a sentence above the table.
    """
    begin = f"{escaped(introduction)}\n\n" if introduction else ""
    text = begin + table_lines(header, rows)
    missing = _LEAST_LETTERS_OF_A_DIALOG - len(text)
    if missing > 0 and not _fits_inline(header, rows):
        # A rule of more dashes looks the same.
        text = begin + table_lines(header, rows, dashes=3 + -(-missing // len(header)))
    return MetadataValue.md(text)


def _fits_inline(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> bool:
    widest = [max(len(_cell(cell)) for cell in column) for column in zip(header, *rows, strict=True)]
    return len(header) <= _MOST_COLUMNS_INLINE and sum(widest) <= _MOST_LETTERS_INLINE


def table_lines(header: Sequence[str], rows: Sequence[Sequence[Any]], dashes: int = 3) -> str:
    """A table in Markdown, all cells as data."""
    lines = [[_cell(cell) for cell in line] for line in (header, *rows)]
    lines.insert(1, ["-" * dashes] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(sentences: Sequence[str]) -> MarkdownMetadataValue:
    """Sentences below each other."""
    return MetadataValue.md("\n".join(f"- {escaped(sentence)}" for sentence in sentences))


def _cell(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return number(cell) if isinstance(cell, float) else shown(str(cell))


def number(value: float) -> str:
    """At most four significant digits, all digits of the whole part, with separators."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(share: float) -> str:
    """A share for people: more digits where it is small; none is exactly 0."""
    if 0 < share < 0.0001:
        return "less than 0.01 %"
    return f"{100 * share:.2f} %" if 0 < share < 0.01 else f"{100 * share:.1f} %"


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


def unknown_metadata(unknown: Mapping[str, int]) -> Metadata:
    """How many held-out rows are of users and items that the feedback does not have, where there are any."""
    if not any(unknown.values()):
        return {}
    return {f"Held-out rows of unknown {kind}": count for kind, count in unknown.items()}


def counts_table(label: str, counts: Mapping[str, int]) -> MarkdownMetadataValue:
    """How often each value occurs, most frequent first."""
    most_frequent = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    rest = most_frequent[_MOST_ROWS:]
    more = [(f"{len(rest):,} more", sum(count for _, count in rest))] if rest else []
    return markdown_table([label, "count"], [*most_frequent[:_MOST_ROWS], *more])


def distribution_table(samples: Mapping[str, Distribution]) -> MarkdownMetadataValue:
    """Quantiles and mean of each sample, a row a sample."""
    rows = [
        [label, *(rounded(value) for value in (*sample.quantiles, sample.mean))]
        for label, sample in samples.items()
    ]
    return markdown_table(["", *_QUANTILES, "mean"], rows)
