"""Reading a feed, or a file of it, whatever its format."""

from upath import UPath

from recsys_pipeline.core.errors import naming
from recsys_pipeline.core.locations import database_feed
from recsys_pipeline.storage.feedback import Feedback, FileFormat
from recsys_pipeline.storage.feeds.csv_rows import read_csv
from recsys_pipeline.storage.feeds.database_rows import read_database
from recsys_pipeline.storage.feeds.files import files_behind, format_of
from recsys_pipeline.storage.feeds.parquet_rows import read_parquet
from recsys_pipeline.storage.feeds.rows import Batches, Columns


def names_of_sources(feedback: Feedback) -> tuple[list[str], list[UPath]]:
    """The names of what a feed is read from, and what lies beside its files and is not read.

    Raises:
        InputError: there are no files.
    """
    if database := database_feed(feedback.path):
        return [str(database)], []
    files, skipped = files_behind(feedback.path)
    return [str(file) for file in files], skipped


def batches_of(name: str, feedback: Feedback, columns: Columns) -> Batches:
    """The rows of a source of that name, read as they are asked for.

    Raises:
        InputError: see `read_rows` and `read_database`.
    """
    if database := database_feed(feedback.path):
        return read_database(database, columns)
    return read_rows(UPath(name), columns, feedback)


def files_of_feed(feedback: Feedback) -> list[UPath] | None:
    """The files whose content is the feed; None for a database, which has no cheap sign of a change.

    Whoever asks whether a feed has changed takes None for yes.

    Raises:
        InputError: there are none.
    """
    return None if database_feed(feedback.path) else files_behind(feedback.path)[0]


def files_beside_the_feed(feedback: Feedback) -> list[UPath]:
    """The files beside the feed on whose content the events depend: who is forgotten, and the query.

    Raises:
        InputError: one is missing.
    """
    database = database_feed(feedback.path)
    named = {
        "RECSYS_FORGET_USERS, or `forget_users` of the `feedback` resource": feedback.forget_users,
        "RECSYS_FEEDBACK": database.query if database else "",
    }
    return [file for setting, path in named.items() if path for file in files_behind(path, setting)[0]]


def read_rows(file: UPath, columns: Columns, feedback: Feedback) -> Batches:
    """The rows of a file, a batch at a time.

    Raises:
        InputError: the file is damaged, or is not as `feedback` says.
    """
    is_csv = format_of(file, feedback.format) is FileFormat.csv
    with naming(file):
        yield from read_csv(file, columns, feedback) if is_csv else read_parquet(file, columns)
