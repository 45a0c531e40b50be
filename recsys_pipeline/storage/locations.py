"""The type of every configuration field that holds a path or URL."""

from typing import Annotated

from pydantic import AfterValidator, ConfigDict
from upath import UPath

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.locations import checked_database, checked_feed, checked_location, checked_tracker

_EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "azure"),
}

Location = Annotated[str, AfterValidator(checked_location)]

FeedLocation = Annotated[str, AfterValidator(checked_feed)]


def _checked_if_given(text: str) -> str:
    return text if text == "" else checked_location(text)


OptionalLocation = Annotated[str, AfterValidator(_checked_if_given)]
OptionalDatabase = Annotated[str, AfterValidator(lambda text: checked_database(text) if text else "")]
OptionalTracker = Annotated[str, AfterValidator(lambda text: checked_tracker(text) if text else "")]


def opened_location(location: str) -> UPath:
    """The path or URL, whose file system is at hand.

    Raises:
        InputError: the package for this kind of URL is not installed.
    """
    path = UPath(location)
    try:
        _ = path.fs
    except ImportError as error:
        extra = _EXTRAS.get(path.protocol)
        mend = f": .venv/bin/pip install -e '.[{extra}]'" if extra else ""
        raise InputError(f"{location} needs a package that is not installed ({error}){mend}.") from None
    return path


# Of every class with such a field: defaults are checked too, and no message repeats what it refuses.
LOCATION_CONFIG = ConfigDict(validate_default=True, hide_input_in_errors=True)
