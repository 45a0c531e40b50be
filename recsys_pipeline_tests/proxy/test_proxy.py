"""A login in front of the UI, and a UI that changes nothing: real servers, on loopback."""

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from recsys_pipeline_tests.conftest import PROJECT

pytestmark = pytest.mark.proxy

SITE = PROJECT / "deploy" / "proxy" / "nginx.conf"
# Debian keeps it where the PATH of users does not lead.
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
USER, PASSWORD = "clerk", "a pass word"
GRAPHQL_WS = "graphql-ws"
SECONDS = 120

DEFINITIONS = """
from dagster import Definitions, job, op

@op
def nothing(): ...

@job
def harmless():
    nothing()

defs = Definitions(jobs=[harmless])
"""

LAUNCH = """
mutation { launchRun(executionParams: {selector: {repositoryLocationName: "%s", repositoryName:
"__repository__", pipelineName: "harmless"}, runConfigData: {}, mode: "default"}) { __typename } }
"""


def free_ports(number):
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def process(command, folder, answers, **environment):
    """A server for as long as the block lasts, with whatever it has started."""
    log = folder / f"{Path(command[0]).name}.{free_ports(1)[0]}.log"
    with log.open("wb") as output:
        started = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            start_new_session=True,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + SECONDS
        while not answers():
            if started.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield
    finally:
        # With what it has started: that is its group.
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            started.wait(timeout=20)
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def listens(port, address="127.0.0.1"):
    with suppress(OSError), socket.create_connection((address, port), timeout=5):
        return True
    return False


@pytest.fixture(scope="module")
def webservers(tmp_path_factory):
    """Ports of a UI, and of one that only reads; both say nothing of where they listen."""
    folder = tmp_path_factory.mktemp("ui")
    (folder / "harmless.py").write_text(DEFINITIONS)
    shutil.copy(PROJECT / "dagster.yaml", folder)
    program = Path(sys.executable).with_name("dagster-webserver")
    home = {"DAGSTER_HOME": str(folder)}
    # Alone and once: several processes that initialise an empty instance at the same time break it.
    migrate = [program.with_name("dagster"), "instance", "migrate"]
    subprocess.run(migrate, check=True, capture_output=True, env={**os.environ, **home})
    ports = free_ports(2)
    with ExitStack() as servers:
        for port, options in zip(ports, ([], ["--read-only"]), strict=True):
            command = [program, "--port", port, *options, "-f", "harmless.py"]
            servers.enter_context(process(command, folder, lambda port=port: listens(port), **home))
        yield ports


def graphql(port, query):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)


def test_the_webserver_listens_on_loopback_alone(webservers):
    # Whoever listens everywhere answers at every address of the machine; 127.0.0.2 is one, too.
    assert listens(webservers[0])
    assert not listens(webservers[0], "127.0.0.2")


def test_a_ui_that_only_reads_refuses_to_launch(webservers):
    locations = "{ workspaceOrError { ... on Workspace { locationEntries { name } } } }"
    told = [graphql(port, locations)["data"]["workspaceOrError"]["locationEntries"] for port in webservers]
    (entry,), (entry_of_reader,) = told
    assert entry == entry_of_reader

    launched, refused = (graphql(port, LAUNCH % entry["name"]) for port in webservers)
    assert launched["data"]["launchRun"]["__typename"] == "LaunchRunSuccess"
    assert refused["data"]["launchRun"]["__typename"] == "UnauthorizedError"


# --- nginx ---


@pytest.fixture(scope="module")
def configuration(tmp_path_factory):
    """The site as it stands, but for names and ports; the file, both ports and the certificate."""
    if not NGINX:
        pytest.skip("nginx is not installed: apt install nginx")
    folder = tmp_path_factory.mktemp("nginx")
    # Its workers, if it is started by root, are others than whoever owns the files.
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)
    ui, port = free_ports(2)
    key, certificate, passwords = (folder / name for name in ("key", "crt", "htpasswd"))
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-keyout", key),
            *("-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=PASSWORD, check=True, capture_output=True, text=True
    ).stdout.strip()
    passwords.write_text(f"{USER}:{hashed}\n")
    passwords.chmod(0o644)
    site = SITE.read_text()
    for written, own in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "server_name recsys.example.org": "server_name localhost",
        "/etc/nginx/recsys.crt": str(certificate),
        "/etc/nginx/recsys.key": str(key),
        "auth_basic_user_file /etc/nginx/recsys.htpasswd": f"auth_basic_user_file {passwords}",
        "http://127.0.0.1:3000": f"http://127.0.0.1:{ui}",
    }.items():
        assert site.count(written) == 1
        site = site.replace(written, own)
    (folder / "site.conf").write_text(site)
    temporary = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = folder / "main.conf"
    main.write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n    access_log off;\n"
        f"{temporary}    include {folder}/site.conf;\n}}\n"
    )
    return main, port, ui, certificate


def test_nginx_accepts_the_configuration(configuration):
    checked = subprocess.run(
        [NGINX, "-t", "-e", "stderr", "-c", configuration[0]], capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stderr


@pytest.fixture(scope="module")
def proxy(configuration, webservers):
    """The port of nginx, and what trusts its certificate."""
    main, port, ui, certificate = configuration
    site = main.with_name("site.conf")
    site.write_text(site.read_text().replace(f"127.0.0.1:{ui}", f"127.0.0.1:{webservers[0]}"))
    command = [NGINX, "-e", "stderr", "-c", main]
    with process(command, main.parent, lambda: listens(port)):
        yield port, ssl.create_default_context(cafile=str(certificate))


def headers(password=PASSWORD, origin=None):
    """Of a request, with a login and from a page, if they are given."""
    login = base64.b64encode(f"{USER}:{password}".encode()).decode()
    return {
        **({"Authorization": f"Basic {login}"} if password else {}),
        **({"Origin": origin} if origin else {}),
    }


def status(proxy, path="/", sent=None):
    port, trust = proxy
    request = urllib.request.Request(f"https://localhost:{port}{path}", headers=sent or {})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS, context=trust) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("path", ["/", "/graphql", "/server_info", "/logs/x", "/download_debug/x"])
def test_without_a_password_or_with_a_wrong_one_nothing_is_to_be_had(proxy, path):
    assert status(proxy, path)[0] == 401
    assert status(proxy, path, headers("wrong"))[0] == 401


def test_with_it_the_ui_is_there(proxy):
    code, page = status(proxy, sent=headers())

    assert code == 200
    assert 'id="initialization-data"' in page


def test_a_page_of_another_site_cannot_use_the_login_of_the_browser(proxy):
    port, _ = proxy
    assert status(proxy, "/server_info", headers(origin=f"https://localhost:{port}"))[0] == 200
    for origin in (
        "https://evil.example",
        f"http://localhost:{port}",
        f"https://localhost:{port}.evil",
        "null",
    ):
        assert status(proxy, "/server_info", headers(origin=origin))[0] == 403


def websocket(proxy, sent):
    from websockets.sync.client import connect

    port, trust = proxy
    return connect(
        f"wss://localhost:{port}/graphql",
        ssl=trust,
        subprotocols=[GRAPHQL_WS],
        additional_headers=sent,
        open_timeout=SECONDS,
        proxy=None,
    )


def test_the_websocket_passes_with_the_password_and_only_then(proxy):
    from websockets.exceptions import InvalidStatus

    with websocket(proxy, headers()) as socket_of_ui:
        socket_of_ui.send(json.dumps({"type": "connection_init"}))
        assert json.loads(socket_of_ui.recv(timeout=SECONDS))["type"] == "connection_ack"
    for refused, sent in {401: headers(None), 403: headers(origin="https://evil.example")}.items():
        with pytest.raises(InvalidStatus) as refusal, websocket(proxy, sent):
            pass
        assert refusal.value.response.status_code == refused
