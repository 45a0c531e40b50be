"""What a deployment sets, by environment variable or in a `.env` file; one default each.

Read once, when the code location is loaded. Relative paths that a person gives are relative to the
working directory; the defaults lie in the project.
"""

import os
from pathlib import Path

from dotenv import load_dotenv

_HERE = Path(__file__).resolve().parents[1]
PROJECT = _HERE if (_HERE / "pyproject.toml").is_file() else Path.cwd()

# A variable that is set outside wins over the file.
load_dotenv(PROJECT / ".env", override=False)


def _setting(name: str, default: str) -> str:
    return os.environ.get(name, "").strip() or default


def _strengths(name: str, default: dict[str, float]) -> dict[str, float]:
    text = _setting(name, "")
    if not text:
        return default
    strengths = {}
    for part in text.split(","):
        event, separator, strength = part.partition("=")
        try:
            strengths[event.strip()] = float(strength)
        except ValueError:
            separator = ""
        if not separator:
            raise ValueError(f"{name}: cannot read {part.strip()!r}; write it as view=1,click=3")
    return strengths


def _names(name: str) -> list[str]:
    return [part.strip() for part in _setting(name, "").split(",") if part.strip()]


FEEDBACK = _setting("RECSYS_FEEDBACK", str(PROJECT / "data" / "feedback_implicit.csv"))
USER_COLUMN = _setting("RECSYS_USER_COLUMN", "UserID")
ITEM_COLUMN = _setting("RECSYS_ITEM_COLUMN", "ProductCode")
EVENT_COLUMN = _setting("RECSYS_EVENT_COLUMN", "Event")
TIMESTAMP_COLUMN = _setting("RECSYS_TIMESTAMP_COLUMN", "")
# The notebook's events and their strengths.
STRENGTHS = _strengths("RECSYS_STRENGTHS", {"view": 1.0, "query_search": 2.0, "click": 3.0, "compare": 4.0})
TARGET_EVENTS = _names("RECSYS_TARGET_EVENTS")
SEEN_EVENTS = _names("RECSYS_SEEN_EVENTS")
MAX_REJECTED_SHARE = float(_setting("RECSYS_MAX_REJECTED_SHARE", "0.01"))

WAREHOUSE = _setting("RECSYS_WAREHOUSE", str(PROJECT / "data" / "warehouse"))

# The hour of the nightly retrain, UTC: at 02:00 local time the clock change would skip or repeat it.
SCHEDULE = _setting("RECSYS_SCHEDULE", "0 3 * * *")
RUN_CONFIG = _setting("RECSYS_RUN_CONFIG", "")
EXECUTOR = _setting("RECSYS_EXECUTOR", "in_process")
