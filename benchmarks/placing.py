"""The searches that place the grids of `benchmarks/published`, so that the choice can be repeated.

    python -m benchmarks.placing DATASETS [NAME ...] [--stages N] [--warehouse FOLDER]

DATASETS and the preparation are those of `benchmarks.quality`. Each stage is a search by the asset
`grid_search_results` and starts from what won the one before: first wide lists with 64 factors, then finer
ones, then more factors, then ensembles. Only validation interactions choose, which are held out of
events.csv.gz; test.csv.gz is not read. Prints what won each stage, and at the end the lists of
`benchmarks/published/NAME.yaml` beside it.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dagster import AssetSelection

from benchmarks.data import materialize_quietly
from benchmarks.quality import DATA_SETS, Prepared, hold_out, prepared
from recsys_pipeline.assets.grid_config import GridConfig
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.reporting.model import told_ends, told_hyperparameters


class Stage(NamedTuple):
    """A search: lists of values, and multiples of what won before. The rest stays as it won.

    The first stage of a data set has a list of each dimension that is not to stay at its default, and tries
    all `strength_mappings` of the published configuration; the later ones only that which won, beside the
    strengths of the feedback, which every search tries.
    """

    name: str
    values: Mapping[str, Sequence[Any]] = {}
    multiples: Mapping[str, Sequence[float]] = {}


AROUND = {"regularization": (0.5, 1, 2), "unobserved_weight": (0.6, 1, 1.6)}
FINER = Stage("finer", {"factors": [256]}, AROUND)
MORE_FACTORS = Stage(
    "factors", {"factors": [256, 512, 1024], "iterations": [4, 8]}, {"regularization": (0.5, 1)}
)
ENSEMBLE = Stage("ensemble", {"ensemble_size": [1, 3]})
WITHOUT_BM25 = {"factors": [64], "alpha": [1], "iterations": [8], "weighting": ["none"]}

STAGES: dict[str, list[Stage]] = {
    "taobao_buy": [
        Stage(
            "coarse",
            {
                **WITHOUT_BM25,
                "regularization": [0.001, 0.002, 0.004, 0.008, 0.016, 0.032],
                "nu": [0.65, 0.85, 1.0],
                "unobserved_weight": [0.01, 0.03, 0.1, 0.3],
            },
        ),
        FINER,
        MORE_FACTORS,
        ENSEMBLE,
    ],
    "taobao_all": [
        Stage(
            "weights",
            {
                "factors": [64],
                "alpha": [1],
                "iterations": [8],
                "nu": [0.65],
                "regularization": [0.004, 0.016],
                "unobserved_weight": [0.1, 0.3],
                "weighting": ["bm25", "none"],
                "bm25_K1": [2, 10, 50],
                "bm25_B": [0.2, 0.45, 0.8],
            },
        ),
        Stage(
            "coarse",
            {
                "regularization": [0.001, 0.002, 0.004, 0.008, 0.016, 0.032],
                "nu": [0.5, 0.65, 0.85],
                "unobserved_weight": [0.1, 0.3, 0.9, 2.7],
            },
        ),
        FINER,
        MORE_FACTORS,
        ENSEMBLE,
    ],
    "gowalla": [
        Stage(
            "coarse",
            {
                **WITHOUT_BM25,
                "regularization": [0.001, 0.002, 0.004, 0.008, 0.016],
                "nu": [0.65, 0.85, 1.0],
                "unobserved_weight": [0.01, 0.03, 0.1],
            },
        ),
        FINER,
        MORE_FACTORS,
        ENSEMBLE,
    ],
    "retailrocket": [
        Stage(
            "weights",
            {
                "factors": [64],
                "alpha": [1],
                "iterations": [16],
                "nu": [0.9],
                "regularization": [0.005, 0.02],
                "unobserved_weight": [0.05, 0.2],
                "weighting": ["bm25", "none"],
                "bm25_K1": [10, 50],
                "bm25_B": [0.45, 0.8],
            },
        ),
        Stage(
            "coarse",
            {
                "regularization": [0.0025, 0.005, 0.01, 0.02, 0.04],
                "nu": [0.65, 0.9, 1.0],
                "unobserved_weight": [0.05, 0.15, 0.4, 1.0],
            },
        ),
        Stage(
            "factors",
            {"factors": [32, 48, 64, 96, 128], "iterations": [8, 16]},
            {"regularization": (0.5, 1, 2)},
        ),
        ENSEMBLE,
    ],
}


def configuration(
    stage: Stage, best: Hyperparameters | None, mappings: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """That of the search of a stage, given what won the one before."""
    kept = best.told() if best else {}
    strengths = kept.pop("strengths", None)
    multiplied = {
        name: [float(f"{multiple * kept[name]:.3g}") for multiple in multiples]
        for name, multiples in stage.multiples.items()
    }
    return {
        "solver": "batched",
        "compare_with_implicit": False,
        **{name: [value] for name, value in kept.items()},
        **stage.values,
        **multiplied,
        "strength_mappings": {
            name: mapping for name, mapping in mappings.items() if not best or name == strengths
        },
    }


def search(stage: Stage, best: Hyperparameters | None, data: Prepared) -> Hyperparameters:
    """Run the search of a stage and print what won."""
    mappings = data.ops["grid_search_results"]["config"].get("strength_mappings", {})
    asked = {"grid_search_results": {"config": configuration(stage, best, mappings)}}
    begin = time.perf_counter()
    materialize_quietly(AssetSelection.assets("grid_search_results"), data.warehouse, data.feedback, asked)
    seconds = time.perf_counter() - begin
    table = data.warehouse.read_table("grid_search_results")
    won = next(row for row in table.to_pylist() if row["chosen"])
    told = told_hyperparameters(Hyperparameters.from_mapping(won))
    print(
        f"| {stage.name} | {len(table)} | {seconds:.0f} | {won['MAP@10']:.4f} "
        f"+- {won['map_at_10_standard_error']:.4f} | {told} | {told_ends(table)} |",
        flush=True,
    )
    return Hyperparameters.from_mapping(won)


def run(name: str, n_stages: int | None, datasets: Path, folder: Path) -> None:
    """Place the grid of a data set and print it beside the published one."""
    data = prepared(name, datasets, folder)
    hold_out(data)
    print(f"\n## {name}\n\n| stage | trials | wall s | MAP@10 | won | at the ends |\n{'|---' * 6}|")
    best = None
    for stage in STAGES[name][:n_stages]:
        best = search(stage, best, data)
    if best is None:
        return
    published = GridConfig(**data.ops["grid_search_results"]["config"]).trials()
    print(f"\n| | placed | published/{name}.yaml |\n{'|---' * 3}|")
    for dimension, value in best.told().items():
        values = dict.fromkeys(trial.told().get(dimension, "") for trial in published)
        print(f"| {dimension} | {value} | {', '.join(map(str, values))} |", flush=True)


def main() -> None:
    """Place and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("datasets", type=Path)
    parser.add_argument(
        "names", nargs="*", default=list(DATA_SETS), metavar="NAME", help=", ".join(DATA_SETS)
    )
    parser.add_argument("--stages", type=int, help="stop after so many stages; by default after the last")
    parser.add_argument("--warehouse", type=Path, help="keep the artefacts, and take up finished trials")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names:
            run(name, arguments.stages, arguments.datasets, arguments.warehouse or Path(folder))


if __name__ == "__main__":
    main()
