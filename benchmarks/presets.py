"""The presets of the search compared with grids that were placed by hand, on public data sets.

    python -m benchmarks.presets DATASETS [NAME ...] [--searches by-hand quick thorough] [--warehouse FOLDER]

DATASETS and the configurations are those of `benchmarks.quality`. A preset gets the events, their strengths,
the mappings from events to strengths, and no list. Training seconds are those of all fits, also of those
that a warehouse had from a search before; CPU seconds are those of the search and its workers. The share is
that of the MAP@10 that the grid by hand found on the same validation interactions. The test interactions are
ranked by what each search chose, and choose nothing.
"""

import argparse
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any

from dagster import AssetSelection

from benchmarks.data import materialize_quietly
from benchmarks.quality import DATA_SETS, hold_out, prepared
from recsys_pipeline.core.evaluation import TUNED
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.presets import Preset
from recsys_pipeline.reporting.model import told_hyperparameters

BY_HAND = "by-hand"
SEARCHES = (BY_HAND, Preset.quick.value, Preset.thorough.value)


def cpu_seconds() -> float:
    """Of this process and its workers."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def of_search(by_hand: dict[str, Any], search: str) -> dict[str, Any]:
    """The configuration of the search."""
    alone = {"blend": False, "compare_with_implicit": False}
    if search == BY_HAND:
        return {**by_hand, **alone}
    return {"preset": search, "strength_mappings": by_hand.get("strength_mappings", {}), **alone}


def run(name: str, searches: list[str], datasets: Path, folder: Path) -> None:
    """Search and measure, and print a row a search."""
    data = prepared(name, datasets, folder)
    hold_out(data)
    warehouse, feedback, ops = data
    by_hand, evaluation = (ops[op]["config"] for op in ("grid_search_results", "evaluation"))
    metrics, k = DATA_SETS[name].metrics, DATA_SETS[name].k
    target = None
    for search in searches:
        asked = {"grid_search_results": {"config": of_search(by_hand, search)}}
        begin, before = time.perf_counter(), cpu_seconds()
        materialize_quietly(AssetSelection.assets("grid_search_results"), warehouse, feedback, asked)
        wall, cpu = time.perf_counter() - begin, cpu_seconds() - before
        results = warehouse.read_table("grid_search_results").to_pylist()
        of_fit: dict[Hyperparameters, float] = {}
        for row in results:
            fit = Hyperparameters.from_mapping(row).replace(iterations=0)
            of_fit[fit] = max(of_fit.get(fit, 0.0), row["fit_seconds"] or 0.0)
        best = next(row for row in results if row["chosen"])
        target = best["MAP@10"] if search == BY_HAND else target
        measured = {"evaluation": {"config": {**evaluation, "compare_with": []}}}
        materialize_quietly(AssetSelection.assets("evaluation"), warehouse, feedback, measured)
        models = {row["model"]: row for row in warehouse.read_table("evaluation", "models").to_pylist()}
        share = f"{best['MAP@10'] / target:.1%}" if target else ""
        print(
            f"| {name} | {search} | {len(of_fit)} | {sum(of_fit.values()):.0f} | {wall:.0f} | {cpu:.0f} | "
            f"{best['MAP@10']:.4f} | {share} | "
            f"{' / '.join(f'{models[TUNED][metric]:.4f}' for metric in metrics)} "
            f"({' / '.join(f'{metric}@{k}' for metric in metrics)}) | "
            f"{told_hyperparameters(Hyperparameters.from_mapping(best))} |",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("datasets", type=Path)
    parser.add_argument(
        "names", nargs="*", default=list(DATA_SETS), metavar="NAME", help=", ".join(DATA_SETS)
    )
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--warehouse", type=Path, help="keep the artefacts, and take up finished trials")
    arguments = parser.parse_args()
    print(
        "| data | search | fits | training s | wall s | CPU s | MAP@10 of the search | share "
        "| on test interactions | |"
    )
    print("|---" * 10 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names:
            run(name, arguments.searches, arguments.datasets, arguments.warehouse or Path(folder))


if __name__ == "__main__":
    main()
