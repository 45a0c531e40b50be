"""Settings come from the environment or a .env file; what cannot be read names the variable."""

import ast
import os
import subprocess
import sys

import pytest

from recsys_pipeline.automation.jobs import run_config
from recsys_pipeline_tests.conftest import PROJECT


def defined(settings, code="import recsys_pipeline.definitions", check=True):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=check,
    )


@pytest.mark.runs
def test_environment_variables_become_the_defaults_of_the_resources():
    code = (
        "from recsys_pipeline.definitions import defs\n"
        "from recsys_pipeline.storage.feedback import Feedback\n"
        "from recsys_pipeline.storage.warehouse import Warehouse\n"
        "feed, retrain = Feedback(), defs.get_job_def('retrain')\n"
        "print(feed.path, feed.strengths, feed.ignored_events, feed.max_rejected_share, Warehouse().path,"
        " defs.get_schedule_def('nightly').cron_schedule, retrain.tags['dagster/max_runtime'])"
    )
    settings = {
        "RECSYS_FEEDBACK": "feed/*.csv",
        "RECSYS_STRENGTHS": "view=1, buy=5",
        "RECSYS_IGNORED_EVENTS": "scroll, login",
        "RECSYS_MAX_REJECTED_SHARE": "0.2",
        "RECSYS_WAREHOUSE": "s3://bucket/warehouse",
        "RECSYS_SCHEDULE": "30 4 * * *",
        "RECSYS_MAX_RUN_HOURS": "2.5",
    }
    expected = (
        "feed/*.csv {'view': 1.0, 'buy': 5.0} ['scroll', 'login'] 0.2 s3://bucket/warehouse 30 4 * * * 9000"
    )
    assert defined(settings, code).stdout.strip() == expected


@pytest.mark.runs
def test_the_memory_limit_is_that_of_every_asset_that_has_one():
    code = (
        "from recsys_pipeline.assets.evaluation import EvaluationConfig\n"
        "from recsys_pipeline.assets.feedback import StrengthsConfig\n"
        "from recsys_pipeline.assets.grid_config import GridConfig\n"
        "from recsys_pipeline.assets.lists import RecommendationsConfig, SimilarItemsConfig\n"
        "classes = StrengthsConfig, GridConfig, EvaluationConfig, RecommendationsConfig, SimilarItemsConfig\n"
        "print({config().memory_limit for config in classes}, GridConfig().plan().memory_limit)"
    )
    assert defined({"RECSYS_MEMORY_LIMIT": "2.5"}, code).stdout.strip() == "{2.5} 2.5"


def test_the_shops_own_rules_are_the_defaults_of_the_catalogue():
    code = (
        "from recsys_pipeline.assets.catalogue import CatalogueConfig\n"
        "made = CatalogueConfig()\n"
        "print(made.path, made.max_per_category, made.allow_list, made.deny_list)"
    )
    settings = {
        "RECSYS_CATALOGUE": "s3://bucket/shop.parquet",
        "RECSYS_MAX_PER_CATEGORY": "3",
        "RECSYS_ALLOW_LIST": "allow.csv",
        "RECSYS_DENY_LIST": "deny/*.csv",
    }
    assert defined(settings, code).stdout.strip() == "s3://bucket/shop.parquet 3 allow.csv deny/*.csv"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "RECSYS_STRENGTHS",
            "view=many",
            "cannot read 'view=many' as an event with a strength above 0; write it",
        ),
        ("RECSYS_STRENGTHS", "view=0", "cannot read 'view=0'"),
        ("RECSYS_STRENGTHS", "=3", "cannot read '=3'"),
        ("RECSYS_STRENGTHS", "view=1,view=2", "view stands twice"),
        ("RECSYS_TARGET_EVENTS", "refund", "refund has no strength in RECSYS_STRENGTHS, which are view,"),
        ("RECSYS_SEEN_EVENTS", "refund", "refund has no strength in RECSYS_STRENGTHS, which are view,"),
        ("RECSYS_IGNORED_EVENTS", "view", "view has a strength too in RECSYS_STRENGTHS"),
        ("RECSYS_RUN_CONFIG", "https://u:hunter2@h/c.yaml", "the URL holds a password or key"),
        ("RECSYS_MAX_REJECTED_SHARE", "a lot", "'a lot' is no number from 0 to 1; write it as 0.01"),
        ("RECSYS_MAX_REJECTED_SHARE", "7", "'7' is no number from 0 to 1; write it as 0.01"),
        ("RECSYS_MEMORY_LIMIT", "8 GB", "'8 GB' is no number from 0 to"),
        ("RECSYS_MEMORY_LIMIT", "-1", "'-1' is no number from 0 to"),
        ("RECSYS_MAX_PER_CATEGORY", "2.5", "'2.5' is no whole number from 0 to"),
        ("RECSYS_CATALOGUE", "s3://u:hunter2@b/shop.csv", "the URL holds a password or key"),
        ("RECSYS_DENY_LIST", "s3://u:hunter2@b/deny.csv", "the URL holds a password or key"),
        ("RECSYS_MAX_RUN_HOURS", "0", "'0' is no number from 0.1 to 1000; write it as 12"),
        ("RECSYS_EXECUTOR", "celery", "is none of in_process, multiprocess; write it as in_process"),
        ("RECSYS_OWNERS", "somebody", "'somebody' is neither a team nor an address; write it as team:"),
        ("RECSYS_UNUSUAL", "stop", "is none of warn, refuse; write it as warn"),
        ("RECSYS_USER_ID_TYPE", "int", "is none of auto, integer, string; write it as auto"),
        ("RECSYS_SCHEDULE", "every night", "is no cron expression; write it as 0 3 * * *"),
        ("RECSYS_WAREHOUSE", "memory://u:hunter2@h/w", "the URL holds a password or key"),
        ("RECSYS_DELIVERY", "postgresql://u:hunter2@h/shop", "the URL holds a password or key"),
        ("RECSYS_DELIVERY", "hunter2", "it is no URL of a PostgreSQL database. Write it as postgresql://"),
        ("RECSYS_MLFLOW", "https://u:hunter2@h/", "the URL holds a password or key"),
        ("RECSYS_MLFLOW", "hunter2", "it is no address of an MLflow tracking server. Write it as https://"),
        ("RECSYS_FEEDBACK", "postgresql://u:hunter2@h/shop?table=e", "the URL holds a password or key"),
        ("RECSYS_FEEDBACK", "postgresql://h/shop", "the URL of a database needs one table or one query"),
        ("RECSYS_FEEDBACK", "simplecache::s3://u:hunter2@b/x", "the URL holds a password or key"),
    ],
)
def test_a_value_that_cannot_be_read_names_the_variable_and_shows_a_good_one(name, value, message):
    # The schedule is read where it is made; all else by the settings, which are imported much faster.
    module = "automation.schedules" if name == "RECSYS_SCHEDULE" else "settings"
    refused = defined({name: value}, f"import recsys_pipeline.{module}", check=False)

    last_line = refused.stderr.strip().splitlines()[-1]
    assert last_line.startswith(f"recsys_pipeline.settings.SettingError: {name}: ")
    assert message in last_line
    assert "hunter2" not in refused.stderr


VALUES = (
    "import recsys_pipeline.settings as s; print({n: str(getattr(s, n)) for n in dir(s) if n[0].isupper()})"
)


def test_the_example_names_every_setting_and_shows_its_default():
    lines = [line for line in (PROJECT / ".env.example").read_text().splitlines() if not line.startswith("#")]
    shown = dict(line.split("=", 1) for line in lines if line)
    defaults = ast.literal_eval(defined({}, VALUES).stdout)
    # Paths are shown as a person would write them.
    paths = {"RECSYS_FEEDBACK": "", "RECSYS_WAREHOUSE": ""}

    assert {name.removeprefix("RECSYS_") for name in shown} == {n for n in defaults if n.isupper()} - {
        "PROJECT"
    }
    assert ast.literal_eval(defined({**shown, **paths}, VALUES).stdout) == defaults


def test_a_run_configuration_that_cannot_be_read_names_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*none\.yaml"):
        run_config(str(tmp_path / "none.yaml"))
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ValueError, match="must hold a mapping"):
        run_config(str(tmp_path / "list.yaml"))
    assert run_config("") is None
