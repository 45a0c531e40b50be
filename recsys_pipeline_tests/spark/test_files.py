"""What workers write for each other: rows spread over blocks, vectors with copies, interactions by block."""

from pathlib import Path

import numpy as np
import pytest

from recsys_pipeline.engines.spark.exchange import Exchange, Pairs
from recsys_pipeline.engines.spark.frames import whole
from recsys_pipeline.engines.spark.vectors import Same, Spread, Vectors


@pytest.mark.parametrize(
    ("n_rows", "n_blocks"), [(1, 1), (3, 8), (100, 3), (1_000, 2), (300_001, 3)], ids=str
)
def test_each_row_has_one_place_in_one_block(n_rows, n_blocks):
    spread = Spread.over(n_rows, n_blocks)

    assert spread.n_blocks == min(n_rows, n_blocks)
    seen = []
    for block in range(spread.n_blocks):
        rows = spread.rows_of(block)
        assert len(rows) == spread.n_rows_of(block) > 0
        assert (spread.block_of(rows) == block).all()
        assert spread.place_of(rows).tolist() == list(range(len(rows)))
        seen.append(rows)
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(n_rows))


def test_the_first_rows_spread_evenly():
    spread = Spread.over(100_000, 4)

    of_half = np.bincount(spread.block_of(np.arange(50_000)), minlength=4)

    assert of_half.min() > 0.8 * of_half.max()


def test_vectors_come_back_by_row_and_by_reader(tmp_path):
    spread = Spread.over(40, 3)
    vectors = np.random.default_rng(0).random((40, 5), dtype=np.float32)
    made = Vectors(str(tmp_path), spread, 5, n_readers=2)
    needed = [[2, 0], []]
    for block in range(3):
        own = vectors[spread.rows_of(block)]
        made.write(
            block, own, [np.array(places, int) for places in needed], own.sum(axis=0, dtype=np.float64)
        )

    assert np.array_equal(made.take(np.array([39, 0, 7, 7])), vectors[[39, 0, 7, 7]])
    for block in range(3):
        own = vectors[spread.rows_of(block)]
        assert np.array_equal(made.of_block(block), own)
        assert np.array_equal(made.copies_of(block, 0), own[[2, 0]])
        assert made.copies_of(block, 1).shape == (0, 5)
    made.add_up()
    assert made.total() == pytest.approx(vectors.sum(axis=0), rel=1e-5)
    assert Same(3).take(np.array([2, 0])).tolist() == [[1.0], [1.0]]


def test_numbers_of_rows_are_looked_up_and_missing_ones_are_zero(engine):
    n_rows = 1_000
    with engine._scratch() as scratch:
        frame = scratch.spark.range(0, n_rows, 2).selectExpr("cast(id AS int) AS row", "id * 3 AS n")
        made = Vectors.of_columns(scratch, frame, ["n"], "row", n_rows, "int64")

        assert made.take(np.array([4, 5, 998, 999]))[:, 0].tolist() == [12, 0, 2994, 0]


def test_interactions_reach_their_blocks(tmp_path):
    rng = np.random.default_rng(1)
    exchange = Exchange(tmp_path, 4, 2)
    sent = [Pairs(*rng.integers(0, 9, (2, 30), np.int32), rng.random((30, 2), np.float32)) for _ in range(3)]
    for number, pairs in enumerate(sent):
        exchange.write(str(number), pairs.rows % 3, pairs)
    (tmp_path / ".0.left-by-a-killed-worker").write_text("half")

    together = Pairs(*(np.concatenate(arrays) for arrays in zip(*sent, strict=True)))
    for block in range(3):
        here = together.rows % 3 == block
        for array, expected in zip(exchange.of_block(block, exchange.names), together, strict=True):
            assert np.array_equal(array, expected[here])
    assert not len(exchange.of_block(3, exchange.names).rows)
    assert exchange.of_block(0, []).weights.shape == (0, 2)


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "file"

    def write(content: str, divisor: int) -> float:
        with whole(str(path)) as partial:
            Path(partial).write_text(content)
            return 1 / divisor

    with pytest.raises(ZeroDivisionError):
        write("half", 0)
    assert not list(tmp_path.iterdir())
    write("all", 1)
    assert path.read_text() == "all"
