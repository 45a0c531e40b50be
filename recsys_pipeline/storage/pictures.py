"""The pictures of an asset: `pictures/<asset>/<name>.png` in the warehouse, replaced all at once.

They are a state of their own, so that a picture that fails leaves the asset's tables alone. `pictures.json`
beside them says what they were drawn from.
"""

import json
from collections.abc import Sequence

from upath import UPath

from recsys_pipeline.core.picture import Picture
from recsys_pipeline.storage.states import States

FOLDER = "pictures"
_INDEX = "pictures.json"


def write_pictures(warehouse: UPath, asset: str, pictures: Sequence[Picture], drawn_from: str) -> UPath:
    """Replace the pictures of an asset.

    Args:
        warehouse: its root.
        asset: whose pictures they are.
        pictures: with names that differ.
        drawn_from: what they show: the write id of a state, or a digest of tables.

    Returns:
        The folder for readers without this package.
    """
    states = _states(warehouse, asset)
    with states.replacing() as folder:
        for picture in pictures:
            (folder / picture.file).write_bytes(picture.content)
        told = {"drawn_from": drawn_from, "titles": {each.name: each.title for each in pictures}}
        (folder / _INDEX).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return states.plain_path()


def read_pictures(warehouse: UPath, asset: str, drawn_from: str) -> list[Picture]:
    """The pictures of an asset that were drawn from this, verified; none where there are no such pictures.

    Raises:
        InputError: they are not what was written.
    """

    def reader(folder: UPath, _: list[str]) -> list[Picture]:
        told = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        if told["drawn_from"] != drawn_from:
            return []
        return [
            Picture(name, title, (folder / Picture(name, title, b"").file).read_bytes())
            for name, title in told["titles"].items()
        ]

    states = _states(warehouse, asset)
    return states.read(reader)[0] if states.exists() else []


def _states(warehouse: UPath, asset: str) -> States:
    return States(warehouse, f"{FOLDER}/{asset}")
