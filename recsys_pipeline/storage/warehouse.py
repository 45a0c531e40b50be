"""The warehouse: one folder, or one URL of an object store, that holds every artefact as Parquet."""

import hashlib
import re

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from dagster import (
    ConfigurableIOManager,
    ConfigurableResource,
    InputContext,
    OutputContext,
    ResourceDependency,
)
from pydantic import Field, field_validator
from upath import UPath

from recsys_pipeline import settings
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.failures import sorted_failures
from recsys_pipeline.reporting.metadata import table_metadata
from recsys_pipeline.storage.atomic import atomic_file, is_local, local_path
from recsys_pipeline.storage.tables import COMPRESSION, notes_of, read_parquet, with_notes


def without_secrets(path: str) -> str:
    """`path`, refused when it carries a password: configuration is shown in the UI and in logs.

    Raises:
        ValueError: a URL of the form scheme://user:password@host.
    """
    if re.match(r"[A-Za-z0-9+.-]+://[^/@]*:[^/@]*@", path):
        raise ValueError(
            "the URL holds a password, which would show in the UI and in logs; "
            "leave it out and give the credentials by the environment variables of the object store"
        )
    return path


class Warehouse(ConfigurableResource):  # type: ignore[type-arg]  # not generic at run time
    """Where the artefacts are."""

    path: str = Field(
        default=settings.WAREHOUSE,
        description="Folder or object-store URL that holds every artefact (RECSYS_WAREHOUSE).",
    )

    _no_password = field_validator("path")(without_secrets)

    @property
    def root(self) -> UPath:
        """The folder itself."""
        return UPath(self.path)

    def table_path(self, *names: str) -> UPath:
        """The file of the table `names`: `("bm25_matrix", "users")` is bm25_matrix/users.parquet."""
        return self.root.joinpath(*names[:-1], f"{names[-1]}.parquet")

    def write_table(self, table: pa.Table, *names: str) -> UPath:
        """Write a table atomically and say where."""
        target = self.table_path(*names)
        with atomic_file(target) as staged:
            pq.write_table(table, staged, compression=COMPRESSION)
        return target

    def read_table(self, *names: str) -> pa.Table:
        """The table.

        Raises:
            InputError: it does not exist, or is not Parquet.
        """
        path = self.table_path(*names)
        try:
            return read_parquet(path)
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            raise _unusable(path, names[0], error) from None

    def read_tables(self, folder: str) -> "Tables":
        """All tables of a folder by name.

        Raises:
            InputError: there is none, or they were not written together.
        """
        names = sorted(path.stem for path in (self.root / folder).glob("*.parquet"))
        tables = {name: self.read_table(folder, name) for name in names}
        if len({notes_of(table).get("mark") for table in tables.values()}) != 1:
            state = "holds tables of different runs" if tables else "does not exist"
            raise InputError(f"{self.root / folder} {state}: materialize the asset `{folder}` again.")
        return tables

    def open_table(self, *names: str) -> ds.Dataset:
        """The table, to be read as a stream.

        Raises:
            InputError: it does not exist, or is not Parquet.
        """
        path = self.table_path(*names)
        try:
            if is_local(path):
                return ds.dataset(str(local_path(path)), format="parquet")
            return ds.dataset(path.path, format="parquet", filesystem=path.fs)
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            raise _unusable(path, names[0], error) from None

    def fingerprint(self, *names: str) -> str:
        """SHA-256 of the table's file."""
        with self.table_path(*names).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _unusable(path: UPath, asset: str, error: Exception) -> InputError:
    what = "does not exist" if isinstance(error, FileNotFoundError) else "is not a readable Parquet file"
    return InputError(f"{path} {what}: materialize the asset `{asset}` again.")


Tables = dict[str, pa.Table]


class _Hash:
    """A file that keeps nothing but the SHA-256 of what is written to it."""

    closed = False

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return len(data)

    def close(self) -> None:
        self.closed = True


def _mark_of(tables: Tables) -> str:
    """SHA-256 of the content of all tables."""
    sink = _Hash()
    for _, table in sorted(tables.items()):
        with pa.ipc.new_stream(pa.PythonFile(sink, "w"), table.schema) as stream:
            stream.write_table(table)
    return sink.sha256.hexdigest()


class WarehouseIOManager(ConfigurableIOManager):
    """Keeps a table as `<asset>.parquet`, a dictionary of tables as `<asset>/<name>.parquet`.

    A table is handed on as `pyarrow.Table`, or as `pyarrow.dataset.Dataset` to be read as a stream.
    """

    warehouse: ResourceDependency[Warehouse]

    @sorted_failures()
    def handle_output(self, context: OutputContext, obj: pa.Table | Tables) -> None:
        """Write the tables and add path, rows and columns to the materialization."""
        asset = context.asset_key.path[-1]
        if isinstance(obj, pa.Table):
            path = self.warehouse.write_table(obj, asset)
            context.add_output_metadata(table_metadata(obj.schema, obj.num_rows, path))
            return
        # Several files cannot be replaced at once. They carry a common mark, by which a reader knows
        # that they belong together.
        mark = _mark_of(obj)
        for name, table in obj.items():
            self.warehouse.write_table(with_notes(table, {**notes_of(table), "mark": mark}), asset, name)
        first = next(iter(obj.values()))
        folder = self.warehouse.root / asset
        context.add_output_metadata(table_metadata(first.schema, first.num_rows, folder))

    @sorted_failures()
    def load_input(self, context: InputContext) -> pa.Table | ds.Dataset | Tables:
        """Read what the asset asks for by the type of its argument."""
        asset = context.asset_key.path[-1]
        wanted = context.dagster_type.typing_type
        if wanted is ds.Dataset:
            return self.warehouse.open_table(asset)
        if wanted is pa.Table:
            return self.warehouse.read_table(asset)
        return self.warehouse.read_tables(asset)
