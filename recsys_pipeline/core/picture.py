"""A picture, and how to tell what it was drawn from."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

SUFFIX = ".png"


class Picture(NamedTuple):
    """A picture as it is shown and kept.

    Attributes:
        name: in snake_case, unique in the project; its file is called so.
        title: what it says, for people; may have names in it that come from the feed.
        content: PNG.
    """

    name: str
    title: str
    content: bytes

    @property
    def file(self) -> str:
        """Name of its file."""
        return self.name + SUFFIX

    @property
    def told_name(self) -> str:
        """Its name for people."""
        return self.name.replace("_", " ")

    def reference(self) -> Mapping[str, str]:
        """File and title, as JSON."""
        return {"file": self.file, "title": self.title}


def content_digest(*tables: pa.Table) -> str:
    """A digest of the rows of small tables, the same before they are written and after they are read."""
    digest = hashlib.sha256()
    for table in tables:
        digest.update(repr(table.to_pylist()).encode())
    return digest.hexdigest()
