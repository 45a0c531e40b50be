"""Make `feedback_implicit.csv`, the synthetic sample, byte for byte the same on every machine.

    python data/make_sample.py [OUTPUT]

Only the standard library and `random.Random.random` are used, whose stream Python guarantees, with
arithmetic that IEEE 754 rounds alike everywhere.
"""

import sys
from bisect import bisect_right
from itertools import accumulate
from math import sqrt
from pathlib import Path
from random import Random

SEED = 20240601
N_USERS = 5_000
N_ITEMS = 34_797
N_PAIRS = 94_895
MIN_PAIRS_PER_USER = 3
N_TASTES = 300
# What a user takes from the own tastes; the rest follows overall popularity.
LOYALTY = 0.85
EVENTS = (("view", 0.62), ("click", 0.84), ("query_search", 0.95), ("compare", 1.0))


class Shelf:
    """Items with a popularity: a power law over the order in which they were put in."""

    def __init__(self, items: list[int], offset: float) -> None:
        self.items = items
        places = [rank + offset for rank in range(len(items))]
        self._cumulative = list(accumulate(1 / (place * sqrt(place)) for place in places))

    def draw(self, rng: Random) -> int:
        position = bisect_right(self._cumulative, rng.random() * self._cumulative[-1])
        return self.items[min(position, len(self.items) - 1)]


def below(rng: Random, n: int) -> int:
    """An integer in [0, n)."""
    return int(rng.random() * n)


def shuffled(rng: Random, n: int) -> list[int]:
    """The integers 0 to n - 1 in random order."""
    keys = [rng.random() for _ in range(n)]
    return sorted(range(n), key=keys.__getitem__)


def product_codes(rng: Random) -> list[str]:
    """Distinct 13-digit codes with the EAN check digit; about a third begin with zeros."""
    prefixes = ["00" if rng.random() < 0.33 else str(20 + below(rng, 79)) for _ in range(400)]
    codes: dict[str, None] = {}
    while len(codes) < N_ITEMS:
        body = prefixes[below(rng, 400)] + f"{below(rng, 10**10):010d}"
        odd, even = sum(map(int, body[::2])), sum(map(int, body[1::2]))
        codes[body + str(-(odd + 3 * even) % 10)] = None
    return list(codes)


def user_ids(rng: Random) -> list[int]:
    """Distinct five-digit integers."""
    ids: dict[int, None] = {}
    while len(ids) < N_USERS:
        ids[10_000 + below(rng, 90_000)] = None
    return list(ids)


def pairs_per_user(rng: Random) -> list[int]:
    """How many items each user touches: many little, a few much; the sum is N_PAIRS."""
    counts = [MIN_PAIRS_PER_USER + min(150, int(7 / (1.02 - rng.random()) - 7)) for _ in range(N_USERS)]
    while (surplus := sum(counts) - N_PAIRS) != 0:
        for _ in range(abs(surplus)):
            user = below(rng, N_USERS)
            if surplus < 0:
                counts[user] += 1
            elif counts[user] > MIN_PAIRS_PER_USER:
                counts[user] -= 1
    return counts


def draw_pairs(rng: Random) -> list[tuple[int, int]]:
    """N_PAIRS distinct (user, item): every item at least once, users true to one to three tastes."""
    taste_popularity = Shelf(list(range(N_TASTES)), offset=25)
    taste_items: list[list[int]] = [[] for _ in range(N_TASTES)]
    for item in range(N_ITEMS):
        taste_items[taste_popularity.draw(rng)].append(item)
    shelves = [Shelf(items, offset=1) for items in taste_items]
    everything = Shelf(shuffled(rng, N_ITEMS), offset=30)

    tastes = [[taste_popularity.draw(rng) for _ in range(1 + below(rng, 3))] for _ in range(N_USERS)]
    lovers: list[list[int]] = [[] for _ in range(N_TASTES)]
    for user, own in enumerate(tastes):
        for taste in own:
            lovers[taste].append(user)

    counts = pairs_per_user(rng)
    touched: list[dict[int, None]] = [{} for _ in range(N_USERS)]

    def room(user: int) -> int:
        return counts[user] - len(touched[user])

    # First the long tail: each item finds one user, mostly one of its taste and an active one.
    for taste, items in enumerate(taste_items):
        for item in items:
            candidates = lovers[taste] if lovers[taste] and rng.random() < LOYALTY else range(N_USERS)
            user = max((candidates[below(rng, len(candidates))] for _ in range(4)), key=room)
            if room(user) == 0:
                user = next(u for u in shuffled(rng, N_USERS) if room(u) > 0)
            touched[user][item] = None

    for user, own in enumerate(tastes):
        while room(user) > 0:
            loyal = rng.random() < LOYALTY
            shelf = shelves[own[below(rng, len(own))]] if loyal else everything
            touched[user][shelf.draw(rng)] = None
    return [(user, item) for user in range(N_USERS) for item in touched[user]]


def draw_events(rng: Random, pairs: list[tuple[int, int]]) -> list[tuple[int, int, str]]:
    """One or more events for each pair, in random order."""
    events = []
    for user, item in pairs:
        more = True
        while more:
            event_draw = rng.random()
            events.append((user, item, next(name for name, upto in EVENTS if event_draw < upto)))
            more = rng.random() < 0.45
    return [events[position] for position in shuffled(rng, len(events))]


def main(output: Path) -> None:
    """Write the sample to `output`."""
    rng = Random(SEED)
    users, items = user_ids(rng), product_codes(rng)
    events = draw_events(rng, draw_pairs(rng))
    rows = "".join(f"{users[user]},{items[item]},{event}\n" for user, item, event in events)
    output.write_bytes(f"UserID,ProductCode,Event\n{rows}".encode("ascii"))


if __name__ == "__main__":
    default = Path(__file__).with_name("feedback_implicit.csv")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
