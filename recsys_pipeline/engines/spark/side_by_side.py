"""Work on the parts of something, such as the files of a feed, a task of the cluster each."""

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa

from recsys_pipeline.engines.engine import Noted
from recsys_pipeline.engines.spark.frames import Scratch, collected

_NOTE = "note"


def each(
    scratch: Scratch, work: Callable[[str], Iterable[Noted]], parts: Sequence[str]
) -> Iterator[Iterable[Noted]]:
    """See `recsys_pipeline.engines.engine.Engine`.

    A worker writes what it makes of a part into a file, whole or not at all; this process reads that.
    """
    folder = scratch.shared_folder("parts")
    given = list(parts)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for place in batch["id"].to_pylist():
                _write(work(given[place]), folder / f"{place}.arrow")
            yield batch

    if given:
        tasks = scratch.spark.range(0, len(given), 1, len(given))
        collected(tasks.mapInArrow(run, "id long"))
    for place in range(len(given)):
        yield _read(folder / f"{place}.arrow")


def _write(rows: Iterable[Noted], path: Path) -> None:
    """Streams of Arrow one after another, a new one where the columns change."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with pa.OSFile(str(partial), "wb") as file, ExitStack() as stream:
        schema = None
        for batch, note in rows:
            if batch.schema != schema:
                stream.close()
                schema = batch.schema
                writer = stream.enter_context(pa.ipc.new_stream(file, schema))
            writer.write_batch(batch, custom_metadata={_NOTE: json.dumps(note)})
    os.replace(partial, path)


def _read(path: Path) -> Iterator[Noted]:
    with pa.OSFile(str(path), "rb") as file:
        while file.tell() < file.size():
            reader = pa.ipc.open_stream(file)
            while True:
                try:
                    batch, metadata = reader.read_next_batch_with_custom_metadata()
                except StopIteration:
                    break
                yield batch, json.loads(metadata[_NOTE])
    path.unlink()
