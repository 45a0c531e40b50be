"""What `make audit` says of each answer that pip-audit may give."""

import json
import subprocess
import sys

import pytest

from recsys_pipeline_tests.conftest import PROJECT

CLEAN = {"name": "numpy", "version": "2.4.6", "vulns": []}
SKIPPED = {"name": "own", "skip_reason": "not found"}
BAD = {"name": "jinja2", "version": "3.0", "vulns": [{"id": "CVE-2026-1", "fix_versions": ["3.1"]}]}


@pytest.fixture
def audit(tmp_path):
    def run(answer="", complaint="", **environment):
        stand_in = tmp_path / "pip-audit"
        stand_in.write_text(
            f"#!{sys.executable}\nimport sys\nprint({answer!r})\nsys.exit({complaint!r} or 0)\n"
        )
        stand_in.chmod(0o755)
        command = [sys.executable, PROJECT / "scripts" / "audit.py", stand_in, "constraints.txt"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return done.returncode, done.stdout + done.stderr

    return run


def told(*dependencies):
    return json.dumps({"dependencies": dependencies})


def test_a_known_vulnerability_fails_and_says_what_mends_it(audit):
    status, text = audit(told(CLEAN, BAD))

    assert status == 1
    assert "jinja2 3.0: CVE-2026-1, mended by 3.1\n" in text


def test_none_known_is_said_with_how_many_were_asked_for(audit):
    assert audit(told(CLEAN, SKIPPED)) == (
        0,
        "constraints.txt: 1 of 2 packages audited, 0 known vulnerabilities\n",
    )


def test_nothing_audited_is_never_nothing_known(audit):
    assert audit(told(SKIPPED))[0] == 1
    assert audit("", "some other error")[0] == 1


def test_without_a_network_it_says_that_nothing_was_audited(audit):
    unreachable = "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='api.osv.dev')"
    status, text = audit("", unreachable)

    assert status == 0
    assert text.startswith("constraints.txt: not audited, no vulnerability service can be reached")
    assert audit("", unreachable, AUDIT_REQUIRED="1")[0] == 1
