"""Tables for a terminal."""

from collections.abc import Sequence


def text_table(header: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    """Columns under their names, as wide as their widest value; numbers to the right.

    Cells may be ids of a feed: what would steer the terminal is written out.
    """
    rows = [[_printable(cell) for cell in row] for row in rows]
    lines = [*([list(header)] if header else []), *rows]
    if not lines:
        return ""
    numeric = [all(_is_number(row[place]) for row in rows) for place in range(len(lines[0]))]
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def _printable(cell: str) -> str:
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in cell)


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "", 1).removeprefix("-").isdigit() or not text
