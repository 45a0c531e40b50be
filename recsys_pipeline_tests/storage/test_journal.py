"""The journal: what is finished is kept, what is stale or broken is never taken up."""

import json
import uuid

import numpy as np
import pytest
from upath import UPath

from recsys_pipeline.core.holdout import hold_out_pairs
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.search import SearchData, TrialResult
from recsys_pipeline.core.trials import Trial
from recsys_pipeline.storage import journal as module
from recsys_pipeline.storage.journal import Journal
from recsys_pipeline_tests.worlds import pattern_of

TRIAL = Trial(factors=4, regularization=0.1, alpha=5.0, iterations=2, bm25_k1=100.0, bm25_b=0.8)
RESULT = TrialResult(TRIAL, Scores(0.1, 0.01, 0.2, 0.3, 0.3, 0.4), 1.5)


def data(strength=1.0, held_out=0):
    pattern = pattern_of([[0, 1, 2], [1, 2, 3]], 4)
    strengths = np.full(pattern.n_pairs, strength)
    return SearchData.prepare(pattern, [hold_out_pairs(pattern, strengths, np.array([held_out]))], [TRIAL])


@pytest.fixture(params=["local", "object store"])
def root(request, tmp_path):
    return UPath(tmp_path) if request.param == "local" else UPath(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def journal(root):
    journal = Journal(root, data(), "implicit", 42)
    journal.add(RESULT)
    return journal


def entries(root):
    return [entry for folder in (root / "search_journal").iterdir() for entry in folder.iterdir()]


@pytest.mark.usefixtures("journal")
def test_a_finished_trial_is_known_to_the_next_search(root):
    again = Journal(root, data(), "implicit", 42)

    assert again.finished([TRIAL, TRIAL._replace(factors=8)]) == [RESULT]


def test_the_ranks_come_back_byte_for_byte(root, journal):
    ranks = np.arange(1, 12, dtype=np.uint8)
    journal.add(RESULT._replace(ranks=ranks))
    (found,) = Journal(root, data(), "implicit", 42).finished([TRIAL])

    assert found.ranks.tolist() == ranks.tolist()


def test_an_integer_and_a_float_of_the_same_value_are_one_trial(journal):
    assert journal.finished([TRIAL._replace(alpha=5)]) == [RESULT]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param((data(strength=2.0), "implicit", 42), id="other strengths"),
        pytest.param((data(held_out=1), "implicit", 42), id="another split"),
        pytest.param((data(), "batched", 42), id="another solver"),
        pytest.param((data(), "implicit", 43), id="another seed"),
    ],
)
def test_nothing_of_another_search_is_taken_up(root, journal, other):
    assert journal.finished([TRIAL])
    assert Journal(root, *other).finished([TRIAL]) == []


@pytest.mark.parametrize("library", ["recsys_pipeline", "implicit", "numpy", "scipy", "numba"])
def test_nor_of_another_version(root, journal, monkeypatch, library):
    assert journal.finished([TRIAL])
    installed = module.version
    monkeypatch.setattr(module, "version", lambda name: "99" if name == library else installed(name))

    assert Journal(root, data(), "implicit", 42).finished([TRIAL]) == []


@pytest.mark.parametrize("how", ["half", "altered", "no json", "another trial"])
def test_a_broken_entry_is_dropped(root, journal, how):
    (entry,) = entries(root)
    text = entry.read_text()
    content = json.loads(text)
    if how == "altered":
        content["content"]["scores"]["map"] = 0.9
    if how == "another trial":
        content["content"]["trial"]["factors"] = 5
        content["sha256"] = module._digest(content["content"])
    entry.write_text({"half": text[: len(text) // 2], "no json": "[]"}.get(how, json.dumps(content)))

    assert journal.finished([TRIAL]) == []


def test_a_failed_trial_is_tried_again(root):
    journal = Journal(root, data(), "implicit", 42)
    journal.add(RESULT._replace(scores=None, failure="out of memory"))

    assert journal.finished([TRIAL]) == []


def test_the_journals_of_other_data_go_when_a_search_is_done(root, journal):
    other = Journal(root, data(strength=2.0), "implicit", 42)
    other.add(RESULT)
    other.drop_others()

    assert other.finished([TRIAL]) == [RESULT]
    assert journal.finished([TRIAL]) == []
    assert len(entries(root)) == 1
