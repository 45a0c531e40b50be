"""Tables that are mapped: hashed while they are written, not read before they are used, never trusted."""

import hashlib
import io
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.factors import factor_table
from recsys_pipeline.storage.mapped import ColumnArrays, HashedFile, in_one_piece, write_mappable

FACTORS = np.arange(6, dtype=np.float32).reshape(3, 2)
IDS = ["00a", "b\N{LATIN SMALL LETTER E WITH ACUTE}", ""]
INDEX = pa.array([0, 1, 5], pa.int32())


def content_of(table):
    file = io.BytesIO()
    write_mappable(table, file)
    return file.getvalue()


@pytest.fixture
def mapped(tmp_path):
    """Maps what is in a file with the given content."""

    def open_and_map(content):
        (tmp_path / "table.arrow").write_bytes(content)
        with (tmp_path / "table.arrow").open("rb") as file:
            return ColumnArrays.mapped(file)

    return open_and_map


def test_what_was_written_is_mapped(mapped):
    columns = mapped(content_of(factor_table("ProductCode", pa.array(IDS), FACTORS)))

    assert columns.names == ["ProductCode", "factors"]
    assert columns.ids("ProductCode").to_pylist() == IDS
    assert columns.vectors("factors", 2).tolist() == FACTORS.tolist()


def test_numbers_and_booleans_too(mapped):
    columns = mapped(content_of(pa.table({"index": INDEX, "kept": pa.array([True, False, True])})))

    assert columns.numbers("index", pa.int32()).tolist() == [0, 1, 5]
    assert columns.numbers("kept", pa.bool_()).tolist() == [True, False, True]


def test_a_table_without_rows(mapped):
    columns = mapped(content_of(factor_table("UserID", pa.array([], pa.int64()), FACTORS[:0])))

    assert len(columns.ids("UserID")) == 0
    assert columns.vectors("factors", 2).shape == (0, 2)


@pytest.mark.parametrize("rows_at_once", [1, 2, 5])
def test_a_stream_is_written_as_the_table_of_its_rows(rows_at_once):
    ids = pa.array(["a", "", "b\N{LATIN SMALL LETTER E WITH ACUTE}", "a" * 300, "z"])
    table = pa.table(
        {
            "ids": ids,
            "index": pa.array([3, 1, 2, 0, 9], pa.int32()),
            "weight": pa.array([0.5, 1, 2, 3, 4], pa.float32()),
            "kept": pa.array([True, False, True, True, False]),
            "factors": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(10, dtype=np.float32)), 2),
            "numbers": pa.array([1, 2**60, 3, 4, 5]),
        }
    )
    stream = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=rows_at_once))

    with in_one_piece(stream) as made:
        assert made.equals(table)
        assert content_of(made) == content_of(table)
    with in_one_piece(table) as same:
        assert same is table


def test_a_stream_without_rows_is_an_empty_table():
    schema = factor_table("UserID", pa.array(IDS), FACTORS).schema
    with in_one_piece(pa.RecordBatchReader.from_batches(schema, [])) as made:
        assert made.schema == schema
        assert made.num_rows == 0


def test_a_stream_with_more_text_than_a_column_takes_is_refused(monkeypatch):
    monkeypatch.setattr("recsys_pipeline.storage.mapped._MOST_TEXT", 10)
    table = pa.table({"ids": ["12345", "67890", "1"]})
    stream = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=1))
    with pytest.raises(InputError, match="raw ids of more than"), in_one_piece(stream):
        pass


def test_a_column_in_chunks_is_one_array(mapped):
    columns = mapped(content_of(pa.table({"index": pa.chunked_array([INDEX, INDEX])})))

    assert columns.numbers("index", pa.int32()).tolist() == [0, 1, 5, 0, 1, 5]


def test_arrays_may_be_written_to_and_the_file_stays_as_it_is(mapped, tmp_path):
    content = content_of(factor_table("ProductCode", pa.array(IDS), FACTORS))
    factors = mapped(content).vectors("factors", 2)
    factors[:] = 9

    assert (tmp_path / "table.arrow").read_bytes() == content


def test_to_map_a_table_takes_no_memory_of_its_size(mapped):
    factors = np.ones((10_000, 100), np.float32)
    content = content_of(factor_table("UserID", pa.array(range(10_000)), factors))
    (before, of_arrow) = (len(content), pa.total_allocated_bytes())
    columns = mapped(content)
    tracemalloc.start()
    vectors = columns.vectors("factors", 100)
    assert tracemalloc.get_traced_memory()[1] < before / 100
    tracemalloc.stop()

    assert (vectors == 1).all()
    assert pa.total_allocated_bytes() - of_arrow < before / 100


def test_pandas_reads_it_without_this_package(tmp_path):
    (tmp_path / "table.arrow").write_bytes(content_of(factor_table("ProductCode", pa.array(IDS), FACTORS)))
    frame = pd.read_feather(tmp_path / "table.arrow")

    assert frame["ProductCode"].tolist() == IDS
    assert np.stack(frame["factors"]).tolist() == FACTORS.tolist()


def test_what_is_written_is_hashed_on_its_way(tmp_path):
    with (tmp_path / "table.arrow").open("wb") as file:
        hashed = HashedFile(file)
        write_mappable(factor_table("ProductCode", pa.array(IDS), FACTORS), hashed)

    assert hashed.sha256 == hashlib.sha256((tmp_path / "table.arrow").read_bytes()).hexdigest()


# --- Hostile ---

REFUSALS = (ValueError, OSError, pa.ArrowException)


def read_all(columns):
    """Touches everything that a release is made of."""
    return columns.ids("ProductCode").to_pylist(), columns.vectors("factors", 2).sum()


@pytest.mark.runs
def test_any_flipped_bit_gives_other_numbers_or_is_refused_and_never_crashes(mapped):
    content = content_of(factor_table("ProductCode", pa.array(IDS), FACTORS))
    refused = 0
    for position in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        try:
            read_all(mapped(bytes(flipped)))
        except REFUSALS:
            refused += 1

    assert refused > len(content)


def test_a_table_that_is_cut_short_is_refused(mapped):
    content = content_of(factor_table("ProductCode", pa.array(IDS), FACTORS))
    for length in range(len(content)):
        with pytest.raises(REFUSALS):
            read_all(mapped(content[:length]))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_columns_are_refused(mapped, compression):
    file = io.BytesIO()
    table = pa.table({"index": pa.array(np.zeros(1000, np.int32))})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(file, table.schema, options=options) as writer:
        writer.write_table(table)

    with pytest.raises(ValueError, match="compressed"):
        mapped(file.getvalue()).numbers("index", pa.int32())


@pytest.mark.parametrize("n_batches", [0, 2])
def test_a_table_in_more_or_fewer_batches_than_one_is_refused(mapped, n_batches):
    file = io.BytesIO()
    table = pa.table({"index": INDEX})
    with pa.ipc.new_file(file, table.schema) as writer:
        for _ in range(n_batches):
            writer.write_table(table)

    with pytest.raises(ValueError, match=f"{n_batches} record batches instead of one"):
        mapped(file.getvalue())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(pa.array([0, 1], pa.int64()), "index is of type int64, expected int32", id="type"),
        pytest.param(pa.array([0, None], pa.int32()), "index has nulls", id="nulls"),
        pytest.param(None, "index is missing", id="no such column"),
    ],
)
def test_another_column_than_expected_is_named(mapped, values, message):
    columns = mapped(content_of(pa.table({"other": INDEX} if values is None else {"index": values})))

    with pytest.raises(ValueError, match=message):
        columns.numbers("index", pa.int32())


def test_vectors_of_another_width_or_with_nulls_are_refused(mapped):
    columns = mapped(content_of(factor_table("ProductCode", pa.array(IDS), FACTORS)))
    with pytest.raises(ValueError, match=r"factors is of type .*\[2\]"):
        columns.vectors("factors", 3)

    holes = pa.FixedSizeListArray.from_arrays(pa.array([1, None], pa.float32()), 2)
    with pytest.raises(ValueError, match="factors has nulls"):
        mapped(content_of(pa.table({"factors": holes}))).vectors("factors", 2)
