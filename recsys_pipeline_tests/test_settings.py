"""Settings come from the environment or a .env file, and are checked."""

import os
import subprocess
import sys

import pytest

from recsys_pipeline.automation import executor, run_config
from recsys_pipeline.settings import _strengths
from recsys_pipeline_tests.conftest import PROJECT


def test_environment_variables_become_the_defaults_of_the_resources():
    code = (
        "from recsys_pipeline.definitions import defs; from recsys_pipeline.storage.feedback import Feedback;"
        "from recsys_pipeline.storage.warehouse import Warehouse;"
        "print(Feedback().path, Feedback().strengths, Feedback().max_rejected_share, Warehouse().path,"
        " defs.get_schedule_def('nightly').cron_schedule)"
    )
    settings = {
        "RECSYS_FEEDBACK": "feed/*.csv",
        "RECSYS_STRENGTHS": "view=1, buy=5",
        "RECSYS_MAX_REJECTED_SHARE": "0.2",
        "RECSYS_WAREHOUSE": "s3://bucket/warehouse",
        "RECSYS_SCHEDULE": "30 4 * * *",
    }
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )

    expected = "feed/*.csv {'view': 1.0, 'buy': 5.0} 0.2 s3://bucket/warehouse 30 4 * * *"
    assert printed.stdout.strip() == expected


def test_the_example_names_every_setting():
    example = (PROJECT / ".env.example").read_text()
    source = (PROJECT / "recsys_pipeline" / "settings.py").read_text()
    names = {part.split('"')[0] for part in source.split('"RECSYS_')[1:]}

    assert names
    assert all(f"RECSYS_{name}=" in example for name in names)


@pytest.mark.parametrize("text", ["view", "view=many", "view=1,,click=2"])
def test_strengths_that_cannot_be_read_say_how_to_write_them(monkeypatch, text):
    monkeypatch.setenv("RECSYS_STRENGTHS", text)
    with pytest.raises(ValueError, match="write it as view=1,click=3"):
        _strengths("RECSYS_STRENGTHS", {})


def test_an_unknown_executor_names_the_known_ones():
    with pytest.raises(ValueError, match="in_process, multiprocess"):
        executor("celery")


def test_a_run_configuration_that_cannot_be_read_names_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*none\.yaml"):
        run_config(str(tmp_path / "none.yaml"))
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ValueError, match="must hold a mapping"):
        run_config(str(tmp_path / "list.yaml"))
    assert run_config("") is None
