"""One door to a table, which hides whether it is a file or a folder of part files.

A file carries its metadata in the Parquet footer. A folder, as Spark writes it, has no footer of ours: one
small file inside it carries the metadata.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from recsys_pipeline.core.errors import naming
from recsys_pipeline.core.factors import Rows
from recsys_pipeline.core.metadata import KEY
from recsys_pipeline.storage.atomic import fetched, is_local, local_path

if TYPE_CHECKING:
    import pyarrow.dataset as ds

COMPRESSION = "zstd"
# Readers of Parquet folders skip names with a leading underscore.
FOLDER_METADATA = "_recsys_pipeline.json"


def write_table(rows: Rows, path: Path) -> int:
    """Write a table as one file; of a stream, which is never held whole, a row group a batch.

    Returns:
        How many rows were written.
    """
    if isinstance(rows, pa.Table):
        pq.write_table(rows, path, compression=COMPRESSION)
        return int(rows.num_rows)
    n_rows = 0
    with pq.ParquetWriter(path, rows.schema, compression=COMPRESSION) as writer:
        for batch in rows:
            writer.write_batch(batch)
            n_rows += batch.num_rows
    return n_rows


def read_table(path: UPath, columns: list[str] | None = None) -> pa.Table:
    """The table, or some columns of it, with its metadata; `path` is a file or a folder of part files."""
    if path.is_dir() or not is_local(path):
        return open_table(path).to_table(columns=columns)
    # Not `pq.read_table`, which goes through datasets.
    with naming(path), pq.ParquetFile(str(local_path(path))) as file:
        return file.read(columns=columns)


def open_table(path: UPath, *, stays: bool = True) -> "ds.Dataset":
    """The table with its metadata, to be read as a stream; `path` is a file or a folder of part files.

    Args:
        path: of the table; of an object store a copy is fetched.
        stays: whether the files are there for as long as the table is used; if not, they are mapped.
    """
    # Imported here: it loads pandas, and only a table that is a folder or a stream needs it.
    import pyarrow.dataset as ds

    if not is_local(path):
        with fetched(path) as copy:
            return open_table(UPath(copy), stays=False)
    source = str(local_path(path))
    dataset = ds.dataset(source, format="parquet")
    told: bytes | None
    if path.is_dir():
        told = (path / FOLDER_METADATA).read_bytes()
    else:
        # The schema of a dataset lacks what was added when the last row had been written.
        told = (pq.read_metadata(source).metadata or {}).get(KEY)
    if not stays:
        dataset = _mapped(dataset)
    if told is not None:
        metadata = {**(dataset.schema.metadata or {}), KEY: told}
        dataset = dataset.replace_schema(dataset.schema.with_metadata(metadata))
    return dataset


def _mapped(dataset: "ds.FileSystemDataset") -> "ds.Dataset":
    """The dataset, whose files may be removed from now on.

    Mapped by Arrow, so that its threads hold no object of Python's.
    """
    import pyarrow.dataset as ds

    fragments = []
    for name in dataset.files:
        with pa.memory_map(name) as file:
            fragments.append(dataset.format.make_fragment(file.read_buffer()))
    mapped = ds.FileSystemDataset(fragments, dataset.schema, dataset.format)
    # Not the dataset of files itself: it has no file system, and to ask which one ends the process.
    return ds.UnionDataset(dataset.schema, [mapped])


def schema_of(path: UPath) -> pa.Schema:
    """The schema of a table; `path` is a file or a folder of part files."""
    if is_local(path):
        return open_table(path).schema
    with path.open("rb") as opened, pq.ParquetFile(opened) as file:
        told = (file.metadata.metadata or {}).get(KEY)
        schema = file.schema_arrow
    return schema if told is None else schema.with_metadata({**(schema.metadata or {}), KEY: told})


def parse_parquet(content: bytes, columns: list[str] | None = None) -> pa.Table:
    """The table in the content of a Parquet file, or some columns of it.

    From a copy in Arrow's own memory: given an object of Python's, bytes or a file, Arrow's threads may still
    hold it when the interpreter ends, which aborts the process.
    """
    copy = pa.BufferOutputStream()
    copy.write(content)
    # Not `pq.read_table`, which goes through datasets and forgets what was added after the last row.
    with pq.ParquetFile(pa.BufferReader(copy.getvalue())) as file:
        return file.read(columns=columns)
