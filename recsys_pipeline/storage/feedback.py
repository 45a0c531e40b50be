"""The configuration of the raw feedback: where it is and how to read it."""

from enum import Enum
from typing import Self

from dagster import ConfigurableResource
from pydantic import Field, model_validator

from recsys_pipeline import settings
from recsys_pipeline.configuration import ToldBounds
from recsys_pipeline.core.ids import IdType
from recsys_pipeline.core.locations import database_feed
from recsys_pipeline.storage.locations import LOCATION_CONFIG, FeedLocation, OptionalLocation


class FileFormat(Enum):
    """Format of the feedback files; gzip is recognised by itself."""

    auto = "auto"
    csv = "csv"
    parquet = "parquet"


class TimestampUnit(Enum):
    """Unit of timestamps that are integers since 1970."""

    s = "s"
    ms = "ms"
    us = "us"


class Feedback(ToldBounds, ConfigurableResource):  # type: ignore[type-arg]  # not generic at run time
    """The raw feedback: where it is and how to read it."""

    model_config = LOCATION_CONFIG

    path: FeedLocation = Field(
        default=settings.FEEDBACK,
        description="File, folder or glob, local or an object-store URL; or a table or query of a PostgreSQL "
        "database: postgresql://host:5432/db?table=events or ?query=path/to/query.sql (RECSYS_FEEDBACK).",
    )
    first_day: str = Field(
        default=settings.FIRST_DAY,
        pattern=r"^(\d{4}-\d\d-\d\d)?$",
        description="The feed is ingested day by day from this day on, such as 2026-01-31; `{day}` in `path` "
        "stands for the day where each has its files. Empty: all at once. Set it by RECSYS_FIRST_DAY, which "
        "gives raw_feedback its partitions.",
    )
    format: FileFormat = Field(
        default=FileFormat.auto, description="`auto` goes by the ending: .csv, .csv.gz or .parquet."
    )
    delimiter: str = Field(default=",", min_length=1, max_length=1, description="Between CSV columns.")
    encoding: str = Field(default="utf-8", description="Of CSV files, by Python's name.")
    user_column: str = Field(default=settings.USER_COLUMN, description="RECSYS_USER_COLUMN")
    item_column: str = Field(default=settings.ITEM_COLUMN, description="RECSYS_ITEM_COLUMN")
    event_column: str = Field(default=settings.EVENT_COLUMN, description="RECSYS_EVENT_COLUMN")
    timestamp_column: str = Field(
        default=settings.TIMESTAMP_COLUMN,
        description="Must exist when named; when empty, a column `Timestamp` is used where there is one "
        "(RECSYS_TIMESTAMP_COLUMN).",
    )
    timestamp_unit: TimestampUnit = Field(
        default=TimestampUnit.s, description="Of timestamps that are integers since 1970."
    )
    blank_ids: list[str] = Field(
        default=settings.BLANK_IDS,
        description="Values that count as a missing id, in any case, beside empty ones and white space "
        "(RECSYS_BLANK_IDS).",
    )
    user_id_type: IdType = Field(
        default=IdType(settings.USER_ID_TYPE),
        description="`integer`: a row with any other user id is rejected; `string`: every id is kept as "
        "text; `auto`: as in the last run, else the run fails (RECSYS_USER_ID_TYPE).",
    )
    item_id_type: IdType = Field(
        default=IdType(settings.ITEM_ID_TYPE),
        description="The same for item ids (RECSYS_ITEM_ID_TYPE).",
    )
    strengths: dict[str, float] = Field(
        default=settings.STRENGTHS,
        description="Strength of each event, above 0; an event without one is rejected "
        "(RECSYS_STRENGTHS, as view=1,click=3).",
    )
    ignored_events: list[str] = Field(
        default=settings.IGNORED_EVENTS,
        description="Events to leave out on purpose (RECSYS_IGNORED_EVENTS).",
    )
    target_events: list[str] = Field(
        default=settings.TARGET_EVENTS,
        description="Events that an interaction must have to be held out, such as a purchase; none names all "
        "(RECSYS_TARGET_EVENTS, as click,compare).",
    )
    seen_events: list[str] = Field(
        default=settings.SEEN_EVENTS,
        description="Events that exclude an item from what is recommended to its user, in the evaluation "
        "too; none names all (RECSYS_SEEN_EVENTS).",
    )
    forget_users: OptionalLocation = Field(
        default=settings.FORGET_USERS,
        description="File with the ids of users to be forgotten, CSV or Parquet with a column UserID: "
        "nothing of them stays in the artefacts, the releases or the delivered tables (RECSYS_FORGET_USERS).",
    )
    forget_fewer: bool = Field(
        default=False,
        description="Whether forget_users may name fewer users than in the last run. Those who are no longer "
        "in it, but still in the feed, come back.",
    )
    max_rejected_share: float = Field(
        default=settings.MAX_REJECTED_SHARE,
        ge=0,
        le=1,
        description="More rejected rows than this share fail the run (RECSYS_MAX_REJECTED_SHARE).",
    )

    @property
    def locations(self) -> list[str]:
        """What a run reads: the feed, and the file of users who are to be forgotten, where one is named."""
        return [self.path, *([self.forget_users] if self.forget_users else [])]

    @model_validator(mode="after")
    def _strengths_make_sense(self) -> Self:
        if not self.strengths:
            raise ValueError("strengths: name at least one event")
        for event, strength in self.strengths.items():
            if not 0 < strength < float("inf"):
                raise ValueError(
                    f"strengths: {event!r} has {strength}; a strength is above 0. "
                    "To leave an event out, list it in ignored_events"
                )
        if both := set(self.strengths) & set(self.ignored_events):
            raise ValueError(f"ignored_events: {', '.join(sorted(both))} also has a strength; keep one")
        for field_name, events in (("target_events", self.target_events), ("seen_events", self.seen_events)):
            if unknown := set(events) - set(self.strengths):
                raise ValueError(f"{field_name}: {', '.join(sorted(unknown))} has no strength")
        if self.first_day and database_feed(self.path):
            raise ValueError(
                "first_day: a database is not read day by day; leave out RECSYS_FIRST_DAY, and let the query "
                "choose the days"
            )
        return self
