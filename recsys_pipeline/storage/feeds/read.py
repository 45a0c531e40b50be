"""Reading a file of a feed, whatever its format."""

from upath import UPath

from recsys_pipeline.core.errors import naming
from recsys_pipeline.storage.feedback import Feedback, FileFormat
from recsys_pipeline.storage.feeds.csv_rows import read_csv
from recsys_pipeline.storage.feeds.files import format_of
from recsys_pipeline.storage.feeds.parquet_rows import read_parquet
from recsys_pipeline.storage.feeds.rows import Batches, Columns


def read_rows(file: UPath, columns: Columns, feedback: Feedback) -> Batches:
    """The rows of a file, a batch at a time.

    Raises:
        InputError: the file is damaged, or is not as `feedback` says.
    """
    is_csv = format_of(file, feedback.format) is FileFormat.csv
    with naming(file):
        yield from read_csv(file, columns, feedback) if is_csv else read_parquet(file, columns)
