"""Work on parts, such as the files of a feed or blocks of rows, a task of the cluster each."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa

from recsys_pipeline.engines.engine import Noted
from recsys_pipeline.engines.spark.frames import Scratch, collected, whole

_NOTE = "note"


def on_workers(scratch: Scratch, work: Callable[[int], object], n: int) -> None:
    """Do this for 0, 1 and so on, before n: a task of the cluster each."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch["id"].to_pylist():
                work(number)
            yield batch

    if n:
        collected(scratch.spark.range(0, n, 1, n).mapInArrow(run, "id long"))


def each(
    scratch: Scratch, work: Callable[[str], Iterable[Noted]], parts: Sequence[str]
) -> Iterator[Iterable[Noted]]:
    """See `recsys_pipeline.engines.engine.Engine`.

    A worker writes what it makes of a part into a file; this process reads that.
    """
    folder = scratch.shared_folder("parts")
    given = list(parts)
    on_workers(scratch, lambda place: _write(work(given[place]), folder / f"{place}.arrow"), len(given))
    for place in range(len(given)):
        yield _read(folder / f"{place}.arrow")


def _write(rows: Iterable[Noted], path: Path) -> None:
    """Streams of Arrow one after another, a new one where the columns change."""
    with whole(str(path)) as partial, pa.OSFile(partial, "wb") as file, ExitStack() as stream:
        schema = None
        for batch, note in rows:
            if batch.schema != schema:
                stream.close()
                schema = batch.schema
                writer = stream.enter_context(pa.ipc.new_stream(file, schema))
            writer.write_batch(batch, custom_metadata={_NOTE: json.dumps(note)})


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
