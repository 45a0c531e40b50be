"""A failed run is reported to the webhook: short, escaped, with patience that ends, its URL untold."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from dagster import (
    DagsterInstance,
    Failure,
    SkipReason,
    build_run_status_sensor_context,
    build_schedule_context,
    job,
    op,
)
from pydantic import SecretStr

from recsys_pipeline import settings
from recsys_pipeline.automation import alerts, schedules
from recsys_pipeline.automation.alerts import AlertError, Report, alert_sensor, post, report_of
from recsys_pipeline.definitions import defs

SECRET = "hunter2-marked"


class Hook:
    """A server on this machine, which answers as it is told."""

    def __init__(self):
        self.bodies, self.answers, self.types = [], [], []
        self.finish = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.bodies.append(json.loads(body))
                hook.types.append(self.headers["Content-Type"])
                answer = hook.answers.pop(0) if hook.answers else 200
                if answer == "slow":
                    hook.finish.wait(30)
                    return
                self.send_response(answer)
                if answer == 302:
                    self.send_header("Location", f"http://127.0.0.1:1/{SECRET}")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def url(self):
        return SecretStr(f"http://127.0.0.1:{self.server.server_port}/services/{SECRET}")

    def close(self):
        self.finish.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hook():
    hook = Hook()
    yield hook
    hook.close()


def posted(url, text="text"):
    """How long was waited in between."""
    waited = []
    post(url, text, waited.append)
    return waited


def test_a_report_is_posted_as_slack_takes_it(hook):
    assert posted(hook.url, "what & why") == []
    assert hook.bodies == [{"text": "what & why"}]
    assert hook.types == ["application/json"]


@pytest.mark.parametrize("trouble", [500, 503, 429])
def test_a_server_with_a_trouble_of_its_own_is_asked_again(hook, trouble):
    hook.answers = [trouble, trouble]

    assert posted(hook.url) == [1.0, 3.0]
    assert len(hook.bodies) == 3


def test_but_not_for_ever(hook):
    hook.answers = [500] * 9
    with pytest.raises(AlertError, match=r"did not take the report: it answered 500$"):
        posted(hook.url)

    assert len(hook.bodies) == 3


@pytest.mark.parametrize("answer", [302, 400, 404])
def test_a_refusal_is_final_and_nobody_is_sent_elsewhere(hook, answer):
    hook.answers = [answer]
    with pytest.raises(AlertError, match=f"it answered {answer}$"):
        posted(hook.url)

    assert len(hook.bodies) == 1


def test_a_slow_server_is_not_waited_for(hook, monkeypatch):
    monkeypatch.setattr(alerts, "_TIMEOUT_SECONDS", 0.05)
    hook.answers = ["slow"] * 3
    begin = time.monotonic()
    with pytest.raises(AlertError, match=r"it did not answer in 0\.05 s"):
        posted(hook.url)

    assert time.monotonic() - begin < 20


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"http://127.0.0.1:1/{SECRET}", "it cannot be reached (ConnectionRefusedError)"),
        (f"http://127.0.0.1:1/{SECRET} x", "it cannot be asked (InvalidURL)"),
        (f"http://127.0.0.1:{SECRET}/", "it cannot be asked (InvalidURL)"),
    ],
)
def test_no_error_tells_the_url(url, told):
    with pytest.raises(AlertError) as refused:
        posted(SecretStr(url))

    assert told in str(refused.value)
    assert SECRET not in str(refused.value)
    assert refused.value.__suppress_context__


REASON = "not released: the model <b>is</b> worse & more"


@op
def release(context):
    for number in range(20):
        context.log.info(f"line {number} " + "x" * 1000)
    raise Failure(REASON, allow_retries=False)


@op
def breaks():
    raise RuntimeError("unforeseen")


@job
def retrain():
    release()


@job
def broken():
    breaks()


@pytest.fixture
def instance():
    with DagsterInstance.ephemeral() as instance:
        yield instance


def failed(instance, which=retrain):
    return which.execute_in_process(instance=instance, raise_on_error=False)


def report(instance, result, url="https://ui.example.com/"):
    run = instance.get_run_by_id(result.run_id)
    return report_of(instance, run, "the run failed", url)


def test_a_report_says_what_failed_why_what_was_logged_last_and_where_to_look(instance):
    result = failed(instance)
    text = report(instance, result).text()

    assert text.startswith("*release of retrain failed.*\n")
    assert "not released: the model &lt;b&gt;is&lt;/b&gt; worse &amp; more" in text
    assert "line 19 xxx" in text
    assert "line 11 " not in text
    assert text.endswith(f"\nhttps://ui.example.com/runs/{result.run_id}")
    assert len(text) < 5000


def test_an_unforeseen_error_is_told_by_its_message(instance):
    assert "RuntimeError: unforeseen" in report(instance, failed(instance, broken)).text()


def test_without_a_url_of_the_ui_the_run_is_named(instance):
    result = failed(instance)

    assert report(instance, result, url="").text().endswith(f"\nrun {result.run_id}")


def test_a_run_that_was_killed_has_the_message_of_dagster_and_may_be_started_again():
    killed = Report("retrain", "1", [], "the process is gone", [], retried=True, url="")

    assert killed.text() == "*retrain failed.* It is started again.\nthe process is gone\nrun 1"


def test_however_long_a_reason_is_the_report_is_short_and_its_block_stays_closed():
    endless = Report("j", "1", ["s"], "&" * 10**6, ["```" * 1000] * 1000, retried=False, url="")

    assert len(endless.text()) < 12_000
    assert endless.text().count("```") == 2


def context_of(instance, result):
    event = next(event for event in result.all_events if event.is_failure and not event.is_step_failure)
    return build_run_status_sensor_context(
        "alert",
        dagster_event=event,
        dagster_instance=instance,
        dagster_run=instance.get_run_by_id(result.run_id),
    ).for_run_failure()


def test_the_sensor_reports_a_failed_run(hook, instance, caplog):
    context = context_of(instance, failed(instance))
    assert alert_sensor(hook.url, "https://ui.example.com")(context) is None

    (body,) = hook.bodies
    assert REASON.split("<")[0] in body["text"]
    assert SECRET not in caplog.text + json.dumps(body)


def test_without_a_webhook_nothing_is_reported(instance):
    sensor = alert_sensor(SecretStr(""), "")
    assert sensor.default_status.value == "STOPPED"
    assert isinstance(sensor(context_of(instance, failed(instance))), SkipReason)


@pytest.mark.parametrize("answer", [200, 404])
def test_a_night_that_cannot_start_a_run_is_reported_too(hook, monkeypatch, tmp_path, answer):
    """No run fails where the file of RECSYS_RUN_CONFIG is refused, so that the sensor would see nothing."""

    def refused(*_):
        raise ValueError("factors of grid_search_results: 0 < 1")

    monkeypatch.setattr(settings, "ALERT_WEBHOOK", hook.url)
    monkeypatch.setattr(schedules.Night, "now", refused)
    hook.answers = [answer]

    instance = DagsterInstance.local_temp(str(tmp_path))
    with instance, pytest.raises(ValueError, match="factors of grid"):
        schedules.tonight(build_schedule_context(instance=instance, repository_def=defs.get_repository_def()))

    assert [body["text"] for body in hook.bodies] == [
        "*nightly started no run.*\nfactors of grid_search_results: 0 &lt; 1"
    ]
