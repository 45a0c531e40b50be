"""Loops that numba compiles to machine code."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function at its first call; where possible, keep the machine code for later processes.

    Args:
        options: of `numba.njit`.
    """

    def compile_lazily(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            kept: Callable[..., Any] = njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:
            # Neither the package's folder nor the user's cache folder may be written to.
            kept = njit(nogil=True, **options)(function)
        return kept

    return compile_lazily
