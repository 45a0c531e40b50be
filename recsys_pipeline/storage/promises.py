"""What a release promises of its lists, counted in the files as they were written.

Nothing here knows how the lists were made: the tables are read by DuckDB, which goes through their rows as a
stream and keeps on the disk what does not fit into its memory.
"""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_pipeline.core.columns import (
    CATEGORY,
    EXCLUDED,
    ITEM,
    ITEM_INDEX,
    RANK,
    REASON,
    RECOMMENDABLE,
    SCORE,
    SIMILAR,
    SOURCE,
    USER,
    USER_INDEX,
    count_column,
)
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.factors import FACTORS, factors_in
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.sources import GRAPH

if TYPE_CHECKING:
    import duckdb

MOST_BYTES = 2 * 10**9
_CATALOGUE = "catalogue"
_NO_SPACE = "No space left"
# Libraries fill lists up with the most negative float32; no model scores within a thousandth of it.
_PLACEHOLDER = 3.4e35

# Text of an example from the values of some columns.
_Tell = Callable[..., str]


class _ListTable(NamedTuple):
    """A table of lists.

    Attributes:
        name: of the file.
        key: column of whom a list is for; empty where there is one list.
        keys: the table of the ids that the key may have; empty where there is one list.
        listed: column of the listed items.
        sourced: whether each row says who recommends.
    """

    name: str
    key: str
    keys: str
    listed: str
    sourced: bool

    def columns(self, ids: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
        """Name and type of each."""
        keyed = {self.key: ids[self.key]} if self.key else {}
        of_row = {RANK: pa.int32(), self.listed: ids[ITEM], SCORE: pa.float32()}
        return {**keyed, **of_row, **({SOURCE: pa.string()} if self.sourced else {})}

    def whose(self, key: object) -> str:
        """A list for people."""
        return f"{self.key} {key!r}, " if self.key else ""


_RECOMMENDATIONS = _ListTable("recommendations", USER, "users", ITEM, sourced=True)
_SIMILAR_ITEMS = _ListTable("similar_items", ITEM, "items", SIMILAR, sourced=False)
_POPULAR_ITEMS = _ListTable("popular_items", "", "", ITEM, sourced=False)


def broken_promises(folder: Path, most_bytes: int = MOST_BYTES, scratch: Path | None = None) -> list[str]:
    """What the tables of a release folder promise and do not keep, each with its number and an example.

    Recommendations, similar and popular items list only items of the model that the catalogue calls
    recommendable, no item twice and no more of a category than it allows. Ranks go on from 1 and end at the
    length that the table states. Scores are finite and descend within a source, and popular items come last.
    No user is recommended an excluded item, and no item is similar to itself. No list is short where popular
    items are left, or of similar ones by cosine items with factors.

    Args:
        folder: with user_factors.arrow, item_factors.arrow, user_items.arrow, catalogue.parquet,
            recommendations.parquet, similar_items.parquet and popular_items.parquet.
        most_bytes: memory for DuckDB.
        scratch: a folder for what does not fit into it; None makes one.

    Raises:
        InputError: that memory is too little.
        OSError: there is no space left for what does not fit into it.
    """
    import duckdb

    with ExitStack() as stack:
        if scratch is None:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options: dict[str, Any] = {"memory_limit": f"{most_bytes // 10**6}MB", "temp_directory": str(scratch)}
        try:
            with duckdb.connect(config=options) as connection:
                connection.execute("SET enable_progress_bar = false")
                return list(_Reader(folder, connection).broken())
        except duckdb.Error as error:
            # DuckDB counts a temporary folder on a full disk as memory.
            if _NO_SPACE in str(error) or "max_temp_directory_size" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(scratch)) from error
            raise InputError(
                f"to check the tables of a release takes more than {most_bytes / 10**9:.3g} GB "
                f"({_first_line(error)}). Raise the memory limit (RECSYS_MEMORY_LIMIT)."
            ) from None


class _Reader:
    """The tables of a folder, open in a database."""

    def __init__(self, folder: Path, connection: "duckdb.DuckDBPyConnection") -> None:
        self._folder, self._connection = folder, connection
        self._users = self._items = pa.array([], pa.string())
        self._most_per_category = 0

    def broken(self) -> Iterator[str]:
        """Every promise that is not kept, in words."""
        for name, check in (("model", self._model), (_CATALOGUE, self._catalogue)):
            found = list(self._readable(name, check))
            yield from found
            if found:
                return  # by which the other tables would be judged
        for table in (_RECOMMENDATIONS, _SIMILAR_ITEMS, _POPULAR_ITEMS):
            yield from self._readable(table.name, partial(self._lists, table))

    def _readable(self, name: str, check: Callable[[], Iterator[str]]) -> Iterator[str]:
        import duckdb

        try:
            yield from check()
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if _is_of_the_machine(error):
                raise
            yield f"{name}: cannot be read: {_first_line(error)}"

    def _model(self) -> Iterator[str]:
        """The ids and the interactions."""
        users, items, user_items = (
            _mapped(self._folder / f"{name}.arrow") for name in ("user_factors", "item_factors", "user_items")
        )
        if USER not in users.column_names or not {ITEM, FACTORS} <= {*items.column_names}:
            yield f"model: its factors have no {USER}, {ITEM} or {FACTORS}"
            return
        self._users, self._items = users[USER].combine_chunks(), items[ITEM].combine_chunks()
        self._connection.register("users", _numbered(self._users))
        self._connection.register("user_items", user_items)
        vectors = factors_in(items)
        # Not by `norm`, which takes the memory of the factors once more.
        known = np.flatnonzero(np.einsum("ij,ij->i", vectors, vectors) > 0)
        self._connection.register("with_factors", pa.table({"i": known.astype(np.int32)}))

    def _catalogue(self) -> Iterator[str]:
        """The items; the catalogue must have each of the model's, in order."""
        table = pq.read_table(self._folder / f"{_CATALOGUE}.parquet")
        expected = {
            ITEM: self._items.type,
            RECOMMENDABLE: pa.bool_(),
            REASON: pa.string(),
            CATEGORY: pa.string(),
        }
        if unlike := _unlike(table.schema, expected):
            yield f"{_CATALOGUE}: {unlike}"
            return
        if not table[ITEM].combine_chunks().equals(self._items):
            yield f"{_CATALOGUE}: it does not have the {len(self._items):,} items of the model in their order"
            return
        self._most_per_category = stored_metadata(table).get("max_per_category", 0)
        # One number a category; without a limit all items are of the same.
        number = f'dense_rank() OVER (ORDER BY "{CATEGORY}")' if self._most_per_category else "0"
        self._connection.register("catalogue", table.append_column("i", _numbers(len(table))))
        self._connection.execute(
            f"""
            CREATE TABLE items AS SELECT "{ITEM}" AS id, i, "{RECOMMENDABLE}" AS recommendable,
                (CASE WHEN "{CATEGORY}" IS NULL THEN 0 ELSE {number} END)::INTEGER AS category
            FROM catalogue
            """
        )
        claims = {"items have a reason although they are recommendable, or none": f"good <> ({REASON} = '')"}
        rows = f'SELECT "{ITEM}" AS id, "{RECOMMENDABLE}" AS good, "{REASON}" AS {REASON} FROM catalogue'
        yield from self._counted(_CATALOGUE, claims, rows, ["id"], repr)

    def _lists(self, table: _ListTable) -> Iterator[str]:
        file = self._folder / f"{table.name}.parquet"
        schema = pq.read_schema(file)
        if unlike := _unlike(schema, table.columns({USER: self._users.type, ITEM: self._items.type})):
            yield f"{table.name}: {unlike}"
            return
        stored = stored_metadata(schema.empty_table())
        n, target_events = stored.get("n"), stored.get("target_events")
        scorer = stored.get("scorer", "")
        if not isinstance(n, int) or n < 1:
            yield f"{table.name}: it does not say how long its lists may be"
            return
        self._connection.read_parquet(str(file)).create_view("lists", replace=True)
        yield from self._row_by_row(table, n, scorer)
        yield from self._of_the_model(table)
        yield from self._listed(table)
        if table is _SIMILAR_ITEMS:
            # How many neighbours an item has in a graph, only the graph knows.
            yield from () if scorer == GRAPH else self._short_of_similar(n)
        elif isinstance(target_events, list):
            yield from self._short(table, n, target_events)
        else:
            yield f"{table.name}: it does not say which events make an item popular"

    def _row_by_row(self, table: _ListTable, n: int, scorer: str) -> Iterator[str]:
        """What a row and the one before it show."""
        key, source = (f'"{table.key}"' if table.key else "0"), (f'"{SOURCE}"' if table.sourced else "''")
        claims = {
            f"rows are not in the order of {table.key}": "key < key_before",
            "rows have another rank than the next of their list, from 1 on": (
                "rank IS DISTINCT FROM CASE WHEN continues THEN rank_before + 1 ELSE 1 END"
            ),
            f"rows are beyond rank {n}": f"rank > {n}",
            "rows have a score that is not finite": "score IS NULL OR NOT isfinite(score)",
            "rows have a score that stands for none": f"isfinite(score) AND abs(score) >= {_PLACEHOLDER}",
            "rows have a higher score than the row before, of the same list and source": (
                "continues AND source = source_before AND score > score_before "
                "AND isfinite(score) AND isfinite(score_before)"
            ),
        }
        if table.sourced:
            claims["rows have no known source"] = "coalesce(source, '') NOT IN ('als', 'blend', 'popular')"
            claims["rows of a model come after popular items or another model's"] = (
                "continues AND source <> source_before AND source <> 'popular'"
            )
        if table is _SIMILAR_ITEMS:
            claims["items are similar to themselves"] = "key = listed"
            if scorer == GRAPH:
                claims["rows have a score that is no weight of an edge"] = "isfinite(score) AND score <= 0"
            else:
                claims["rows have a score that is no cosine"] = "isfinite(score) AND abs(score) > 1"
        # Without an order of its own a window follows the rows as they stand in the file, as a stream.
        rows = f"""
            SELECT *, coalesce(key = key_before, false) AS continues FROM (
                SELECT {key} AS key, "{table.listed}" AS listed, "{RANK}" AS rank, "{SCORE}" AS score,
                    {source} AS source, lag({key}) OVER () AS key_before,
                    lag("{RANK}") OVER () AS rank_before, lag("{SCORE}") OVER () AS score_before,
                    lag({source}) OVER () AS source_before
                FROM lists
            )"""
        shown = ["key", "rank"]
        yield from self._counted(
            table.name, claims, rows, shown, lambda key, rank: f"{table.whose(key)}rank {rank}"
        )

    def _of_the_model(self, table: _ListTable) -> Iterator[str]:
        """Whom and what the model knows; the table `listed` then has numbers (k, i) in place of the ids."""
        keys = f'LEFT JOIN {table.keys} AS keys ON keys.id = lists."{table.key}"' if table.key else ""
        k = "keys.i" if table.key else "0"
        joined = f'FROM lists LEFT JOIN items ON items.id = lists."{table.listed}" {keys}'
        key = f'lists."{table.key}"' if table.key else "0"
        claims = {
            f"rows are of no {table.key} of the model": "k IS NULL",
            f"rows list no {ITEM} of the model": "i IS NULL",
        }
        rows = f'SELECT {k} AS k, items.i AS i, {key} AS key, "{table.listed}" AS item {joined}'
        yield from self._counted(
            table.name, claims, rows, ["key", "item"], lambda key, item: f"{table.whose(key)}{item!r}"
        )
        self._connection.execute(
            "CREATE OR REPLACE TABLE listed AS "
            f"SELECT {k} AS k, items.i AS i, items.recommendable, items.category {joined}"
        )

    def _listed(self, table: _ListTable) -> Iterator[str]:
        """What is listed for whom."""
        violations = {
            "rows list an item that is not recommendable": "SELECT k, i FROM listed WHERE NOT recommendable",
            "items are more than once in a list": "SELECT k, i FROM listed GROUP BY k, i HAVING count(*) > 1",
        }
        if most := self._most_per_category:
            violations[f"lists have more than {most:,} items of a category"] = f"""
                SELECT k, first(i) AS i FROM listed WHERE category > 0
                GROUP BY k, category HAVING count(*) > {most}
                """
        if table is _RECOMMENDATIONS:
            violations["rows recommend an item that is excluded for the user"] = f"""
                SELECT k, i FROM listed JOIN user_items ON k = "{USER_INDEX}" AND i = "{ITEM_INDEX}"
                WHERE "{EXCLUDED}"
                """

        def tell(k: int | None, i: int | None) -> str:
            item = None if i is None else self._items[i].as_py()
            return f"{table.whose(self._key(table, k))}{item!r}"

        for what, rows in violations.items():
            yield from self._counted(table.name, {what: "true"}, rows, ["k", "i"], tell)

    def _short(self, table: _ListTable, n: int, target_events: Sequence[str]) -> Iterator[str]:
        """Lists of fewer than n items that a popular item could be added to; users without a list among them.

        It could where some category has room in the list, and more popular items than are listed or excluded.
        """
        everybody = "SELECT i AS k FROM users" if table.key else "SELECT 0 AS k"
        had_one = " OR ".join(f'"{count_column(event)}" > 0' for event in target_events) or "false"
        excluded = (
            f'UNION SELECT "{USER_INDEX}" AS k, "{ITEM_INDEX}" AS i FROM user_items WHERE "{EXCLUDED}"'
            if table.key
            else ""
        )
        most = self._most_per_category
        has_room = f"(category = 0 OR n_listed < {most})" if most else "true"
        tables = {
            "short": f"""
                SELECT k, coalesce(n_listed, 0) AS n_listed FROM ({everybody})
                LEFT JOIN (SELECT k, count(*) AS n_listed FROM listed GROUP BY k) USING (k)
                WHERE coalesce(n_listed, 0) < {n}
                """,
            "popular": f"""
                SELECT i, category FROM items
                WHERE recommendable AND i IN (SELECT "{ITEM_INDEX}" FROM user_items WHERE {had_one})
                """,
            "supply": "SELECT category, count(*) AS n_popular FROM popular GROUP BY category",
            # By list and category: how many popular items are not to be had, and how many items are listed.
            "taken": f"""
                SELECT k, category, sum(n_taken) AS n_taken, sum(n_listed) AS n_listed FROM (
                    SELECT k, category, count(*) AS n_taken, 0 AS n_listed
                    FROM (SELECT k, i FROM listed {excluded}) SEMI JOIN short USING (k) JOIN popular USING (i)
                    GROUP BY k, category
                    UNION ALL
                    SELECT k, category, 0, count(*) FROM listed SEMI JOIN short USING (k)
                    GROUP BY k, category)
                SEMI JOIN supply USING (category) GROUP BY k, category
                """,
            "left_over": f"""
                SELECT k, count(*) AS n_categories, bool_or(n_popular > n_taken AND {has_room}) AS more
                FROM taken JOIN supply USING (category) GROUP BY k
                """,
        }
        for name, query in tables.items():
            self._connection.execute(f"CREATE OR REPLACE TABLE {name} AS {query}")
        rows = """
            SELECT k, n_listed FROM short LEFT JOIN left_over USING (k)
            WHERE coalesce(n_categories, 0) < (SELECT count(*) FROM supply) OR more
            """
        what = f"lists have fewer than {n} items although popular ones are left"
        yield from self._counted(
            table.name,
            {what: "true"},
            rows,
            ["k", "n_listed"],
            lambda k, n_listed: f"{table.whose(self._key(table, k))}{n_listed} items",
        )

    def _short_of_similar(self, n: int) -> Iterator[str]:
        """Lists of fewer than n items although there are more that the model knows and that may be listed."""
        most = self._most_per_category
        n_listable = f"CASE WHEN category = 0 THEN count(*) ELSE least(count(*), {most}) END"
        tables = {
            "known": "SELECT i, category, recommendable FROM items SEMI JOIN with_factors USING (i)",
            "room": f"""
                SELECT category, count(*) AS n_there, {n_listable} AS n_listable
                FROM known WHERE recommendable GROUP BY category
                """,
        }
        for name, query in tables.items():
            self._connection.execute(f"CREATE OR REPLACE TABLE {name} AS {query}")
        # An item takes up room in its own list only where its category has none to spare.
        rows = f"""
            SELECT k, n_listed FROM (
                SELECT i AS k, coalesce(n_listed, 0) AS n_listed,
                    (SELECT sum(n_listable) FROM room)
                    - (recommendable AND (category = 0 OR n_there <= {most}))::INTEGER AS n_left
                FROM known LEFT JOIN room USING (category)
                LEFT JOIN (SELECT k AS i, count(*) AS n_listed FROM listed GROUP BY k) USING (i)
            ) WHERE n_listed < least({n}, n_left)
            """
        yield from self._counted(
            _SIMILAR_ITEMS.name,
            {f"lists have fewer than {n} items although others are left": "true"},
            rows,
            ["k", "n_listed"],
            lambda k, n_listed: f"{_SIMILAR_ITEMS.whose(self._key(_SIMILAR_ITEMS, k))}{n_listed} items",
        )

    def _counted(
        self, name: str, claims: Mapping[str, str], rows: str, shown: Sequence[str], tell: _Tell
    ) -> Iterator[str]:
        """For how many rows each condition holds, by what it means; `tell` gets the shown columns of one."""
        counted = ", ".join(
            f"count(*) FILTER (WHERE {condition}), "
            + ", ".join(f"first({column}) FILTER (WHERE {condition})" for column in shown)
            for condition in claims.values()
        )
        (found,) = self._connection.execute(f"SELECT {counted} FROM ({rows})").fetchall()
        width = 1 + len(shown)
        for place, what in enumerate(claims):
            count, *example = found[width * place : width * (place + 1)]
            if count:
                yield f"{name}: {count:,} {what}, such as {tell(*example)}"

    def _key(self, table: _ListTable, number: int | None) -> object:
        """The raw id of this number; None for nobody whom the model knows."""
        ids = self._users if table.keys == "users" else self._items
        return ids[number].as_py() if table.key and number is not None else None


def _mapped(path: Path) -> pa.Table:
    """The table of an Arrow file, of which only what is used is read."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def _numbered(ids: pa.Array) -> pa.Table:
    return pa.table({"id": ids, "i": _numbers(len(ids))})


def _numbers(n: int) -> pa.Array:
    return pa.array(np.arange(n, dtype=np.int32))


def _unlike(schema: pa.Schema, expected: Mapping[str, pa.DataType]) -> str:
    """What is wrong with the columns of a table; empty for nothing."""
    if dict(zip(schema.names, schema.types, strict=True)) == expected:
        return ""
    return f"its columns are not {', '.join(f'{name} ({kind})' for name, kind in expected.items())}"


def _is_of_the_machine(error: Exception) -> bool:
    """Whether an error says nothing of the file: memory or space is missing, or a disk fails."""
    import duckdb

    if isinstance(error, duckdb.Error):
        return isinstance(error, duckdb.OutOfMemoryException) or _NO_SPACE in str(error)
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
