"""Rows of a CSV file, gzipped or not, and the lines of it that are no rows."""

import codecs
import csv
import functools
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray
from upath import UPath

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.feeds.rows import Batch, Batches, Columns, first_line

_BLOCK_BYTES = 8 << 20
_HEADER_BYTES = 1 << 16
_MOST_HEADER_BYTES = 4 << 20
_GZIP_MAGIC = b"\x1f\x8b"


@contextmanager
def _csv_stream(file: UPath) -> Iterator[pa.NativeFile]:
    with ExitStack() as stack:
        raw: IO[bytes] = stack.enter_context(file.open("rb"))
        is_gzip = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        stream = stack.enter_context(pa.PythonFile(raw, "r"))
        if is_gzip:
            stream = stack.enter_context(pa.CompressedInputStream(stream, "gzip"))
        yield stream


def _header(file: UPath, feedback: Feedback) -> list[str]:
    """The column names of a CSV file, read from its first line."""
    start = b""
    with _csv_stream(file) as stream:
        while b"\n" not in start and (more := stream.read(_HEADER_BYTES)):
            start += more
            if len(start) > _MOST_HEADER_BYTES:
                raise InputError(
                    f"{file}: the first line is longer than {_MOST_HEADER_BYTES >> 20} MB, so that it can be "
                    "no header. Set `format` if this is no CSV file."
                )
    if not start.strip():
        raise InputError(f"{file} is empty. Was the export cut short?")
    try:
        text = codecs.getincrementaldecoder(feedback.encoding)().decode(start)
    except (UnicodeDecodeError, LookupError) as error:
        raise _not_text(file, feedback, error) from None
    if "\0" in text:
        raise _not_text(file, feedback, "it holds NUL bytes")
    first = re.split(r"[\r\n]", text.lstrip("\ufeff"), maxsplit=1)[0]
    return next(csv.reader([first], delimiter=feedback.delimiter), [])


def read_csv(file: UPath, columns: Columns, feedback: Feedback) -> Batches:
    """The rows of a CSV file, block by block.

    Raises:
        InputError: the file is damaged, no text of this encoding, or lacks a column.
    """
    try:
        ours = columns.among(_header(file, feedback), file)
        bad_lines = _BadLines()
        with _csv_stream(file) as stream:
            reader = pa_csv.open_csv(
                stream,
                # One thread: only then does a bad row come with its number.
                read_options=pa_csv.ReadOptions(
                    use_threads=False, block_size=_BLOCK_BYTES, encoding=feedback.encoding
                ),
                parse_options=pa_csv.ParseOptions(
                    delimiter=feedback.delimiter,
                    ignore_empty_lines=False,
                    invalid_row_handler=bad_lines.note,
                ),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=list(ours),
                    column_types=dict.fromkeys(ours, pa.string()),
                    strings_can_be_null=False,
                ),
            )
            n_rows = 0
            for batch in reader:
                rows = pa.RecordBatch.from_arrays(batch.columns, list(ours.values()))
                lines = bad_lines.lines_of_rows(n_rows, batch.num_rows)
                n_rows += batch.num_rows
                unparsed = bad_lines.take(up_to=lines[-1] if len(lines) else 0)
                # The parser hands on an empty line as a row of empty values; it is no row.
                filled = functools.reduce(pc.or_, (pc.not_equal(column, "") for column in rows.columns))
                yield Batch(
                    rows.filter(filled),
                    lines[filled.to_numpy(zero_copy_only=False)],
                    typed=False,
                    unparsed=unparsed,
                    n_empty=rows.num_rows - filled.true_count,
                )
            nothing = pa.RecordBatch.from_pydict({name: pa.array([], pa.string()) for name in ours.values()})
            yield Batch(nothing, np.empty(0, np.int64), typed=False, unparsed=bad_lines.take())
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise _unreadable_csv(file, feedback, error) from None
    except OSError as error:
        if "compressed stream" in str(error) or "inflate" in str(error):
            raise InputError(
                f"{file}: the gzip stream is cut short or damaged ({first_line(error)}). "
                "Fetch the file again."
            ) from None
        raise


class _BadLines:
    """Keeps the lines of a CSV file that are no rows, and so the line number of each row."""

    def __init__(self) -> None:
        self._rows_before: list[int] = []
        self._fresh: list[tuple[int, str, str]] = []

    def note(self, row: pa_csv.InvalidRow) -> str:
        """Called by the parser for a line whose number of columns is not the header's."""
        self._rows_before.append(row.number - 2 - len(self._rows_before))
        reason = f"{row.actual_columns} columns instead of {row.expected_columns}"
        if "\n" in row.text:
            reason = "inside a quoted value: an unclosed quote"
        for offset, line in enumerate(row.text.split("\n")):
            self._fresh.append((row.number + offset, reason, line))
        return "skip"

    def lines_of_rows(self, first: int, n_rows: int) -> NDArray[np.int64]:
        """The lines of the parsed rows `first` to `first + n_rows`; the header is line 1."""
        rows = np.arange(first, first + n_rows)
        return rows + 2 + np.searchsorted(self._rows_before, rows, side="right")

    def take(self, up_to: int | None = None) -> list[tuple[int, str, str]]:
        """What was not taken yet, up to a line: the parser is ahead of the rows it hands on."""
        taken = [entry for entry in self._fresh if up_to is None or entry[0] <= up_to]
        self._fresh = self._fresh[len(taken) :]
        return taken


def _not_text(file: UPath, feedback: Feedback, error: object) -> InputError:
    return InputError(
        f"{file} is not {feedback.encoding} text ({error}). Set `encoding` of the `feedback` resource, "
        "`format` if it is no CSV file, or convert the file."
    )


def _unreadable_csv(file: UPath, feedback: Feedback, error: Exception) -> InputError:
    text = first_line(error)
    if "UTF8" in text or isinstance(error, UnicodeDecodeError):
        return _not_text(file, feedback, text)
    if "out of sync" in text or "straddling" in text:
        return InputError(
            f"{file}: a quoted value does not end, or a row is longer than {_BLOCK_BYTES >> 20} MB. Find the "
            "row with the unclosed quote and mend it (a value must not hold line breaks)."
        )
    return InputError(f"{file} cannot be read as CSV: {text}")
