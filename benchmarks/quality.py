"""The project's own assets on public data sets, compared with published results.

    python -m benchmarks.quality DATASETS [NAME ...] [--warehouse FOLDER]

DATASETS has one folder per data set, with events.csv.gz and test.csv.gz. The configuration of each NAME is
in benchmarks/published/NAME.yaml. Everything is tuned on interactions that are held out of events.csv.gz.
Those of test.csv.gz are ranked once, at the end, by the published protocol.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import yaml
from dagster import AssetSelection

from benchmarks.data import materialize_quietly
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.splitting import hash_long
from recsys_pipeline.reporting.evaluation import blend_terms_lines
from recsys_pipeline.reporting.metadata import interval
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.warehouse import Warehouse

CONFIGURATIONS = Path(__file__).parent / "published"


class DataSet(NamedTuple):
    """A data set: its folder and, by method, the published figures of the metrics in `metrics`."""

    folder: str
    k: int
    metrics: tuple[str, ...]
    published: dict[str, tuple[float, ...]]


DATA_SETS = {
    "taobao_buy": DataSet("taobao_mbcgcn", 10, ("hit_rate", "ndcg"), {"LightGCN": (0.0411, 0.0240)}),
    "taobao_all": DataSet(
        "taobao_mbcgcn",
        10,
        ("hit_rate", "ndcg"),
        {
            "CRGCN": (0.0855, 0.0439),
            "MB-CGCN": (0.1233, 0.0677),
            "PKEF": (0.1385, 0.0785),
            "MuLe": (0.1918, 0.1103),
            "CascadingRank": (0.3324, 0.1626),
        },
    ),
    "gowalla": DataSet(
        "gowalla_lightgcn",
        20,
        ("recall", "ndcg"),
        {
            "MF-BPR": (0.1627, 0.1378),
            "EASE": (0.1765, 0.1467),
            "LightGCN": (0.1820, 0.1547),
            "UltraGCN": (0.1862, 0.1580),
            "SimpleX": (0.1872, 0.1557),
        },
    ),
    "retailrocket": DataSet("retailrocket", 10, ("hit_rate", "ndcg"), {}),
}
# Each is tuned twice: by `implicit` alone, and by `batched` with what only that has.
NAMES = [f"{name}{solver}" for name in DATA_SETS for solver in ("_implicit", "")]


def write_validation_interactions(events: Path, file: Path) -> None:
    """Write a fifth of the interactions of the training events to a file, chosen by a hash."""
    table = pa_csv.read_csv(events)
    users, items = (table[name].to_numpy().astype(np.int64) for name in ("UserID", "ProductCode"))
    mixed = hash_long(items, hash_long(users, np.full(1, 42, dtype=np.uint64)))
    chosen = pa.array(mixed < np.uint64(2**64 // 5))
    pa_csv.write_csv(table.select(["UserID", "ProductCode"]).filter(chosen), file)


class Prepared(NamedTuple):
    """A data set that is ready to be searched: where its tables go, its events, the configuration."""

    warehouse: Warehouse
    feedback: Feedback
    ops: dict[str, Any]


def prepared(name: str, datasets: Path, folder: Path) -> Prepared:
    """A data set with its published configuration; writes the validation interactions of a fixed split."""
    source = datasets / DATA_SETS[name.removesuffix("_implicit")].folder
    config = yaml.safe_load((CONFIGURATIONS / f"{name}.yaml").read_text(encoding="utf-8"))
    ops = config["ops"]
    ops["evaluation"]["config"]["file"] = str(source / "test.csv.gz")
    if ops["leave_one_out_split"]["config"].get("strategy") == "file":
        folder.mkdir(parents=True, exist_ok=True)
        validation = folder / f"{name}_validation.csv"
        write_validation_interactions(source / "events.csv.gz", validation)
        ops["leave_one_out_split"]["config"]["file"] = str(validation)
    feedback = Feedback(path=str(source / "events.csv.gz"), **config["resources"]["feedback"]["config"])
    return Prepared(Warehouse(path=str(folder / name)), feedback, ops)


def hold_out(data: Prepared) -> None:
    """Make all that a search reads: validation interactions, and of the baselines popularity alone."""
    ops = {
        "leave_one_out_split": data.ops["leave_one_out_split"],
        "baselines": {"config": {"families": ["popularity"]}},
    }
    materialize_quietly(AssetSelection.assets("baselines").upstream(), data.warehouse, data.feedback, ops)


def run(name: str, datasets: Path, folder: Path) -> None:
    """Tune, measure once, print."""
    data_set = DATA_SETS[name.removesuffix("_implicit")]
    warehouse, feedback, ops = prepared(name, datasets, folder)
    begin = time.perf_counter()
    # The model itself is not asked for.
    materialize_quietly(AssetSelection.assets("evaluation").upstream(), warehouse, feedback, ops)
    seconds = time.perf_counter() - begin
    results = warehouse.read_table("grid_search_results").to_pylist()
    best = next(row for row in results if row["chosen"])
    tuned = (
        "factors",
        "regularization",
        "alpha",
        "iterations",
        "weighting",
        "nu",
        "unobserved_weight",
        "ensemble_size",
    )
    print(f"\n## {name}: {len(results)} trials, {seconds:.0f} s\n")
    print(", ".join(f"{key} {best[key]}" for key in tuned), end="; ")
    error = best["map_at_10_standard_error"]
    print(f"MAP@10 on the validation interactions {best['MAP@10']:.4f} +- {error:.4f}\n")
    print("| | " + " | ".join(f"{metric}@{data_set.k}" for metric in data_set.metrics) + " |")
    print("|---" * (1 + len(data_set.metrics)) + "|")
    rows = [
        (f"**{row['model']}**", tuple(row[metric] for metric in data_set.metrics))
        for row in warehouse.read_table("evaluation", "models").to_pylist()
    ]
    rows += list(data_set.published.items())
    for method, figures in sorted(rows, key=lambda row: row[1]):
        print(f"| {method} | " + " | ".join(f"{figure:.4f}" for figure in figures) + " |", flush=True)
    print_differences(warehouse, data_set.k)


def print_differences(warehouse: Warehouse, k: int) -> None:
    """What each term of the blend is worth, and how the models compare with the tuned one, with intervals."""
    models = warehouse.read_table("evaluation", "models")
    if worths := stored_metadata(models)["blend_terms"]:
        print(f"\n{blend_terms_lines(worths, k)}")
    print(f"\nDifference to the tuned ALS in MAP@{k}, 95 % interval, and seconds:")
    for row in models.to_pylist():
        ends = interval(row["difference_to_tuned_low"], row["difference_to_tuned_high"])
        print(f"- {row['model']}: {ends}; {row['seconds']:.1f} s", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("datasets", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--warehouse", type=Path, help="keep the artefacts, and take up finished trials")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names:
            run(name, arguments.datasets, arguments.warehouse or Path(folder))


if __name__ == "__main__":
    main()
