"""What a retrain that nobody asked for by hand does: what is stale and nothing else."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckKey,
    AssetCheckResult,
    AssetKey,
    DagsterInstance,
    DagsterRunStatus,
    RepositoryDefinition,
    RunRequest,
    RunsFilter,
    asset_check,
)

from recsys_pipeline.automation.jobs import retrain
from recsys_pipeline.automation.staleness import FEED, Made, Plan, stale_assets
from recsys_pipeline.steps.step import check_step
from recsys_pipeline.storage.releases import current_release, read_manifest, read_pointer
from recsys_pipeline.storage.source import seen
from recsys_pipeline.storage.warehouse import Warehouse

WHY = "recsys_pipeline/why"
_PASSED = "SUCCEEDED"
# The most of a tag that people read.
_MOST_WHY = 250
_AT_WORK = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


class Night(NamedTuple):
    """What is to be done now.

    Attributes:
        plan: of the job `retrain`.
        stale: by asset, why it is to be made again.
    """

    plan: Plan
    stale: Mapping[str, str]

    @classmethod
    def now(
        cls,
        instance: DagsterInstance,
        repository: RepositoryDefinition,
        run_config: Mapping[str, Any] | None = None,
    ) -> "Night":
        """By the history of the instance, the warehouse and the source."""
        plan = Plan.of(repository, retrain.name, run_config)
        return cls(plan, stale_assets(instance, plan))

    def why(self) -> str:
        """The reasons, for people: what merely follows something is not named."""
        told = [f"{name}: {why}" for name, why in self.stale.items() if not why.startswith("it follows ")]
        return "; ".join(told)

    def request(self, instance: DagsterInstance, run_key: str | None = None) -> RunRequest:
        """A run that makes what is stale; where nothing is, one that looks at the release and says so."""
        if not self.stale:
            told = nothing_new(instance, self.plan)
            return RunRequest(
                run_key=run_key,
                run_config=self.plan.config_for([]),
                asset_selection=[],
                asset_check_keys=[SERVED],
                tags={WHY: told},
            )
        return RunRequest(
            run_key=run_key,
            run_config=self.plan.config_for(list(self.stale)),
            asset_selection=[AssetKey(name) for name in self.stale],
            asset_check_keys=self._checks(instance),
            tags={WHY: _cut(self.why())},
        )

    def _checks(self, instance: DagsterInstance) -> list[AssetCheckKey]:
        """Those of what is made, and those that stand against a release and would else never run again."""
        own = [key for key in self.plan.checks if key.asset_key.path[-1] in self.stale]
        others = [key for key in self.plan.checks if key not in own]
        latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(others)
        return [*own, *(key for key in others if key in latest and latest[key].status.value != _PASSED)]


def nothing_new(instance: DagsterInstance, plan: Plan) -> str:
    """That nothing is stale, for people."""
    feed, release = Made.last(instance, FEED), read_pointer(plan.warehouse.root)
    when = f"{feed.when:%Y-%m-%d %H:%M} UTC" if feed else "an unknown time"
    held = f"; {release.hold.told()}" if release.hold else ""
    source = seen(plan.locations(FEED)).told()
    return f"nothing new: {source} is as it was at {when}, release {release.version} serves{held}"


def at_work(instance: DagsterInstance) -> str | None:
    """The run of `retrain` that waits or works; None where there is none."""
    runs = instance.get_runs(RunsFilter(job_name=retrain.name, statuses=_AT_WORK), limit=1)
    return runs[0].run_id if runs else None


@asset_check(asset="release", description="Readers find a release whose manifest is what was published.")
@check_step
def readers_are_served(context: AssetCheckExecutionContext, warehouse: Warehouse) -> AssetCheckResult:
    """Readers find a release whose manifest is what was published; false where there is none."""
    version = read_manifest(current_release(warehouse.root))["version"]
    told = context.run.tags.get(WHY, "")
    told = told if told.startswith("nothing new") else f"release {version} serves"
    context.log.info(told)
    return AssetCheckResult(passed=True, description=told, metadata={"version": version})


SERVED = AssetCheckKey(AssetKey("release"), "readers_are_served")


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_WHY else text[: _MOST_WHY - 1] + "\N{HORIZONTAL ELLIPSIS}"
