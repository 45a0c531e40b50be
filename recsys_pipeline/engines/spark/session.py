"""The connection to the cluster, and what its errors mean.

Nothing here is loaded, and no JVM starts, before something is to be computed.
"""

import os
import re
import shutil
import socket
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from recsys_pipeline.core.errors import InputError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_LEAST_JAVA = 17
_SECONDS_TO_REACH = 10.0
# What we rely on; the configuration of the deployment wins over the second part.
_FIXED = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # What is broadcast goes through the driver, which holds no users and no items.
    "spark.sql.autoBroadcastJoinThreshold": "-1",
    "spark.sql.adaptive.autoBroadcastJoinThreshold": "-1",
}
_DEFAULTS = {
    # It would listen on all interfaces.
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
}
_OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|Java heap space|GC overhead limit|MemoryError|\bexit(?:ed with)? code:? ?(?:52|137)\b"
    r"|Command exited with code (?:52|137|9)\b|Container killed by YARN for exceeding|OOMKilled"
)
_OTHER_VERSION = re.compile(r"InvalidClassException|local class incompatible|PYTHON_VERSION_MISMATCH")


def require_package() -> None:
    """Refuse to begin without the package.

    Raises:
        InputError: it is not installed.
    """
    if find_spec("pyspark") is None:
        raise InputError(
            "RECSYS_ENGINE=spark needs the package pyspark, which is not installed: "
            ".venv/bin/pip install -e '.[spark]'."
        )


@cache
def connected(url: str, conf: str) -> "SparkSession":
    """The session of this process.

    Args:
        url: of a master, `spark://host:7077`, or of a Connect server, `sc://host:15002`.
        conf: `name=value` pairs, separated by semicolons.

    Raises:
        InputError: Java is missing or too old, the cluster does not answer, or is of another
            version.
    """
    # Said at many a step; what is used of pandas is a conversion of Arrow's.
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
    import pyspark
    from pyspark.sql import SparkSession

    _require_reachable(url)
    wanted = {**_DEFAULTS, **configured(conf), **_FIXED}
    try:
        if url.startswith("sc://"):
            session: SparkSession = SparkSession.builder.remote(url).getOrCreate()
            for name, value in wanted.items():
                if name.startswith("spark.sql."):
                    session.conf.set(name, value)
        else:
            _require_java()
            builder = SparkSession.builder.master(url).appName("recsys_pipeline")
            session = builder.config(map=wanted).getOrCreate()
        _require_same_version(session.version, pyspark.__version__)
    except InputError:
        raise
    except Exception as error:
        raise meant_by(error) or InputError(
            f"RECSYS_SPARK={url}: no session begins: {_short(error)}"
        ) from error
    return session


def configured(conf: str) -> Mapping[str, str]:
    """What RECSYS_SPARK_CONF says, by name.

    Raises:
        InputError: it cannot be read, or carries a secret.
    """
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in conf.split(";"))):
        name, equals, value = (side.strip() for side in part.partition("="))
        if not equals or not name.startswith("spark."):
            raise InputError(
                f"RECSYS_SPARK_CONF: {name!r} is no setting of Spark; write it as "
                "spark.executor.memory=4g;spark.executor.cores=2."
            )
        if re.search(r"secret|password|token|access\.key|credential", name, re.IGNORECASE):
            raise InputError(
                f"RECSYS_SPARK_CONF: {name} is a secret, which does not belong here: give it to the cluster "
                "itself, in its spark-defaults.conf or by the role that it runs as."
            )
        found[name] = value
    return found


def _require_reachable(url: str) -> None:
    """Ask before Spark does, which would try for a minute."""
    if not url.startswith(("spark://", "sc://")):
        return  # local, YARN, Kubernetes: there is no one address
    hosts = urlsplit(url).netloc.split(",")
    failures = []
    for each in hosts:
        host, _, port = each.partition(":")
        try:
            number = int(port or ("15002" if url.startswith("sc://") else "7077"))
            socket.create_connection((host, number), _SECONDS_TO_REACH).close()
        except (OSError, ValueError) as error:
            failures.append(f"{each}: {error}")
        else:
            return
    raise InputError(
        f"RECSYS_SPARK={url}: nobody answers there ({'; '.join(failures)}). Start the cluster, or correct "
        "the address: spark://host:7077 is that of a master, sc://host:15002 that of a Connect server."
    )


def _require_java() -> None:
    home = os.environ.get("JAVA_HOME", "")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    mend = (
        f"Install Java {_LEAST_JAVA} or later and let JAVA_HOME name its folder, or connect to a Connect "
        "server (RECSYS_SPARK=sc://host:15002), for which no Java is needed here."
    )
    if java is None or not Path(java).exists():
        raise InputError(f"RECSYS_SPARK names a master, and there is no Java here ({java or 'PATH'}). {mend}")
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)  # noqa: S603
    found = re.search(r'version "(\d+)', done.stderr + done.stdout)
    if found is None or int(found[1]) < _LEAST_JAVA:
        is_what = f"is Java {found[1]}" if found else "is no Java that runs"
        raise InputError(f"{java} {is_what}, and Spark needs Java {_LEAST_JAVA} or later. {mend}")


def _require_same_version(cluster: str, client: str) -> None:
    if cluster.split(".")[:2] != client.split(".")[:2]:
        raise InputError(
            f"the cluster runs Spark {cluster} and the package pyspark here is {client}: install the one "
            f"that matches, .venv/bin/pip install 'pyspark=={cluster}'."
        )


@contextmanager
def told() -> Iterator[None]:
    """Say in a sentence what an error of Spark means."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if meant := meant_by(error):
            raise meant from error
        raise


def meant_by(error: Exception) -> Exception | None:
    """What an error of Spark means; None where it is not one of those known."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError):
        return None
    if found := re.search(r"recsys_pipeline\.core\.errors\.InputError: (.+)", text):
        return InputError(found[1])
    if _OUT_OF_MEMORY.search(text):
        return InputError(
            "a worker of Spark ran out of memory, and did so again when the work was repeated. Give it more "
            "by RECSYS_SPARK_CONF (spark.executor.memory=8g for the JVM, spark.executor.memoryOverhead=4g "
            "for Python beside it), or smaller pieces (spark.sql.shuffle.partitions=400)."
        )
    if _OTHER_VERSION.search(text):
        return InputError(
            f"the cluster and the packages here do not match ({_short(error)}): the same version of Spark, "
            "and the same minor version of Python on client and workers, are needed."
        )
    if found := re.search(r"No module named '([\w.]+)'", text):
        return InputError(
            f"the workers of the cluster lack the Python package {found[1]}: they need what "
            "`pip install recsys_pipeline` installs (PYSPARK_PYTHON, or spark.archives)."
        )
    if re.search(r"All masters are unresponsive|Connection refused|UNAVAILABLE|StatusCode.UNKNOWN", text):
        return OSError(f"the connection to Spark is lost: {_short(error)}")
    return None


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
