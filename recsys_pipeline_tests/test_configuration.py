"""A wrong knob is refused before anything runs; every knob says what it means and what it may be."""

import pytest
import yaml
from click.testing import CliRunner
from dagster import DagsterInvalidConfigError, validate_run_config
from dagster._utils.error import serializable_error_info_from_exc_info

from recsys_pipeline.command_line import main
from recsys_pipeline.configuration import InvalidConfigurationError, told_unknown_names
from recsys_pipeline.definitions import defs
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.worlds import alone, failure_of, run_graph

RETRAIN = defs.resolve_job_def("retrain")
EXAMPLES = sorted((PROJECT / "examples").glob("*.yaml"))


def fields_of_all():
    """Every knob, by what it is of."""
    for asset in defs.assets:
        fields = getattr(asset.op.get_config_field().config_type, "fields", {})
        yield from ((f"{asset.op.name}.{name}", field) for name, field in fields.items())
    for name in ("feedback", "warehouse"):
        fields = RETRAIN.resource_defs[name].config_schema.config_type.fields
        yield from ((f"{name}.{field_name}", field) for field_name, field in fields.items())


FIELDS = dict(fields_of_all())


@pytest.mark.parametrize("name", FIELDS)
def test_every_knob_of_the_launchpad_has_a_meaning_and_a_default(name):
    assert FIELDS[name].description
    assert FIELDS[name].default_provided


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("grid_search_results.factors", "Bounds: at least one value, each at least 1"),
        ("grid_search_results.bm25_B", "each at least 0 and at most 1"),
        ("leave_one_out_split.n_splits", "Bounds: at least 1 and at most 100."),
        ("evaluation.patience_hours", "Bounds: above 0."),
        ("feedback.max_rejected_share", "Bounds: at least 0 and at most 1."),
    ],
)
def test_and_says_its_bounds(name, bounds):
    assert bounds in FIELDS[name].description


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"ops": {"grid_search_results": {"config": {"factors": [0]}}}},
            "grid_search_results: factors[0] is 0: it should be greater than or equal to 1.",
        ),
        (
            {"resources": {"feedback": {"config": {"strengths": {"view": -1}}}}},
            "feedback: strengths: 'view' has -1.0; a strength is above 0.",
        ),
        (
            {"ops": {"leave_one_out_split": {"config": {"seed": -1, "min_interactions": 1}}}},
            "leave_one_out_split: seed is -1: it should be greater than or equal to 0; min_interactions",
        ),
        (
            {"ops": {"catalogue": {"config": {"path": "s3://u:hunter2@b/shop.csv"}}}},
            "catalogue: path: the URL holds a password or key",
        ),
        ({"resources": {"warehouse": {"config": {"lock_seconds": -1}}}}, "warehouse: lock_seconds is -1"),
    ],
)
def test_what_is_out_of_bounds_is_refused_in_one_sentence_without_a_stack_trace(config, message):
    with pytest.raises(InvalidConfigurationError) as refused:
        validate_run_config(RETRAIN, config)

    shown = serializable_error_info_from_exc_info((refused.type, refused.value, refused.tb))
    assert shown.message.startswith(message)
    assert shown.stack == []
    assert "\n" not in shown.message
    assert "hunter2" not in shown.message


def test_a_name_that_is_no_asset_is_refused_and_the_near_one_is_named():
    known = ["grid_search_results", "evaluation"]

    assert told_unknown_names({"ops": {"evaluation": {}}}, known) == ""
    assert told_unknown_names({"ops": {"grid_serch_results": {}}}, known) == (
        "`ops` of the configuration names 'grid_serch_results', which is no asset: "
        "did you mean 'grid_search_results'?"
    )
    assert told_unknown_names({"ops": {"x": {}}}, known).endswith(
        "there are evaluation, grid_search_results."
    )


def test_the_first_step_of_a_run_that_is_of_no_job_refuses_it_and_nothing_is_made(parity_csv, warehouse):
    """Of such runs Dagster takes any name under `ops`."""
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        run_config={
            "ops": {"grid_serch_results": {"config": {"factors": [64]}}},
            "resources": {
                "feedback": {"config": {"path": str(parity_csv)}},
                "warehouse": {"config": {"path": warehouse.path}},
            },
        },
        raise_on_error=False,
    )

    assert "did you mean 'grid_search_results'?" in failure_of(result)
    assert not warehouse.has("raw_feedback")


def test_what_is_left_to_the_asset_to_find_fails_as_before(parity_csv, own_warehouse):
    result = run_graph(
        parity_csv,
        own_warehouse,
        selection=alone("leave_one_out_split"),
        ops={"leave_one_out_split": {"config": {"strategy": "file"}}},
    )

    assert "needs the path of a `file`" in failure_of(result)


# --- Ready files ---


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_a_ready_file_is_valid_and_says_what_it_is_for(file):
    validate_run_config(RETRAIN, yaml.safe_load(file.read_text()))

    assert file.read_text().startswith("# ")


def checked(tmp_path, text):
    """How `recsys check` ends on a file of this text."""
    file = tmp_path / "run.yaml"
    file.write_text(text)
    return CliRunner().invoke(main, ["check", str(file)])


def test_recsys_check_finds_a_ready_file_valid(tmp_path):
    done = checked(tmp_path, EXAMPLES[0].read_text())

    assert done.exit_code == 0
    assert done.output.endswith("is valid\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ops: {grid_search_results: {config: {factors: [0]}}}", "factors[0] is 0"),
        ("ops: {grid_serch_results: {config: {factors: [1]}}}", "did you mean 'grid_search_results'?"),
        ("ops: {grid_search_results: {config: {factor: [1]}}}", 'unexpected config entry "factor"'),
        ("- 1", "must hold a mapping"),
    ],
)
def test_and_says_in_one_line_what_is_wrong_with_another(tmp_path, text, message):
    done = checked(tmp_path, text)

    assert done.exit_code == 1
    assert message in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_a_typo_in_a_knob_is_refused_too():
    config = {"ops": {"grid_search_results": {"config": {"factor": [4]}}}}
    with pytest.raises(DagsterInvalidConfigError, match='unexpected config entry "factor"'):
        validate_run_config(RETRAIN, config)
