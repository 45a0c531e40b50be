"""When the release counts as overdue."""

from datetime import timedelta

from dagster import AssetSpec, FreshnessPolicy, apply_freshness_policy

from recsys_pipeline import settings

# What Dagster asks for at least.
_LEAST = timedelta(minutes=1)


def with_freshness(spec: AssetSpec, hours: float = settings.MAX_RELEASE_HOURS) -> AssetSpec:
    """The release with the most hours that it may be old; 0 hours, and any other asset: as it is."""
    if spec.key.path[-1] != "release" or not hours:
        return spec
    fresh: AssetSpec = apply_freshness_policy(
        spec, FreshnessPolicy.time_window(max(timedelta(hours=hours), _LEAST))
    )
    return fresh
