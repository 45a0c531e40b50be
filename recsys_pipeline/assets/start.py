"""Where a search around the published model starts."""

from collections.abc import Callable
from typing import Any, NamedTuple

from recsys_pipeline.assets.grid_config import SearchConfig
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS, Hyperparameters
from recsys_pipeline.core.neighbourhood import first_values
from recsys_pipeline.engines.engine import SearchMethod
from recsys_pipeline.engines.local.solvers import nearest_solvable
from recsys_pipeline.reporting.model import told_hyperparameters, told_values
from recsys_pipeline.storage.releases import current_release, has_release, read_manifest
from recsys_pipeline.storage.warehouse import Warehouse


class Start(NamedTuple):
    """Where a search starts.

    Attributes:
        version: of the published model whose configuration it is; None for the first value of each list.
        hyperparameters: of that configuration, as far as the search can try them.
    """

    version: str | None
    hyperparameters: Hyperparameters

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"version": self.version, "hyperparameters": self.hyperparameters.as_dict()}


def start_of(config: SearchConfig, warehouse: Warehouse, log: Callable[[str], None]) -> Start | None:
    """The start that the strategy asks for, told; None for a strategy that has none.

    The manifest is read as it lies in the warehouse. It is no input of the asset, because the model is made
    from the search; the results say which version they started from.
    """
    if config.strategy is not SearchMethod.around:
        return None
    start, why = None, "no model is published yet"
    if has_release(warehouse.root):
        try:
            manifest = read_manifest(current_release(warehouse.root))
        except InputError as error:
            # This very search leads to a model that mends it.
            why = str(error).rstrip(".")
        else:
            published = Hyperparameters.from_mapping(manifest["hyperparameters"])
            start = Start(manifest["version"], _as_can_be_tried(published, config, log))
    if start is None:
        start = Start(None, first_values(config.lists()))
        told = told_hyperparameters(start.hyperparameters)
        log(f"{why}; the search starts from the first value of each list: {told}")
    else:
        log(f"around the published version {start.version}: {told_hyperparameters(start.hyperparameters)}")
    return start


def _as_can_be_tried(
    published: Hyperparameters, config: SearchConfig, log: Callable[[str], None]
) -> Hyperparameters:
    """The published configuration, less what this search does not know."""
    start = nearest_solvable(config.solver, published)
    if start != published:
        was = {n: v for n, v in published.as_dict().items() if v != start.as_dict()[n]}
        log(f"solver {config.solver.value} cannot train the published {told_values(was)} and starts without")
    if start.strengths not in config.mappings():
        log(
            f"the published model has strengths {start.strengths!r}, which strength_mappings does not "
            f"name: the search starts from {DEFAULT_STRENGTHS!r}"
        )
        start = start.replace(strengths=DEFAULT_STRENGTHS)
    return start
