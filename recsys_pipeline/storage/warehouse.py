"""The warehouse: one folder, or one URL of an object store, that holds every artefact, tables as Parquet."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from dagster import ConfigurableResource, InitResourceContext
from pydantic import Field
from upath import UPath

from recsys_pipeline import settings
from recsys_pipeline.configuration import ToldBounds
from recsys_pipeline.core.card import Card
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.factors import Rows
from recsys_pipeline.core.interactions import Datasets, Tables
from recsys_pipeline.core.lineage import Lineage, as_written
from recsys_pipeline.core.metadata import FEED, FORGOTTEN, metadata_of_schema
from recsys_pipeline.core.model import Model
from recsys_pipeline.core.picture import Picture
from recsys_pipeline.storage import tables
from recsys_pipeline.storage.atomic import is_local
from recsys_pipeline.storage.locations import LOCATION_CONFIG, Location, opened_location
from recsys_pipeline.storage.lock import held_by_run
from recsys_pipeline.storage.models import CARD, CARD_FACTS, read_again, read_model
from recsys_pipeline.storage.reading import read_table
from recsys_pipeline.storage.states import States


class Warehouse(ToldBounds, ConfigurableResource):  # type: ignore[type-arg]  # not generic at run time
    """Where the artefacts are."""

    model_config = LOCATION_CONFIG

    path: Location = Field(
        default=settings.WAREHOUSE,
        description="Folder or object-store URL that holds every artefact (RECSYS_WAREHOUSE).",
    )
    lock_seconds: float = Field(
        default=3600.0,
        ge=0,
        description="How long a run waits for another one that writes this warehouse, before it fails.",
    )

    @property
    def root(self) -> UPath:
        """The folder itself."""
        return opened_location(self.path)

    @contextmanager
    def yield_for_execution(self, context: InitResourceContext) -> Iterator["Warehouse"]:
        """Hold the warehouse for as long as the run, or the step of it, lasts."""
        if context.run is None:
            yield self
            return
        log = context.log.info if context.log else (lambda _: None)
        with held_by_run(self.root, context.run.run_id, self.lock_seconds, log):
            yield self

    @contextmanager
    def replacing(self, asset: str, *, forgets: bool | None = None) -> Iterator[Path]:
        """Yield a local folder for the files of an asset; readers get all of them when the block ends.

        Args:
            asset: by name.
            forgets: whether what was there before may hold users who are to be forgotten, and goes at once;
                None: as the events say.
        """
        if forgets is None:
            forgets = FORGOTTEN in metadata_of_schema(self.schema_of("raw_feedback")).get(FEED, {})
        with States(self.root, asset).replacing(keep_before=not forgets) as folder:
            yield folder

    def write_tables(self, asset: str, content: Mapping[str, Rows]) -> dict[str, int]:
        """Replace all tables of an asset at once; a stream is never held whole.

        Returns:
            By name, how many rows were written.
        """
        with self.replacing(asset) as folder:
            return {
                name: tables.write_table(rows, folder / f"{name}.parquet") for name, rows in content.items()
            }

    def read_tables(self, asset: str) -> Tables:
        """All tables of an asset by name, of one state, verified.

        Raises:
            InputError: there is none, or it is not what was written.
        """
        content, write_id = States(self.root, asset).read(
            lambda folder, names: {name: tables.read_table(folder / f"{name}.parquet") for name in names}
        )
        return {name: as_written(table, asset, write_id) for name, table in content.items()}

    def read_table(self, asset: str, name: str | None = None) -> pa.Table:
        """One table of an asset; without a name, the one that is called as the asset is.

        Raises:
            InputError: as `read_tables`.
        """
        return read_table(self.root, asset, name)

    def open_table(self, asset: str) -> ds.Dataset:
        """The table of an asset, verified, to be read as a stream.

        Raises:
            InputError: as `read_tables`.
        """
        stays = is_local(self.root)
        dataset, write_id = States(self.root, asset).read(
            lambda folder, _: tables.open_table(folder / f"{asset}.parquet", stays=stays)
        )
        return as_written(dataset, asset, write_id)

    def open_tables(self, asset: str) -> Datasets:
        """All tables of an asset by name, of one state, verified, to be read by columns.

        Raises:
            InputError: as `read_tables`.
        """
        stays = is_local(self.root)
        content, write_id = States(self.root, asset).read(
            lambda folder, names: {
                name: tables.open_table(folder / f"{name}.parquet", stays=stays) for name in names
            }
        )
        return {name: as_written(dataset, asset, write_id) for name, dataset in content.items()}

    def open_model(self, asset: str) -> Model:
        """The model that an asset wrote, verified and mapped.

        Raises:
            InputError: as `read_tables`.
        """
        states = States(self.root, asset)
        model, write_id = states.read(lambda folder, _: read_model(folder))
        if not is_local(self.root):
            # What was read is a copy, which is gone.
            folder = next(iter(states.files(write_id).values())).parent
            model = replace(model, reopen=partial(read_again, str(folder)))
        return replace(model, lineage=Lineage(asset, write_id, model.manifest["inputs"]))

    def write_card(
        self,
        asset: str,
        text: str,
        facts: Mapping[str, Any],
        ancestors: Mapping[str, str],
        pictures: Sequence[Picture] = (),
    ) -> None:
        """Replace the text and the facts of a model card, and the pictures that it refers to, at once."""
        with self.replacing(asset) as folder:
            for picture in pictures:
                (folder / picture.file).write_bytes(picture.content)
            (folder / CARD).write_text(text, encoding="utf-8")
            content = json.dumps({"facts": facts, "ancestors": ancestors}, indent=2, sort_keys=True)
            (folder / CARD_FACTS).write_text(content + "\n", encoding="utf-8")

    def read_card(self, asset: str) -> Card:
        """The model card that an asset wrote, verified.

        Raises:
            InputError: as `read_tables`.
        """
        (text, content), write_id = States(self.root, asset).read(
            lambda folder, _: (
                (folder / CARD).read_text(encoding="utf-8"),
                json.loads((folder / CARD_FACTS).read_text(encoding="utf-8")),
            )
        )
        return Card(text, content["facts"], Lineage(asset, write_id, content["ancestors"]))

    def files_of(self, asset: str, write_id: str) -> dict[str, UPath]:
        """By name, the files of a state; they never change, and stay for as long as the state does.

        Raises:
            InputError: the state is not there any more.
        """
        return States(self.root, asset).files(write_id)

    def has(self, asset: str) -> bool:
        """Whether the asset was ever written."""
        return States(self.root, asset).exists()

    def schema_of(self, asset: str) -> pa.Schema | None:
        """The schema of the table that is called as the asset is; None where none can be read.

        Not verified: what the last run had counts even if its rows were damaged since.
        """
        try:
            folder = States(self.root, asset).folder()
            return tables.schema_of(folder / f"{asset}.parquet") if folder else None
        except (InputError, pa.ArrowInvalid, OSError):
            return None

    def path_of(self, asset: str, name: str | None = None) -> UPath:
        """Where the tables of an asset, or one of them, lie for readers without this package."""
        return States(self.root, asset).plain_path(name)

    def write_id(self, asset: str) -> str:
        """The write id of the state that readers get.

        Raises:
            InputError: there is none.
        """
        if (write_id := States(self.root, asset).current()) is None:
            raise InputError(f"{self.root / asset} does not exist: materialize the asset `{asset}`.")
        return write_id
