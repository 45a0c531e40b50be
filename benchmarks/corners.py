"""Which penalties and unobserved weights ruin a model, on public data sets.

    python -m benchmarks.corners DATASETS [NAME ...]

DATASETS and the configurations are those of `benchmarks.quality`. Prints the share of the best MAP@10 that
each fit of 64 factors and 8 iterations has, without BM25, and marks those of which the search warns. Penalty
and unobserved weight are relative, see `recsys_pipeline.core.scale`.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.quality import DATA_SETS, hold_out, prepared
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS, NO_WEIGHTING
from recsys_pipeline.core.interactions import Interactions
from recsys_pipeline.core.scale import Relative, Scale, Weighting
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.engines.local.fitting import FitPool
from recsys_pipeline.engines.local.methods import Task
from recsys_pipeline.engines.local.training import fits_for
from recsys_pipeline.machine.cores import usable_cores

PENALTIES = (0.003, 0.03, 0.1, 0.25, 0.7, 1.4, 2.1, 3.0)
UNOBSERVED_WEIGHTS = (0.0003, 0.003, 0.03, 0.1, 0.3, 1.0)
SEED = 42


def run(name: str, datasets: Path, folder: Path) -> None:
    """Train and print."""
    data = prepared(name, datasets, folder)
    hold_out(data)
    warehouse = data.warehouse
    tables = {table: warehouse.read_table("bm25_matrix", table) for table in ("pairs", "users", "items")}
    interactions = Interactions.from_tables(tables)
    held_out = warehouse.read_table("leave_one_out_split")
    splits = list(interactions.splits(held_out, {DEFAULT_STRENGTHS: None}, weigh_all=False))
    weighting = Weighting(DEFAULT_STRENGTHS, NO_WEIGHTING, 0.0, 0.0)
    scale = Scale.of(interactions.pattern.shape, interactions.strengths)
    start = weighting.trial(factors=64, nu=0.85).replace(iterations=8)
    places = [Relative(penalty, unobserved) for penalty in PENALTIES for unobserved in UNOBSERVED_WEIGHTS]
    trials = {place: scale.with_relative(start, place, as_implicit=False) for place in places}
    with FitPool(splits, Solver.batched, SEED, usable_cores()) as pool:
        results = {
            each.hyperparameters: each for each in pool.run([Task(f) for f in fits_for(trials.values())])
        }
    scores = {trial: result.scores.map if result.scores else 0.0 for trial, result in results.items()}
    best = max(scores.values())
    print(f"\n## {name}: best MAP@10 {best:.4f}\n")
    print("| penalty \\ unobserved weight | " + " | ".join(f"{w:g}" for w in UNOBSERVED_WEIGHTS) + " |")
    print("|---" * (1 + len(UNOBSERVED_WEIGHTS)) + "|")
    for penalty in PENALTIES:
        row = [trials[Relative(penalty, unobserved)] for unobserved in UNOBSERVED_WEIGHTS]
        cells = [f"{scores[trial] / best:.0%}{' !' if scale.corner(trial) else ''}" for trial in row]
        print(f"| {penalty:g} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("datasets", type=Path)
    parser.add_argument(
        "names", nargs="*", default=list(DATA_SETS), metavar="NAME", help=", ".join(DATA_SETS)
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names:
            run(name, arguments.datasets, Path(folder))


if __name__ == "__main__":
    main()
