"""Which assets are no longer what a run would make of the source, the configuration and the code at hand."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from typing import Any, NamedTuple, Self

from dagster import (
    AssetCheckKey,
    AssetKey,
    AssetSpec,
    DagsterInstance,
    RepositoryDefinition,
    validate_run_config,
)
from pydantic import BaseModel

from recsys_pipeline.automation import jobs
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.fingerprints import (
    CONFIGURATION_TAG,
    CONTENT_TAG,
    INPUT_TAG,
    SOURCE_TAG,
    configuration_of,
)
from recsys_pipeline.steps.step import configured_by
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.releases import current_release, read_manifest, read_pointer
from recsys_pipeline.storage.source import locations_in, seen
from recsys_pipeline.storage.warehouse import Warehouse

FEED = "raw_feedback"
_RELEASE = "release"
# Of the release, and outside the warehouse.
_ELSEWHERE = ("delivery", "mlflow_run")
# Dagster's own tags of a materialization.
_DATA_VERSION = "dagster/data_version"
_CODE_VERSION = "dagster/code_version"
_INPUT_VERSION = "dagster/input_data_version/"


class Made(NamedTuple):
    """The last materialization of an asset.

    Attributes:
        run_id: of the run that made it.
        when: UTC.
        tags: what it was made of, and what it is.
    """

    run_id: str
    when: datetime
    tags: Mapping[str, str]

    @classmethod
    def last(cls, instance: DagsterInstance, asset: str) -> Self | None:
        """As Dagster keeps it; None where the asset was never made."""
        entry = instance.get_latest_materialization_event(AssetKey(asset))
        if entry is None or entry.asset_materialization is None:
            return None
        tags = entry.asset_materialization.tags or {}
        return cls(entry.run_id, datetime.fromtimestamp(entry.timestamp, UTC), tags)


class Plan(NamedTuple):
    """What a run of a job would make, and by what.

    Attributes:
        specs: of the assets, inputs first.
        checks: of all assets.
        arguments: by asset, its configuration and resources by name.
        warehouse: where the assets are.
        run_config: as given.
    """

    specs: Sequence[AssetSpec]
    checks: Sequence[AssetCheckKey]
    arguments: Mapping[str, Mapping[str, BaseModel]]
    warehouse: Warehouse
    run_config: Mapping[str, Any]

    @classmethod
    def of(
        cls, repository: RepositoryDefinition, job: str, run_config: Mapping[str, Any] | None = None
    ) -> Self:
        """The plan of a job, defaults and variables of its configuration resolved as a run resolves them.

        Args:
            repository: that has the job.
            job: its name.
            run_config: by default that of the night (RECSYS_RUN_CONFIG).

        Raises:
            DagsterInvalidConfigError: the configuration is none for this job.
        """
        given = dict((jobs.RUN_CONFIG if run_config is None else run_config) or {})
        resolved = validate_run_config(repository.get_job(job), given)
        specs = _inputs_first(repository)
        configured = {name: part["config"] for name, part in resolved["resources"].items()}
        warehouse = Warehouse(**configured["warehouse"])
        resources = {"feedback": Feedback(**configured["feedback"]), "warehouse": warehouse}
        names = [_name(spec.key) for spec in specs]
        arguments = {name: _arguments(name, resolved["ops"][name], resources) for name in names}
        checks = {
            *repository.asset_checks_defs_by_key,
            *(key for definition in repository.assets_defs_by_key.values() for key in definition.check_keys),
        }
        return cls(specs, sorted(checks), arguments, warehouse, given)

    def locations(self, asset: str) -> list[str]:
        """The files outside the warehouse that the step of an asset reads."""
        given = self.arguments[asset]
        if asset == FEED:
            return list(given["feedback"].locations)  # type: ignore[attr-defined]  # a Feedback
        return locations_in(given["config"]) if "config" in given else []

    def config_for(self, assets: Sequence[str]) -> dict[str, Any]:
        """The run configuration without what belongs to other assets, which Dagster refuses."""
        ops = {name: part for name, part in self.run_config.get("ops", {}).items() if name in assets}
        return {**{name: part for name, part in self.run_config.items() if name != "ops"}, "ops": ops}


def stale_assets(instance: DagsterInstance, plan: Plan) -> dict[str, str]:
    """By asset, inputs first, why it is to be made again; what depends on a stale asset is stale.

    An asset is as it should be if it was made by the code and the configuration that a run would have now,
    from the present state of its inputs and of the files that it reads, and if the warehouse still holds it.
    What failed or was refused was not made, so that its last materialization is of other inputs.
    """
    made = {_name(spec.key): Made.last(instance, _name(spec.key)) for spec in plan.specs}
    stale: dict[str, str] = {}
    for spec in plan.specs:
        name, inputs = _name(spec.key), [_name(dep.asset_key) for dep in spec.deps]
        if above := next((each for each in inputs if each in stale), None):
            stale[name] = f"it follows {above}"
        elif reason := _why_stale(plan, spec, inputs, made):
            stale[name] = reason
    return stale


def _why_stale(plan: Plan, spec: AssetSpec, inputs: Sequence[str], made: Mapping[str, Made | None]) -> str:
    """Why an asset whose inputs are not stale is; empty if it is not."""
    name = _name(spec.key)
    last = made[name]
    if last is None:
        return "it was never made"
    tags = last.tags
    if spec.code_version and tags.get(_CODE_VERSION) != spec.code_version:
        return "its code has changed"
    if reason := source_changed(plan.locations(name), tags):
        return reason
    if tags.get(CONFIGURATION_TAG) != configuration_of(plan.arguments[name]):
        return "its configuration has changed"
    for each in inputs:
        version = made[each].tags.get(_DATA_VERSION) if (of_input := made[each]) else None  # type: ignore[union-attr]
        made_from = tags.get(INPUT_TAG + each, tags.get(_INPUT_VERSION + each))
        if of_input is None or made_from != version:
            return f"{each} was made again, and is another"
    return _why_not_there(plan, name, tags)


def source_changed(locations: Sequence[str], tags: Mapping[str, str]) -> str:
    """Why the files behind some locations are not those of a materialization; empty if they are.

    Files that were written again with the content that they had are.

    Args:
        locations: of the files.
        tags: of the materialization.
    """
    if not locations:
        return ""
    try:
        source = seen(locations)
        if source.unseen:
            return f"whether {', '.join(source.unseen)} has changed cannot be seen"
        if tags.get(SOURCE_TAG) == source.fingerprint:
            return ""
        if tags.get(CONTENT_TAG) and tags[CONTENT_TAG] == source.content():
            return ""
    except (InputError, OSError) as error:
        # The run that comes of it fails and says so.
        return f"its source cannot be looked at: {error}"
    return f"its source has changed: {source.told()}"


def _why_not_there(plan: Plan, name: str, tags: Mapping[str, str]) -> str:
    """Why the warehouse does not hold what was made last; empty if it does."""
    root = plan.warehouse.root
    try:
        if name in _ELSEWHERE:
            return ""
        if name == _RELEASE:
            version = read_manifest(current_release(root))["version"]
            # Who rolled back wants no other until they say so.
            if version != tags.get(_DATA_VERSION) and not read_pointer(root).hold:
                return f"readers have another release, {version}"
            return ""
        if plan.warehouse.write_id(name) != tags.get(_DATA_VERSION):
            return "the warehouse holds another state of it"
    except (InputError, OSError) as error:
        return f"it is missing: {error}"
    return ""


def _arguments(
    asset: str, resolved: Mapping[str, Any], resources: Mapping[str, BaseModel]
) -> dict[str, BaseModel]:
    """What the step of an asset would be given, but for its inputs."""
    return {
        name: kind(**resolved["config"]) if name == "config" else resources[name]
        for name, kind in configured_by(asset).items()
    }


def _inputs_first(repository: RepositoryDefinition) -> list[AssetSpec]:
    specs = {key: definition.get_asset_spec(key) for key, definition in repository.assets_defs_by_key.items()}
    graph = {key: {dep.asset_key for dep in spec.deps} for key, spec in sorted(specs.items())}
    return [specs[key] for key in TopologicalSorter(graph).static_order()]


def _name(key: AssetKey) -> str:
    return key.path[-1]
