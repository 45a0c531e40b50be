"""Which interaction of each user is held out."""

from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.pattern import Pattern

_PRIME_1 = np.uint64(0x9E3779B185EBCA87)
_PRIME_2 = np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME_3 = np.uint64(0x165667B19E3779F9)
_PRIME_4 = np.uint64(0x85EBCA77C2B2AE63)
_PRIME_5 = np.uint64(0x27D4EB2F165667C5)
# Spark SQL's xxhash64() starts its chain over the columns with this seed.
_CHAIN_START = 42


class HoldOutMethod(Enum):
    """How the held-out interaction of a user is chosen."""

    random = "random"
    last = "last"
    file = "file"


def _rotate_left(x: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    rotated: NDArray[np.uint64] = (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))
    return rotated


def hash_long(values: NDArray[np.int64], seeds: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """XXH64 of each 64-bit integer, taken as 8 little-endian bytes, under its seed.

    Source: Yann Collet, "xxHash fast digest algorithm" (specification of XXH64, input of 8 bytes).
    """
    lane = _rotate_left(values.astype(np.int64).view(np.uint64) * _PRIME_2, 31) * _PRIME_1
    h = (seeds + _PRIME_5 + np.uint64(8)) ^ lane
    h = _rotate_left(h, 27) * _PRIME_1 + _PRIME_4
    h = (h ^ (h >> np.uint64(33))) * _PRIME_2
    h = (h ^ (h >> np.uint64(29))) * _PRIME_3
    mixed: NDArray[np.uint64] = h ^ (h >> np.uint64(32))
    return mixed


def interaction_hashes(pattern: Pattern, seed: int) -> NDArray[np.uint64]:
    """(n_interactions,) hash of (seed, user index, item index): Spark's `xxhash64` over three longs."""
    hashes = np.empty(pattern.n_interactions, dtype=np.uint64)
    for block, users in pattern.blocks():
        of_users = hash_with_seed(users.astype(np.int64), seed)
        hashes[block] = hash_long(pattern.indices[block].astype(np.int64), of_users)
    return hashes


def hash_with_seed(values: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """Hash of (seed, value)."""
    start = np.full(1, _CHAIN_START, dtype=np.uint64)
    return hash_long(values, hash_long(np.full(1, seed, dtype=np.int64), start))


def leave_one_out(
    pattern: Pattern,
    *,
    seed: int,
    min_interactions: int,
    method: HoldOutMethod = HoldOutMethod.random,
    timestamps: NDArray[np.int64] | None = None,
    max_users: int | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """The position of one interaction of each eligible user; a function of data and seed alone.

    `random` takes the interaction with the smallest hash, `last` the latest one and among equally late ones
    that with the smallest hash.

    Args:
        pattern: the interactions.
        seed: any 64-bit integer.
        min_interactions: a user with fewer interactions is not eligible and stays whole in training.
        method: `random` or `last`.
        timestamps: (n_interactions,), needed for `last`; the larger, the later.
        max_users: hold out of so many users at most, those with the smallest hash of seed and user.
        allowed: (n_interactions,) which may be held out; by default all.

    Returns:
        (n_held_out,) positions among the pattern's interactions, ascending.

    Raises:
        InputError: `last` without timestamps.
    """
    counts = pattern.interactions_per_user
    starts = pattern.indptr[:-1][counts > 0]
    if not len(starts):
        return np.empty(0, dtype=np.int64)
    candidates = np.repeat(counts >= min_interactions, counts)
    if allowed is not None:
        candidates &= allowed
    if method is HoldOutMethod.last:
        if timestamps is None:
            raise no_timestamps()
        times = np.where(candidates, timestamps, np.iinfo(np.int64).min)
        candidates &= _equal_to_their_users(pattern, times, np.maximum.reduceat(times, starts))
        del times
    hashes = interaction_hashes(pattern, seed)
    hashes[~candidates] = np.iinfo(np.uint64).max
    candidates &= _equal_to_their_users(pattern, hashes, np.minimum.reduceat(hashes, starts))
    winners = np.flatnonzero(candidates)
    # Two interactions of a user with one hash: the first counts.
    users, first = np.unique(pattern.users_at(winners), return_index=True)
    winners = winners[first]
    if max_users is not None and len(winners) > max_users:
        # Not by the hashes of interactions: the smallest of many is small, which would favour active users.
        winners = winners[drawn(users, max_users, seed)]
    return winners


def no_timestamps() -> InputError:
    """What is wrong with the strategy `last` without times."""
    return InputError(
        "leave_one_out_split: strategy `last` needs timestamps, and the feedback has none. Name the column "
        "in `timestamp_column` of the `feedback` resource, or use `random`."
    )


def drawn(users: NDArray[np.integer], most: int, seed: int) -> NDArray[np.bool_]:
    """(n,) whether each is among the `most` users with the smallest hash of seed and user.

    Args:
        users: (n,) user index; one may occur more than once.
        most: how many users are drawn where there are more.
        seed: any 64-bit integer.
    """
    distinct, place = np.unique(users, return_inverse=True)
    order = np.argsort(hash_with_seed(distinct.astype(np.int64), seed), kind="stable")
    chosen = np.zeros(len(distinct), dtype=bool)
    chosen[order[:most]] = True
    of_each: NDArray[np.bool_] = chosen[place.reshape(-1)]
    return of_each


def _equal_to_their_users(
    pattern: Pattern, values: NDArray[Any], of_users: NDArray[Any]
) -> NDArray[np.bool_]:
    """(n_interactions,) whether a value is that of its user; `of_users` are of those with interactions."""
    of_all = np.zeros(pattern.n_users, dtype=values.dtype)
    of_all[pattern.interactions_per_user > 0] = of_users
    equal = np.empty(pattern.n_interactions, dtype=bool)
    for block, users in pattern.blocks():
        equal[block] = values[block] == of_all[users]
    return equal
