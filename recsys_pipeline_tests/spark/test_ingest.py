"""Files are read and judged by the workers: the same events, the same rejects, the same sentences."""

import pytest

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.engines.local.engine import LocalEngine
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.ingest import ingest
from recsys_pipeline.storage.warehouse import Warehouse

FILES = {
    "1.csv": "UserID,ProductCode,Event\n1,007,view\n2,008,buy\n,009,view\n2,007,view\n",
    "2.csv": 'UserID,ProductCode,Event\n3,008,view\n3,008,stare\nabc,009,buy\n4,"00\n9,view\n',
    "3.csv": "UserID,ProductCode,Event\n5,010,scroll\n5,010,buy\n77,010,buy\n",
}


@pytest.fixture
def feed(tmp_path):
    folder = tmp_path / "feed"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def ingested(engine, feed, path, **settings):
    """The report, and the tables."""
    feedback = Feedback(
        path=str(feed), strengths={"view": 1.0, "buy": 4.0}, ignored_events=["scroll"], **settings
    )
    warehouse = Warehouse(path=str(path))
    report = ingest(feedback, warehouse, "raw_feedback", "rejected_feedback", each=engine.each)
    tables = [warehouse.read_table(name) for name in ("raw_feedback", "rejected_feedback")]
    return report, tables


def test_events_rejects_and_counts_are_the_same(engine, feed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    feed = feed.relative_to(tmp_path)
    forget = tmp_path / "forget.csv"
    forget.write_text("UserID\n77\n78\n")
    settings = {"max_rejected_share": 0.9, "forget_users": str(forget)}

    of_spark = ingested(engine, feed, tmp_path / "spark", **settings)
    of_local = ingested(LocalEngine(), feed, tmp_path / "local", **settings)

    assert of_spark[0] == of_local[0]
    assert of_spark[0].n_rejected > 2
    for ours, theirs in zip(of_spark[1], of_local[1], strict=True):
        assert ours.to_pylist() == theirs.to_pylist()


def test_a_file_that_cannot_be_read_is_told_alike(engine, feed, tmp_path):
    (feed / "4.csv").write_text("user,ProductCode,Event\n1,2,view\n")
    told = []
    for name, each in (("spark", engine), ("local", LocalEngine())):
        with pytest.raises(InputError) as caught:
            ingested(each, feed, tmp_path / name, max_rejected_share=0.9)
        told.append(str(caught.value))

    assert told[0] == told[1]
    assert "no column 'UserID'" in told[0]
