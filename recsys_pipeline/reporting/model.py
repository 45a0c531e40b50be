"""What people read of a model."""

from collections.abc import Mapping
from typing import Any

from recsys_pipeline.core.hyperparameters import DIMENSIONS, Hyperparameters


def told_hyperparameters(hyperparameters: Hyperparameters) -> str:
    """On one line: those that the notebook had, and of the others what is not as `implicit` has it."""
    usual = {dimension.name: dimension.values[0] for dimension in DIMENSIONS if len(dimension.values) == 1}
    told = hyperparameters.told()
    return told_values({name: value for name, value in told.items() if usual.get(name) != value})


def told_values(values: Mapping[str, Any]) -> str:
    """Names and values on one line."""
    return ", ".join(
        f"{name} {value if isinstance(value, str) else f'{value:g}'}" for name, value in values.items()
    )
