"""The files of deploy/ are what their own tools take, and say the same as the project's."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recsys_pipeline_tests.conftest import PROJECT

DEPLOY = PROJECT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted(
    path for path in KUBERNETES.glob("*.yaml") if path.stem not in ("dagster", "workspace", "kustomization")
)
BIN = Path(sys.executable).parent
tools = pytest.mark.deploy_files


def tool(name):
    """A program of the virtual environment, which `make deploy-files` installs, or of the system."""
    found = BIN / name if (BIN / name).exists() else shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not there: make deploy-files installs what pip has, the system the others")
    return found


def run(*command, **environment):
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def without(path, *keys):
    return {key: value for key, value in yaml.safe_load(path.read_text()).items() if key not in keys}


# --- What they say ---


def test_every_instance_queues_watches_and_retries_as_the_projects_own_does():
    own = yaml.safe_load((PROJECT / "dagster.yaml").read_text())

    assert without(DEPLOY / "dagster.postgres.yaml", "storage") == own
    assert without(KUBERNETES / "dagster.yaml", "storage", "run_launcher", "compute_logs") == own


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "kubernetes/kustomization.yaml"])
def test_what_has_not_been_run_says_so(name):
    assert "Not run here" in (DEPLOY / name).read_text()


def test_no_file_holds_a_secret():
    for path in (path for path in DEPLOY.rglob("*") if path.is_file()):
        for line in path.read_text().splitlines():
            if not line.lstrip().startswith("#"):
                assert not re.search(r"(?i)passw(or)?d\s*[:=]\s*[\"']?\w", line), f"{path}: {line}"


def test_the_ui_is_reached_over_the_loopback_alone():
    (unit,) = (unit.read_text() for unit in UNITS if unit.stem == "recsys-webserver")
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]

    assert "--host 127.0.0.1 " in unit
    assert {name: service["ports"] for name, service in compose.items() if "ports" in service} == {
        "webserver": ["127.0.0.1:3000:3000"]
    }


def test_the_image_is_given_what_it_copies():
    ignore = (PROJECT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)

    sources = {source for line in copied for source in line.split()}
    assert {f"!{source}" for source in sources} == {line for line in ignore if line.startswith("!")}
    assert all((PROJECT / source).exists() for source in sources)


# --- By their own tools ---


@tools
def test_systemd_takes_the_units_and_calls_them_well_protected(tmp_path):
    analyze = tool("systemd-analyze")
    for unit in UNITS:
        # Those programs are looked for.
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/recsys/.venv/bin", str(BIN)))
    units = sorted(tmp_path.glob("*.service"))

    assert len(units) == 3
    assert run(analyze, "verify", *units) == ""
    run(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", *units)


@tools
def test_hadolint_has_nothing_to_say_of_the_dockerfile():
    assert run(tool("hadolint"), DEPLOY / "Dockerfile") == ""


@tools
def test_compose_resolves_its_file(tmp_path):
    password = tmp_path / "password"
    password.write_text("x")
    # It asks for the version of podman, even where it only reads.
    podman = tmp_path / "podman"
    podman.write_text("#!/bin/sh\necho podman version 5.0.0\n")
    podman.chmod(0o755)
    told = run(
        *(tool("podman-compose"), "--podman-path", podman, "-f", DEPLOY / "compose.yaml", "config"),
        RECSYS_FEED=str(tmp_path),
        RECSYS_PG_PASSWORD_FILE=str(password),
    )

    services = yaml.safe_load(told)["services"]
    assert set(services) == {"postgres", "code", "webserver", "daemon"}
    assert all("healthcheck" in service for service in services.values())


@tools
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_the_manifests_are_what_kubernetes_takes(manifest):
    assert "passed" in run(tool("kubernetes-validate"), "--strict", manifest)


@tools
def test_kustomize_builds_them_into_something_that_kubernetes_takes(tmp_path):
    built = run(tool("kubectl"), "kustomize", KUBERNETES)
    (tmp_path / "built.yaml").write_text(built)
    run(tool("kubernetes-validate"), "--strict", tmp_path / "built.yaml")
    resources = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(built)}

    code = resources["Deployment", "recsys-code"]["spec"]["template"]["spec"]["containers"][0]
    named = {each["name"]: each.get("value") for each in code["env"]}
    # Runs are jobs of the same image.
    assert named["DAGSTER_CURRENT_IMAGE"] == code["image"]
    settings = resources["ConfigMap", "recsys-settings"]["data"]
    assert not [name for name in settings if "PASSWORD" in name]


@tools
def test_dagster_takes_the_instances(tmp_path, monkeypatch):
    for package in ("dagster_postgres", "dagster_k8s"):
        if not importlib.util.find_spec(package):
            pytest.skip("make deploy-files installs dagster-postgres and dagster-k8s")
    from dagster._core.instance import InstanceRef
    from dagster_k8s import K8sRunLauncher
    from kubernetes import config

    # There is no cluster to look for credentials in.
    monkeypatch.setattr(config, "load_incluster_config", lambda: None)
    for file in (DEPLOY / "dagster.postgres.yaml", KUBERNETES / "dagster.yaml"):
        home = tmp_path / file.parent.name
        home.mkdir()
        shutil.copy(file, home / "dagster.yaml")
        ref = InstanceRef.from_dir(str(home))
        assert "password" not in str(ref.to_dict()).lower()

    assert isinstance(ref.run_launcher, K8sRunLauncher)
