"""What people read of a feed."""

from collections.abc import Mapping

from recsys_pipeline.reporting.metadata import percent

_REASONS = 3


def told_feed(
    n_events: int, n_kinds: int, n_rejected: int, rejected_share: float, reasons: Mapping[str, int]
) -> str:
    """How much of a feed came in, and why the rest did not, as a sentence.

    Args:
        n_events: rows that are events.
        n_kinds: of events.
        n_rejected: rows that are none.
        rejected_share: of all rows.
        reasons: rejected rows by reason.
    """
    events = f"{n_events:,} events of {n_kinds} kind{'' if n_kinds == 1 else 's'}"
    if not n_rejected:
        return f"{events}; no row was rejected"
    most_frequent = sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))[:_REASONS]
    told = ", ".join(f"{reason} ({count:,})" for reason, count in most_frequent)
    others = f" and {len(reasons) - _REASONS:,} more reasons" if len(reasons) > _REASONS else ""
    rows = "1 row was" if n_rejected == 1 else f"{n_rejected:,} rows were"
    return f"{events}; {rows} rejected ({percent(rejected_share)}): {told}{others}"


def told_forgotten(facts: Mapping[str, int]) -> str:
    """What a feed left out, for people; of a feed that is kept by days nobody knows how many users."""
    users = f" of {facts['users']:,} users" if "users" in facts else ""
    return f"{facts['events']:,} events{users} were left out"
