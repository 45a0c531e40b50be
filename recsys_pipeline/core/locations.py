"""Paths and URLs that people configure: they are shown in the UI, in logs and in metadata."""

import re
from typing import NamedTuple
from urllib.parse import unquote

_LINK = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
# Where what stands before the @ is no user: abfs://container@account, github://org:repo@branch.
_CONTAINERS = {"abfs", "abfss", "wasb", "wasbs"}
_REPOSITORIES = {"github"}
_DATABASES = {"postgresql", "postgres"}
# A parameter of a database whose name has such a word, and whose value is no secret.
_NO_SECRETS = {"require_auth", "channel_binding"}
_PARAMETER = re.compile(r"[?&;#]([\w.-]+)=([^&;#]+)")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRETS = {
    *("pass", "password", "passwd", "passphrase", "pwd", "secret", "token", "sig", "signature", "sas"),
    *("key", "apikey", "accesskey", "credential", "credentials", "auth", "authorization", "code"),
}


def checked_location(text: str) -> str:
    """`text`, if it is a location without secrets.

    Raises:
        ValueError: it is empty or carries a secret; the message does not show it.
    """
    if not text.strip():
        raise ValueError("the path is empty")
    if "\0" in text:
        raise ValueError("the path holds a NUL byte")
    if any(_holds_a_secret(link) for link in text.split("::")):
        raise ValueError(
            "the URL holds a password or key, which would show in the UI and in logs; leave it out and "
            "give the credentials by the environment variables of the object store"
        )
    return text


def checked_database(text: str) -> str:
    """`text`, if it is the URL of a PostgreSQL database without secrets; it may name a user.

    Raises:
        ValueError: it is not, or carries a secret; the message does not show it.
    """
    url = _LINK.fullmatch(text.strip())
    if not url or url[1].lower() not in _DATABASES:
        raise ValueError("it is no URL of a PostgreSQL database")
    rest = url[2]
    hosts = re.split("[/?#]", rest)[0]
    user, at, servers = hosts.rpartition("@")
    ports = re.findall(r":([^:,\]]*)(?=,|$)", servers)
    # A password with a slash in it ends the hosts too early: what looks like a port is none then.
    has_password = ":" in user or (not at and "@" in rest and not all(port.isdecimal() for port in ports))
    # libpq decodes the names of parameters too. To it a ; or # is a part of the name or value before, but
    # people who write one mean a parameter.
    names = [unquote(parameter.partition("=")[0]) for parameter in re.split("[?&;#]", rest)[1:]]
    if has_password or any(_names_a_database_secret(name) for name in names):
        raise ValueError(
            "the URL holds a password or key, which would show in the UI and in logs; leave it out and give "
            "it by PGPASSWORD or a passfile (PGPASSFILE)"
        )
    return text.strip()


class DatabaseFeed(NamedTuple):
    """A feed that is read from a database.

    Attributes:
        url: of the database.
        table: which table or view, as its name or as schema.name; empty for a query.
        query: the file with the query; empty for a table.
    """

    url: str
    table: str
    query: str

    def __str__(self) -> str:
        return f"table {self.table}" if self.table else f"query {self.query}"


def database_feed(text: str) -> DatabaseFeed | None:
    """What a location such as postgresql://host/db?table=events names; None for files.

    Raises:
        ValueError: it names neither a table nor a query, or both, or carries a secret; that is not shown.
    """
    url = _LINK.fullmatch(text.strip())
    if not url or url[1].lower() not in _DATABASES:
        return None
    place, _, parameters = checked_database(text).partition("?")
    told: dict[str, list[str]] = {"table": [], "query": []}
    others: list[str] = []
    for parameter in filter(None, parameters.split("&")):
        name, _, value = parameter.partition("=")
        if name in told:
            told[name].append(unquote(value))
        else:
            others.append(parameter)
    named = [*told["table"], *told["query"]]
    if len(named) != 1 or not named[0]:
        raise ValueError(
            "the URL of a database needs one table or one query: postgresql://host:5432/db?table=events or "
            "postgresql://host:5432/db?query=path/to/query.sql"
        )
    return DatabaseFeed(
        place + ("?" + "&".join(others) if others else ""), "".join(told["table"]), "".join(told["query"])
    )


def checked_feed(text: str) -> str:
    """`text`, if it is a location of files, or of a table or query in a database, without secrets.

    Raises:
        ValueError: it is not; no message shows a secret.
    """
    return text.strip() if database_feed(text) else checked_location(text)


def checked_tracker(text: str) -> str:
    """`text`, if it is the address of an MLflow tracking server or a folder of runs, without secrets.

    Raises:
        ValueError: it is not, or carries a secret; the message does not show it.
    """
    text = text.strip()
    kind = re.match(r"(https?)://(?=[^/])|(file):(?=.)", text, re.IGNORECASE)
    if not kind:
        raise ValueError("it is no address of an MLflow tracking server")
    # A password with a slash or a question mark in it ends the host too early: what is left is no port.
    host, _, rest = text[kind.end() :].partition("/")
    port = host.partition("?")[0].rpartition(":")[2] if ":" in host and not host.endswith("]") else ""
    broken = kind[1] and (port and not port.isdecimal()) and "@" in rest + host
    if broken or "@" in (host if kind[1] else "") or _holds_a_secret(text):
        raise ValueError(
            "the URL holds a password or key, which would show in the UI and in logs; leave it out and give "
            "it by MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    return text


def _names_a_database_secret(parameter: str) -> bool:
    """Whether it is a password or a key; what sslkey and passfile name are files."""
    return parameter not in _NO_SECRETS and (_names_a_secret(parameter) or "password" in parameter.lower())


def _holds_a_secret(link: str) -> bool:
    """Of one link of a chain such as simplecache::s3://bucket/x."""
    url = _LINK.fullmatch(link)
    if not url:
        return False
    scheme, rest = url[1].lower(), url[2]
    before_path, slash, _ = rest.partition("/")
    user, at, _ = before_path.rpartition("@")
    if at and scheme not in _REPOSITORIES and (scheme not in _CONTAINERS or ":" in user):
        return True
    # A password with a slash in it: what looks like host:port is none, and there is an @ further on.
    _, colon, port = before_path.partition(":")
    if colon and not at and not port.isdecimal() and slash and "@" in rest:
        return True
    return any(_names_a_secret(name) for name, _ in _PARAMETER.findall(rest))


def _names_a_secret(parameter: str) -> bool:
    """Whether a word of the name says so: AWSSecretAccessKey and X-Amz-Signature do, keyword does not."""
    return not _SECRETS.isdisjoint(word.lower() for word in _WORD.findall(parameter))
