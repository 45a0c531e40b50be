"""What a deployment sets, by environment variable or in a `.env` file; one default each.

Read once, when the code location is loaded. Relative paths that a person gives are relative to the
working directory; the defaults lie in the project. A value that cannot be read is a `SettingError` that
names the variable and shows a good value.
"""

import os
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import click
from dotenv import load_dotenv
from pydantic import SecretStr

from recsys_pipeline.core.locations import checked_database, checked_feed, checked_location, checked_tracker

_HERE = Path(__file__).resolve().parents[1]
PROJECT = _HERE if (_HERE / "pyproject.toml").is_file() else Path.cwd()

# A variable that is set outside wins over the file.
load_dotenv(PROJECT / ".env", override=False)


class SettingError(click.ClickException, ValueError):
    """A setting that cannot be read; commands end with its one sentence instead of a stack trace."""


def _setting(name: str, default: str) -> str:
    return os.environ.get(name, "").strip() or default


def _location(name: str, default: str) -> str:
    """A path or URL; one that carries a secret is refused and not shown."""
    text = _setting(name, default)
    try:
        return checked_location(text)
    except ValueError as error:
        raise SettingError(f"{name}: {error}. Write it as s3://bucket/folder or data/folder.") from None


def _feed(name: str, default: str) -> str:
    """Files, or a table or query of a database; one that carries a secret is refused and not shown."""
    text = _setting(name, default)
    try:
        return checked_feed(text)
    except ValueError as error:
        raise SettingError(
            f"{name}: {error}. Write it as data/events.csv, s3://bucket/folder or "
            "postgresql://host:5432/db?table=events."
        ) from None


def _optional_location(name: str) -> str:
    return _location(name, "") if _setting(name, "") else ""


def _database(name: str) -> str:
    """The URL of a database, or nothing; one that carries a secret is refused and not shown."""
    text = _setting(name, "")
    try:
        return checked_database(text) if text else ""
    except ValueError as error:
        raise SettingError(f"{name}: {error}. Write it as postgresql://host:5432/database.") from None


def _web_address(name: str) -> str:
    """An http(s) URL, or nothing; it is not shown where it is refused, because some of them are secrets."""
    text = _setting(name, "")
    # What is no printable ASCII cannot be sent, and the error would show it.
    if text and not re.fullmatch(r"https?://[^\s/?#]+[!-~]*", text):
        raise SettingError(f"{name}: it is no URL; write it as https://host/path")
    return text


def _tracker(name: str) -> str:
    """The address of an MLflow tracking server, or nothing; a secret in it is refused, not shown."""
    text = _setting(name, "")
    try:
        return checked_tracker(text) if text else ""
    except ValueError as error:
        raise SettingError(
            f"{name}: {error}. Write it as https://mlflow.example.org or file:///srv/mlruns."
        ) from None


def _strengths(name: str, default: dict[str, float]) -> dict[str, float]:
    text = _setting(name, "")
    if not text:
        return default
    strengths: dict[str, float] = {}
    for part in text.split(","):
        event, _, text_of_strength = part.partition("=")
        event = event.strip()
        try:
            strength = float(text_of_strength)
        except ValueError:
            strength = 0.0
        if not event or not 0 < strength < float("inf"):
            raise SettingError(
                f"{name}: cannot read {part.strip()!r} as an event with a strength above 0; write it as "
                "view=1,click=3"
            )
        if event in strengths:
            raise SettingError(f"{name}: {event} stands twice; write it as view=1,click=3")
        strengths[event] = strength
    return strengths


def _events(name: str, *, among: bool) -> list[str]:
    """Names of events that have a strength, or that have none."""
    names = _names(name)
    for event in names:
        if (event in STRENGTHS) != among:
            has = "has no strength" if among else "has a strength too"
            raise SettingError(
                f"{name}: {event} {has} in RECSYS_STRENGTHS, which are {', '.join(STRENGTHS)}; write it as "
                f"{'click,compare' if among else 'scroll,login'}"
            )
    return names


def _names(name: str, default: str = "") -> list[str]:
    return [part.strip() for part in _setting(name, default).split(",") if part.strip()]


def _number(name: str, default: float, low: float, high: float, *, whole: bool = False) -> float:
    text = _setting(name, "")
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not low <= number <= high or (whole and number != int(number)):
        kind = "whole number" if whole else "number"
        raise SettingError(f"{name}: {text!r} is no {kind} from {low:g} to {high:g}; write it as {default:g}")
    return number


def _owners(name: str) -> list[str]:
    """Who is asked about the assets: teams and addresses."""
    owners = _names(name)
    for owner in owners:
        if not re.fullmatch(r"team:[\w-]+|[^@\s:]+@[^@\s]+\.[^@\s]+", owner):
            raise SettingError(
                f"{name}: {owner!r} is neither a team nor an address; write it as team:recommendations"
            )
    return owners


def _day(name: str) -> str:
    """A day as 2026-01-31, or nothing."""
    text = _setting(name, "")
    if text:
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError:
            raise SettingError(f"{name}: {text!r} is no day; write it as 2026-01-31") from None
    return text


def _choice(name: str, choices: Sequence[str]) -> str:
    text = _setting(name, choices[0])
    if text not in choices:
        raise SettingError(f"{name}: {text!r} is none of {', '.join(choices)}; write it as {choices[0]}")
    return text


FEEDBACK = _feed("RECSYS_FEEDBACK", str(PROJECT / "data" / "feedback_implicit.csv"))
# The first day of a feed that is ingested day by day.
FIRST_DAY = _day("RECSYS_FIRST_DAY")
USER_COLUMN = _setting("RECSYS_USER_COLUMN", "UserID")
ITEM_COLUMN = _setting("RECSYS_ITEM_COLUMN", "ProductCode")
EVENT_COLUMN = _setting("RECSYS_EVENT_COLUMN", "Event")
TIMESTAMP_COLUMN = _setting("RECSYS_TIMESTAMP_COLUMN", "")
BLANK_IDS = _names("RECSYS_BLANK_IDS", r"null,nan,none,na,\N")
USER_ID_TYPE = _choice("RECSYS_USER_ID_TYPE", ("auto", "integer", "string"))
ITEM_ID_TYPE = _choice("RECSYS_ITEM_ID_TYPE", ("auto", "integer", "string"))
# The notebook's events and their strengths.
STRENGTHS = _strengths("RECSYS_STRENGTHS", {"view": 1.0, "query_search": 2.0, "click": 3.0, "compare": 4.0})
IGNORED_EVENTS = _events("RECSYS_IGNORED_EVENTS", among=False)
TARGET_EVENTS = _events("RECSYS_TARGET_EVENTS", among=True)
SEEN_EVENTS = _events("RECSYS_SEEN_EVENTS", among=True)
# Users who are to be forgotten.
FORGET_USERS = _optional_location("RECSYS_FORGET_USERS")
MAX_REJECTED_SHARE = _number("RECSYS_MAX_REJECTED_SHARE", 0.01, 0, 1)

# What the shop allows to be recommended; without a catalogue everything.
CATALOGUE = _optional_location("RECSYS_CATALOGUE")
MAX_PER_CATEGORY = int(_number("RECSYS_MAX_PER_CATEGORY", 0, 0, 1e6, whole=True))
ALLOW_LIST = _optional_location("RECSYS_ALLOW_LIST")
DENY_LIST = _optional_location("RECSYS_DENY_LIST")

WAREHOUSE = _location("RECSYS_WAREHOUSE", str(PROJECT / "data" / "warehouse"))

# Where shops read, if not in the warehouse.
DELIVERY = _database("RECSYS_DELIVERY")
# Where a team looks at its experiments.
MLFLOW = _tracker("RECSYS_MLFLOW")

# Whether assets draw what they found; tables and figures say the same.
PICTURES = _choice("RECSYS_PICTURES", ("on", "off")) == "on"

# Who computes: this machine, or a cluster of Apache Spark, by the URL of its master or Connect server.
ENGINE = _choice("RECSYS_ENGINE", ("local", "spark"))
SPARK = _setting("RECSYS_SPARK", "")
SPARK_CONF = _setting("RECSYS_SPARK_CONF", "")
# A folder that the run and all workers reach by the same path.
SPARK_SCRATCH = _setting("RECSYS_SPARK_SCRATCH", "")
# Search on this machine, on the interactions of so many users; 0 searches on the cluster.
SPARK_SEARCH_USERS = int(_number("RECSYS_SPARK_SEARCH_USERS", 0, 0, 1e9, whole=True))

# GB; 0: three quarters of what the machine or its control group has.
MEMORY_LIMIT = _number("RECSYS_MEMORY_LIMIT", 0.0, 0, 1e6)

# The hour of the nightly retrain, UTC: at 02:00 local time the clock change would skip or repeat it.
SCHEDULE = _setting("RECSYS_SCHEDULE", "0 3 * * *")
RUN_CONFIG = _optional_location("RECSYS_RUN_CONFIG")
EXECUTOR = _choice("RECSYS_EXECUTOR", ("in_process", "multiprocess"))
# A retrain that takes longer hangs: the daemon ends it, and the next night is not lost too.
MAX_RUN_HOURS = _number("RECSYS_MAX_RUN_HOURS", 12.0, 0.1, 1000)

# Shown beside every asset.
OWNERS = _owners("RECSYS_OWNERS")

# What today may differ from the runs before, as shares; see `recsys_pipeline.checks`.
VOLUME_LIMIT = _number("RECSYS_VOLUME_LIMIT", 0.5, 0, 1e6)
EVENT_MIX_LIMIT = _number("RECSYS_EVENT_MIX_LIMIT", 0.2, 0, 1)
NEW_LIMIT = _number("RECSYS_NEW_LIMIT", 0.5, 0, 1)
MAP_LIMIT = _number("RECSYS_MAP_LIMIT", 0.3, 0, 1)
# What becomes of a run that differs by more.
UNUSUAL = _choice("RECSYS_UNUSUAL", ("warn", "refuse"))
# Seconds between two looks at the source, by the sensor that retrains when it has changed; 0: off.
WATCH_SECONDS = int(_number("RECSYS_WATCH_SECONDS", 60, 0, 86400, whole=True))

# Where failed runs are reported; whoever knows this URL can write there.
ALERT_WEBHOOK = SecretStr(_web_address("RECSYS_ALERT_WEBHOOK"))
# Of the UI, for the links in reports.
UI_URL = _web_address("RECSYS_UI_URL")
# Of the current release; one that is older shows as overdue.
MAX_RELEASE_HOURS = _number("RECSYS_MAX_RELEASE_HOURS", 30.0, 0, 100_000)
