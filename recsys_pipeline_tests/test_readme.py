"""What the README shows works as shown."""

import re

import numpy as np
import pytest
import yaml
from dagster import validate_run_config

from recsys_pipeline import load_model
from recsys_pipeline.definitions import defs
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.worlds import SMALL_GRID, run_graph

README = (PROJECT / "README.md").read_text()
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "data/README.md",
    "docs/notebook.md",
    "docs/search.md",
    "docs/evaluation.md",
    "docs/quality.md",
]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs(parity_csv, warehouse):
    assert run_graph(parity_csv, warehouse).success
    (example,) = blocks("python")

    names: dict[str, object] = {}
    exec(example.replace('"data/warehouse"', repr(warehouse.path)), names)
    assert len(names["model"].recommend(names["user"], n=10)) == 10


def test_every_command_is_one_that_ci_or_a_test_runs():
    commands = {
        line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")
    }
    known = (
        r"make (materialize|test|check|dev)",
        r"export RECSYS_(FEEDBACK|STRENGTHS)=.*",
        r"(RECSYS_\w+=\S+ )*dagster asset materialize --select '\*' -m recsys_pipeline.definitions"
        r"( --config\S* .*)?",
        r"dg launch --assets '\*'",
        r"dg check defs",
        r"dagster dev -w workspace.yaml",
    )

    assert len(commands) >= 8
    assert [command for command in commands if not any(re.fullmatch(form, command) for form in known)] == []


def test_the_example_configuration_is_one_that_dagster_accepts(tmp_path, warehouse):
    config = yaml.safe_load((PROJECT / "examples" / "retailrocket.yaml").read_text())
    feed = tmp_path / "events.csv"
    events = [
        f"{user},{item},{event},{1430623510 + 60 * item + user}"
        for user in range(30)
        for item in range(user % 3, 40, 3 + user % 4)
        for event in ("view", "cart", "buy")
    ]
    feed.write_text("UserID,ProductCode,Event,Timestamp\n" + "\n".join(events) + "\n")

    feedback = config["resources"]["feedback"]["config"]
    assert run_graph(feed, warehouse, ops=config["ops"], **feedback).success


def test_the_settings_for_shops_lead_to_a_blend(tmp_path, warehouse):
    (block,) = blocks("yaml")
    config = yaml.safe_load(block)
    rng = np.random.default_rng(0)
    lines = ["UserID,ProductCode,Event"]
    for user in range(30):
        viewed = rng.choice(50, 8, replace=False)
        lines += [f"{user},{item},view" for item in viewed] + [f"{user},{item},buy" for item in viewed[:3]]
    feed = tmp_path / "events.csv"
    feed.write_text("\n".join(lines) + "\n")

    ops, feedback = config["ops"], config["resources"]["feedback"]["config"]
    ops["grid_search_results"]["config"] |= SMALL_GRID
    assert run_graph(feed, warehouse, ops=ops, **feedback).success
    model = load_model(warehouse.root)
    assert len(model.recommend(model.users[0], n=5, blend=True)) == 5


CONFIGURATIONS = sorted((PROJECT / "benchmarks" / "published").glob("*.yaml"))


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda path: path.stem)
def test_the_configurations_of_the_benchmarks_are_ones_that_dagster_accepts(file):
    job = defs.resolve_job_def("retrain")

    assert validate_run_config(job, yaml.safe_load(file.read_text()))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    path = PROJECT / document
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), target


def test_the_schedule_is_as_the_readme_says():
    schedule = defs.get_schedule_def("nightly")

    assert schedule.cron_schedule == "0 3 * * *"
    assert schedule.execution_timezone == "UTC"
    assert schedule.default_status.value == "RUNNING"
    assert schedule.job_name == "retrain"
