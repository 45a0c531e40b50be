"""What it takes to make the compiled loops ready: in an environment that has none yet, and later.

    python -m benchmarks.compiling

Two processes start together, as the workers of a search do, with an empty cache and then with what the first
two have left there. Wall and CPU seconds of each, numba's import included; a start without any loops is not.
"""

import os
import sys
import tempfile
from subprocess import PIPE, Popen

_READY = """
import time
from recsys_pipeline.engines.local.compiling import ready
wall, cpu = time.perf_counter(), time.process_time()
for loops in ("selection", "similarity", "graph_loops"):
    ready(f"recsys_pipeline.core.{loops}")
ready("recsys_pipeline.engines.local.kernels")
print(f"{time.perf_counter() - wall:.1f} | {time.process_time() - cpu:.1f}")
"""


def main() -> None:
    """Measure and print."""
    print("| cache | process | wall s | CPU s |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        for told in ("empty", "full"):
            processes = [
                Popen([sys.executable, "-c", _READY], env=environment, stdout=PIPE, text=True)
                for _ in range(2)
            ]
            for number, process in enumerate(processes, 1):
                print(f"| {told} | {number} | {process.communicate()[0].strip()} |", flush=True)


if __name__ == "__main__":
    main()
