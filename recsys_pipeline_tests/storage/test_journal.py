"""The journal: what is finished is kept, what is stale or broken is never taken up."""

import json

import numpy as np
import pytest
from upath import UPath

from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.storage import journal as module
from recsys_pipeline.storage.journal import Journal, known_trials
from recsys_pipeline_tests.storage.bucket import new_bucket
from recsys_pipeline_tests.storage.killing import killed_everywhere

TRIAL = Hyperparameters(factors=4, regularization=0.1, alpha=5.0, iterations=2, bm25_K1=100.0, bm25_B=0.8)
RESULT = TrialResult(TRIAL, Scores(0.1, 0.01, 0.2, 0.3, 0.3, 0.4), 1.5)
CONTENT = {"default": "digest of what the trials see", "clicks": "digest under other strengths"}


@pytest.fixture(params=["local", "object store"])
def root(request, tmp_path, monkeypatch):
    return UPath(tmp_path) if request.param == "local" else new_bucket(monkeypatch)


STRENGTHS = {"default": {"view": 1.0}, "clicks": {"click": 2.0}}


def journal_of(
    root, content=CONTENT, solver="implicit", seed=42, weights="training", k=10, strengths=STRENGTHS
):
    return Journal(root, content, solver, seed, weights, k=k, strengths=strengths)


@pytest.fixture
def journal(root):
    journal = journal_of(root)
    journal.add(RESULT)
    return journal


def entries(root):
    return [entry for folder in (root / "search_journal").iterdir() for entry in folder.iterdir()]


@pytest.mark.usefixtures("journal")
def test_a_finished_trial_is_known_to_the_next_search(root):
    assert journal_of(root).finished([TRIAL, TRIAL.replace(factors=8)]) == [RESULT]


def test_before_the_first_search_nothing_is_finished(root):
    assert journal_of(root).finished([TRIAL]) == []
    journal_of(root).drop_others()


def test_the_ranks_come_back_byte_for_byte(root, journal):
    ranks = np.arange(1, 12, dtype=np.uint8)
    journal.add(RESULT._replace(ranks=ranks))
    (found,) = journal_of(root).finished([TRIAL])

    assert found.ranks.tolist() == ranks.tolist()


def test_an_integer_and_a_float_of_the_same_value_are_one_trial(journal):
    assert journal.finished([TRIAL.replace(alpha=5)]) == [RESULT]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(
            {"content": {**CONTENT, "default": "other strengths or another split"}}, id="other data"
        ),
        pytest.param({"solver": "batched"}, id="another solver"),
        pytest.param({"seed": 43}, id="another seed"),
        pytest.param({"weights": "all"}, id="other weights"),
        pytest.param({"k": 20}, id="ranks that reach further"),
    ],
)
def test_nothing_of_another_search_is_taken_up(root, journal, other):
    assert journal.finished([TRIAL])
    assert journal_of(root, **other).finished([TRIAL]) == []


@pytest.mark.parametrize("library", ["recsys_pipeline", "implicit", "numpy", "scipy", "numba"])
def test_nor_of_another_version(root, journal, monkeypatch, library):
    assert journal.finished([TRIAL])
    installed = module.version
    monkeypatch.setattr(module, "version", lambda name: "99" if name == library else installed(name))

    assert journal_of(root).finished([TRIAL]) == []


def test_a_mapping_is_known_by_what_it_says_not_by_its_name(root, journal):
    of_clicks = RESULT._replace(hyperparameters=TRIAL.replace(strengths="clicks"))
    journal.add(of_clicks)

    changed = journal_of(root, {**CONTENT, "clicks": "digest of a changed mapping"})
    assert changed.finished([TRIAL, of_clicks.hyperparameters]) == [RESULT]


@pytest.mark.parametrize("how", ["half", "altered", "no json", "no object", "another trial", "no text"])
def test_a_broken_entry_is_dropped(root, journal, how):
    (entry,) = entries(root)
    text = entry.read_text()
    content = json.loads(text)
    if how == "altered":
        content["content"]["scores"]["map"] = 0.9
    if how == "another trial":
        content["content"]["trial"]["factors"] = 5
        content["sha256"] = module._digest(content["content"])
    broken = {"half": text[: len(text) // 2], "no json": "[]", "no object": "5", "no text": "\udcff"}
    entry.write_text(broken.get(how, json.dumps(content)), errors="surrogateescape")

    assert journal.finished([TRIAL]) == []


def test_a_folder_in_place_of_an_entry_is_dropped_too(tmp_path):
    journal = journal_of(UPath(tmp_path))
    journal.add(RESULT)
    (entry,) = entries(tmp_path)
    entry.unlink()
    entry.mkdir()

    assert journal.finished([TRIAL]) == []


def test_a_failed_trial_is_tried_again(root):
    journal = journal_of(root)
    journal.add(RESULT._replace(scores=None, failure="out of memory"))

    assert journal.finished([TRIAL]) == []


def test_a_kill_before_any_change_of_the_disk_loses_no_finished_trial_and_leaves_no_half_one(tmp_path):
    journal = journal_of(UPath(tmp_path))
    journal.add(RESULT)
    second = RESULT._replace(hyperparameters=TRIAL.replace(factors=8))
    for fatal in killed_everywhere(lambda: journal.add(second)):
        found = journal.finished([TRIAL, second.hyperparameters])
        assert found in ([RESULT], [RESULT, second]), fatal
        journal.add(second)
        assert len(entries(tmp_path)) == 2


# --- Journals of other data ---


OTHER = {**CONTENT, "default": "digest of other data"}


def test_the_journals_of_other_data_go_when_a_search_is_done(root, journal):
    other = journal_of(root, OTHER)
    other.add(RESULT)
    other.drop_others()

    assert other.finished([TRIAL]) == [RESULT]
    assert journal.finished([TRIAL]) == []
    assert len(entries(root)) == 1


@pytest.mark.parametrize(
    "other", [{"seed": 43}, {"solver": "batched"}, {"weights": "all"}, {"k": 20}], ids=str
)
def test_earlier_searches_over_the_same_data_stay_and_can_be_shown_together(root, journal, other):
    later = journal_of(root, **other)
    later.add(RESULT)
    later.drop_others()

    assert journal.finished([TRIAL]) == [RESULT]
    told = known_trials(root)
    assert [each.hyperparameters for each in told] == [TRIAL, TRIAL]
    ((name, value),) = other.items()
    assert value in {each.search[name] for each in told}
    assert {each.search["data"] for each in told} == {CONTENT["default"]}


def test_before_the_first_search_no_trial_is_known(root):
    assert known_trials(root) == []
    assert journal_of(root).others([TRIAL]) == []


def test_the_others_are_those_of_the_same_data_that_are_not_in_the_table(root, journal):
    journal.add(RESULT._replace(hyperparameters=TRIAL.replace(factors=8)))
    journal_of(root, OTHER).add(RESULT)
    earlier = journal_of(root, seed=43)
    earlier.add(RESULT)

    told = [(each.search["seed"], each.hyperparameters.factors) for each in journal.others([TRIAL])]
    assert sorted(told) == [(42, 8), (43, 4)]


def test_what_a_mapping_said_is_known_though_another_has_its_name_now(root, journal):
    of_clicks = RESULT._replace(hyperparameters=TRIAL.replace(strengths="clicks"))
    journal.add(of_clicks)
    changed = {**STRENGTHS, "clicks": {"click": 5.0}}
    journal_of(root, {**CONTENT, "clicks": "another digest"}, strengths=changed).add(of_clicks)

    told = [each.strengths for each in known_trials(root) if each.hyperparameters.strengths == "clicks"]
    assert sorted(told, key=str) == [{"click": 2.0}, {"click": 5.0}]


def test_whatever_else_lies_there_stays_and_fails_no_search(root, journal):
    store = root / "search_journal"
    stray = [store / ".DS_Store", store / "notes" / "x", store / "0123", store / ("A" * 32)]
    for path in stray:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    journal.drop_others()

    assert journal.finished([TRIAL]) == [RESULT]
    assert [path.read_text() for path in stray] == ["mine"] * len(stray)


def test_a_journal_that_cannot_be_removed_fails_no_search(tmp_path, monkeypatch):
    root = UPath(tmp_path)
    for content in (CONTENT, {**CONTENT, "default": "digest of third data"}):
        journal_of(root, content).add(RESULT)
    first, second = (tmp_path / "search_journal").iterdir()
    other = journal_of(root, OTHER)
    other.add(RESULT)
    # fsspec refuses to remove the folder that the process is in.
    monkeypatch.chdir(first)
    other.drop_others()

    assert first.exists()
    assert not second.exists()
    assert other.finished([TRIAL]) == [RESULT]


def test_a_file_in_place_of_all_journals_fails_no_search_that_has_done_its_work(tmp_path):
    (tmp_path / "search_journal").touch()
    journal = journal_of(UPath(tmp_path))

    assert journal.finished([TRIAL]) == []
    journal.drop_others()
