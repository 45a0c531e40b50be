"""How a picture gets into the UI and into a text."""

import base64
from collections.abc import Iterable, Mapping, Sequence

from dagster import MetadataValue

from recsys_pipeline.core.picture import Picture
from recsys_pipeline.reporting.metadata import Metadata, escaped


def picture_metadata(pictures: Sequence[Picture]) -> Metadata:
    """An entry a picture."""
    return {
        f"picture of {each.told_name}": MetadataValue.md(f"![{escaped(each.title)}]({data_uri(each)})")
        for each in pictures
    }


def data_uri(picture: Picture) -> str:
    """The picture itself, in place of the address of a file."""
    return f"data:image/png;base64,{base64.b64encode(picture.content).decode('ascii')}"


def references(pictures: Iterable[Mapping[str, str]]) -> list[str]:
    """Paragraphs with the pictures that lie beside the text, of what `Picture.reference` tells."""
    return [f"![{escaped(each['title'])}]({each['file']})" for each in pictures]


def with_embedded(text: str, pictures: Iterable[Picture]) -> str:
    """The text with the pictures themselves where it refers to the files beside it."""
    for each in pictures:
        # Names in the text are escaped: only a reference of ours has such brackets.
        text = text.replace(f"]({each.file})", f"]({data_uri(each)})")
    return text
