"""The incumbent: the configuration of the released model, which every search tries again."""

from collections.abc import Callable
from typing import Any, NamedTuple

from recsys_pipeline.assets.grid_config import SearchConfig
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS, Hyperparameters, without_unused
from recsys_pipeline.core.neighbourhood import Neighbourhood
from recsys_pipeline.engines.chosen import chosen_engine
from recsys_pipeline.engines.engine import SearchPlan
from recsys_pipeline.reporting.model import told_hyperparameters, told_values
from recsys_pipeline.storage.releases import current_release, has_release, read_manifest
from recsys_pipeline.storage.warehouse import Warehouse


class Incumbent(NamedTuple):
    """The released configuration, as far as this search can try it.

    Attributes:
        version: of the release; None where there is none to read.
        hyperparameters: None where there is nothing to try.
        why_none: why there is nothing to try; empty where there is something.
    """

    version: str | None
    hyperparameters: Hyperparameters | None
    why_none: str = ""

    def without(self, why: str) -> "Incumbent":
        """It cannot be tried."""
        return Incumbent(self.version, None, why)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        tried = self.hyperparameters.as_dict() if self.hyperparameters else None
        return {**self._asdict(), "hyperparameters": tried}


def incumbent_of(config: SearchConfig, warehouse: Warehouse, log: Callable[[str], None]) -> Incumbent:
    """The incumbent, told.

    The manifest is read as it lies in the warehouse. It is no input of the asset, because the model is made
    from the search; the results say which version they were compared with.
    """
    if not has_release(warehouse.root):
        return Incumbent(None, None, "no model is released yet")
    try:
        manifest = read_manifest(current_release(warehouse.root))
    except InputError as error:
        # This very search leads to a model that mends it.
        why = str(error).rstrip(".")
        log(f"the released configuration is not tried: {why}")
        return Incumbent(None, None, why)
    released = Hyperparameters.from_mapping(manifest["hyperparameters"])
    tried = _as_can_be_tried(released, config, log)
    log(f"the configuration of release {manifest['version']} is a trial too: {told_hyperparameters(tried)}")
    return Incumbent(manifest["version"], tried)


def told_start(plan: SearchPlan, incumbent: Incumbent, log: Callable[[str], None]) -> dict[str, Any] | None:
    """Where a search around a start begins, as JSON and told; None for other strategies."""
    if not isinstance(plan.course, Neighbourhood):
        return None
    start = plan.course.start
    if incumbent.hyperparameters:
        log(f"around the released version {incumbent.version}: {told_hyperparameters(start)}")
        return {"version": incumbent.version, "hyperparameters": start.as_dict()}
    log(
        f"{incumbent.why_none}; the search starts from the first value of each list: "
        f"{told_hyperparameters(start)}"
    )
    return {"version": None, "hyperparameters": start.as_dict()}


def _as_can_be_tried(
    released: Hyperparameters, config: SearchConfig, log: Callable[[str], None]
) -> Hyperparameters:
    """The released configuration, less what this search does not know."""
    tried = chosen_engine().nearest_solvable(config.solver, released)
    if tried != released:
        was = {n: v for n, v in released.as_dict().items() if v != tried.as_dict()[n]}
        log(f"solver {config.solver.value} cannot train the released {told_values(was)} and tries it without")
    if tried.strengths not in config.mappings():
        log(
            f"the released model has strengths {tried.strengths!r}, which strength_mappings does not "
            f"name: the search tries it with {DEFAULT_STRENGTHS!r}"
        )
        tried = tried.replace(strengths=DEFAULT_STRENGTHS)
    if tried.half_life_days and tried.half_life_days not in config.half_lives():
        log(
            f"the released model has half_life_days {tried.half_life_days:g}, which this search does not "
            "list: it is tried without fading"
        )
        tried = tried.replace(half_life_days=0.0)
    return without_unused(tried)
