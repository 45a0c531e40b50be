"""The solvers of ALS, by name."""

from enum import Enum


class Solver(Enum):
    """Who solves ALS."""

    batched = "batched"
    implicit = "implicit"
    gpu = "gpu"
