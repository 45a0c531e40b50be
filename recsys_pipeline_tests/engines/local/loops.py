"""A compiled loop.

    python -m recsys_pipeline_tests.engines.local.loops

makes it ready, and prints how often it had to be compiled.
"""

import time

from recsys_pipeline.core.compiled import compiled


@compiled()
def count(n):
    total = 0
    for number in range(n):
        total += number
    return total


def compile_all():
    count(3)
    # Nobody who comes meanwhile may compile it too.
    time.sleep(0.5)


if __name__ == "__main__":
    from recsys_pipeline.engines.local.compiling import ready

    loops = ready("recsys_pipeline_tests.engines.local.loops")
    print(sum(loops.count.stats.cache_misses.values()))  # noqa: T201
