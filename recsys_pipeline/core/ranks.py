"""Ranks of held-out interactions as text, for messages and journals."""

import base64
import zlib

import numpy as np
from numpy.typing import NDArray


def packed_ranks(ranks: NDArray[np.uint8] | None) -> str | None:
    """The ranks, compressed, in the letters of base64."""
    return None if ranks is None else base64.b64encode(zlib.compress(ranks.tobytes())).decode("ascii")


def unpacked_ranks(text: str | None) -> NDArray[np.uint8] | None:
    """What `packed_ranks` packed.

    Raises:
        ValueError: the text is damaged.
    """
    if text is None:
        return None
    try:
        return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)
    except zlib.error as error:
        raise ValueError(f"damaged ranks: {error}") from None
