"""The files behind a path, a folder or a glob."""

import re
from collections.abc import Iterable

from upath import UPath

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.storage.feedback import FileFormat
from recsys_pipeline.storage.locations import opened_location

_CSV_ENDINGS = (".csv", ".csv.gz")
_PARQUET_ENDINGS = (".parquet",)
_GLOB_SIGNS = "*?["
_FEEDBACK = "RECSYS_FEEDBACK, or `path` of the `feedback` resource"


# Stands for the day, such as 2026-01-31, in the location of a feed that has files for each.
DAY = "{day}"
_ANY_DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"


def files_behind(location: str, setting: str = _FEEDBACK) -> tuple[list[UPath], list[UPath]]:
    """The files behind a location, in the order of their names, and what lies beside them and is not read.

    A path that exists is taken as it is, whatever signs of a glob it holds. Of a folder the files in it are
    read, but not those in its subfolders; names with a leading dot or underscore are marks that other tools
    leave, such as _SUCCESS, and count as neither. `{day}` stands for every day.

    Args:
        location: path or URL.
        setting: what names it, for messages.

    Raises:
        InputError: there is none, or it is neither a file nor a folder.
    """
    location = location.replace(DAY, _ANY_DAY)
    path = opened_location(location)
    if path.is_dir():
        files, others = _sorted_out(entry for entry in path.iterdir() if entry.name[0] not in "._")
        if not files:
            raise InputError(
                f"the folder {location} holds no file to read{_beside(others)}. For files in subfolders "
                f"name a glob, such as {location.rstrip('/')}/*/*.parquet."
            )
        return files, others
    if path.is_file():
        return [path], []
    if path.exists():
        raise InputError(
            f"{location} is neither a file nor a folder: a pipe or a device cannot be read twice."
        )
    if any(sign in location for sign in _GLOB_SIGNS):
        before, after = _split_glob(path)
        files, others = _sorted_out(before.glob(after))
        if not files:
            raise InputError(f"no file matches {location}{_beside(others)}. Check the path ({setting}).")
        return files, others
    raise InputError(f"{location} does not exist. Set {setting}.")


def day_in(location: str, file: UPath) -> str:
    """The day that a file of a location with the placeholder belongs to, as 2026-01-31."""
    before, after = (re.split(r"[*?/\[\]]", part) for part in location.split(DAY)[:2])
    found = re.search(rf"{re.escape(before[-1])}(\d{{4}}-\d\d-\d\d){re.escape(after[0])}", str(file))
    assert found, file
    return found[1]


def _sorted_out(entries: Iterable[UPath]) -> tuple[list[UPath], list[UPath]]:
    files: list[UPath] = []
    others: list[UPath] = []
    for entry in sorted(entries, key=str):
        (files if entry.is_file() else others).append(entry)
    return files, others


def _beside(others: list[UPath]) -> str:
    return f", only {', '.join(path.name for path in others[:3])}" if others else ""


def _split_glob(path: UPath) -> tuple[UPath, str]:
    parts: list[str] = []
    while any(sign in str(path) for sign in _GLOB_SIGNS):
        parts.insert(0, path.name)
        path = path.parent
    return path, "/".join(parts)


def format_of(file: UPath, wanted: FileFormat) -> FileFormat:
    """CSV or Parquet: the wanted one, or with `auto` by the ending.

    Raises:
        InputError: the ending does not tell.
    """
    if wanted is not FileFormat.auto:
        return wanted
    name = file.name.lower()
    if name.endswith(_CSV_ENDINGS):
        return FileFormat.csv
    if name.endswith(_PARQUET_ENDINGS):
        return FileFormat.parquet
    raise InputError(
        f"{file}: cannot tell the format by the ending; it is none of "
        f"{', '.join((*_CSV_ENDINGS, *_PARQUET_ENDINGS))}. Set `format`, or choose the files by a glob."
    )
