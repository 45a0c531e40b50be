"""The type of every configuration field that holds a path or URL."""

from typing import Annotated

from pydantic import AfterValidator, ConfigDict

from recsys_pipeline.core.locations import checked_location

Location = Annotated[str, AfterValidator(checked_location)]


def _checked_if_given(text: str) -> str:
    return text if text == "" else checked_location(text)


OptionalLocation = Annotated[str, AfterValidator(_checked_if_given)]

# Of every class with such a field: defaults are checked too, and no message repeats what it refuses.
LOCATION_CONFIG = ConfigDict(validate_default=True, hide_input_in_errors=True)
