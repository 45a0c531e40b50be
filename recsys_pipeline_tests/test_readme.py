"""What the README shows works as shown."""

import re
import shlex
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import yaml
from dagster import validate_run_config

from recsys_pipeline.definitions import defs
from recsys_pipeline.storage.releases import current_release
from recsys_pipeline_tests import test_command_line
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.worlds import SMALL_GRID, made_model, run_graph

README = (PROJECT / "README.md").read_text()
DOCUMENTS = [path for pattern in ("*.md", "data/*.md", "docs/*.md") for path in sorted(PROJECT.glob(pattern))]


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def typed(text):
    """The lines that a document asks people to type, without comments."""
    lines = [line for block in blocks("console", text) for line in block.splitlines()]
    return [re.sub(r"\s+# .*", "", line[2:]) for line in lines if line.startswith("$ ")]


def run_example(text, warehouse):
    """The table that each call of the one Python example gives, by the name of the method."""
    (example,) = blocks("python", text)
    names: dict[str, object] = {}
    exec(example.replace('"data/warehouse"', repr(warehouse.path)), names)
    asked = [line for line in example.splitlines() if line.startswith("model.")]
    return {line.split("(")[0].removeprefix("model."): eval(line, names) for line in asked}


def test_the_python_example_runs(shared_warehouse):
    tables = run_example(README, shared_warehouse)

    assert {name: len(table) for name, table in tables.items()} == {
        "recommend": 10,
        "recommend_many": 200,
        "recommend_for": 10,
        "similar_items": 10,
    }
    # As the comments say.
    for line in blocks("python")[0].splitlines():
        if found := re.fullmatch(r"model\.(\w+)\(.*# a table: (.*)", line):
            assert list(tables[found[1]].columns) == found[2].split(", ")


def test_so_does_that_of_recommending(shared_warehouse):
    document = (PROJECT / "docs" / "recommending.md").read_text()
    tables = run_example(document, shared_warehouse)

    assert {"recommend", "recommend_many", "recommend_for", "recommend_for_many"} == set(tables)
    assert len(tables["recommend_for_many"]) == 20


def test_the_vector_index_of_the_docs_finds_what_exact_search_finds(shared_warehouse):
    page = (PROJECT / "docs" / "releases.md").read_text()
    (example,) = (block for block in blocks("python", page) if "usearch" in block)
    release = str(current_release(shared_warehouse.root).path)

    names: dict[str, Any] = {}
    exec(example.replace('"data/warehouse/releases/<version>"', repr(release)), names)
    scores = names["vectors"] @ names["users"]["factors"][names["user"]]
    best = names["items"]["ProductCode"].iloc[np.argsort(-scores)[:10]]
    assert names["recommended"].tolist() == best.tolist()


# --- What people type ---


SETTING = r"(export )?RECSYS_\w+=\S+"


def commands_of_ci():
    """What .ci/run asks of make, target by target, and what make runs for it."""
    lines = (PROJECT / ".ci" / "run").read_text().splitlines()
    asked = [line.rstrip(" &").split() for line in lines if line.startswith(("make ", "beside "))]
    words = [word for line in asked for word in line[1:]]
    variables = [word for word in words if "=" in word]
    targets = [word for word in words if "=" not in word]
    dry_run = ["make", "--dry-run", *words]
    recipes = subprocess.run(dry_run, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    of_ci = {f"make {target}" for target in targets}
    of_ci |= {f"make {target} {variable}" for target in targets for variable in variables}
    return {*of_ci, *recipes.replace(".venv/bin/", "").splitlines()}


@pytest.fixture(scope="module")
def known_commands():
    return {"", "bash .ci/run", *commands_of_ci(), *test_command_line.COMMANDS}


@pytest.mark.parametrize("line", sorted({line for path in DOCUMENTS for line in typed(path.read_text())}))
def test_every_command_is_one_that_ci_or_a_test_runs(line, known_commands):
    assert re.sub(rf"^({SETTING} ?)+", "", line) in known_commands


def test_nor_does_a_test_run_what_the_documents_have_dropped():
    lines = [line for path in DOCUMENTS for line in typed(path.read_text())]
    commands = {re.sub(rf"^({SETTING} )+", "", line) for line in lines}

    assert commands >= test_command_line.COMMANDS


def test_every_setting_that_is_shown_can_be_read():
    shown = [
        word.split("=", 1) for line in typed(README) for word in shlex.split(line) if re.match(SETTING, word)
    ]
    code = "from recsys_pipeline import settings as s; print(s.FEEDBACK, s.STRENGTHS, s.IGNORED_EVENTS)"
    read = subprocess.run(
        [sys.executable, "-c", code], env=dict(shown), check=True, capture_output=True, text=True
    ).stdout

    assert read.split(" ", 1) == [
        "path/to/events.csv.gz",
        "{'view': 1.0, 'cart': 2.0, 'buy': 3.0} ['scroll', 'login']\n",
    ]
    example = (PROJECT / ".env.example").read_text()
    assert all(f"\n{name}=" in example for name, _ in shown)


# --- Configuration ---


@pytest.mark.runs
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


@pytest.mark.runs
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
    model = made_model(warehouse)
    assert len(model.recommend(model.users[0], n=5, blend=True)) == 5


CONFIGURATIONS = [
    *sorted((PROJECT / "examples").glob("*.yaml")),
    *sorted((PROJECT / "benchmarks" / "published").glob("*.yaml")),
]


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda path: path.stem)
def test_the_configurations_of_examples_and_benchmarks_are_ones_that_dagster_accepts(file):
    job = defs.resolve_job_def("retrain")

    assert validate_run_config(job, yaml.safe_load(file.read_text()))


def test_the_schedule_is_as_the_readme_says():
    schedule = defs.resolve_schedule_def("nightly")

    assert schedule.cron_schedule == "0 3 * * *"
    assert schedule.execution_timezone == "UTC"
    assert schedule.default_status.value == "RUNNING"
    assert schedule.job_name == "retrain"


# --- Links ---


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        assert target.startswith("http") or (document.parent / target).exists(), target


def test_every_page_of_the_docs_is_linked_from_the_readme():
    linked = set(re.findall(r"\]\(([^)#]+)\)", README))

    assert {str(path.relative_to(PROJECT)) for path in DOCUMENTS} <= linked | {"README.md"}
