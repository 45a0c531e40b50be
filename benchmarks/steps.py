"""Where the time of `make materialize` goes: wall and CPU seconds from the command to the summary.

    python -m benchmarks.steps [--config FILE] [--repeats N]

Runs the commands that `make` would run, in an empty DAGSTER_HOME and an empty warehouse, on the feed that the
environment names (the sample, where it names none). The environment is installed already. Dagster hands every
event of the run to a log handler of this module, which notes the time and the CPU seconds of the process and
its ended children, so that worker processes count. What happens before the first event is told apart by
processes that do a part of it. Prints medians.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any, NamedTuple

_VENV = Path(sys.executable).parents[1]
_PROJECT = Path(__file__).resolve().parents[1]
_ONCE = "set-up of the Dagster instance (once)"
# What the command has loaded before it touches the instance, each with what came before. These processes end
# without tearing the interpreter down, which the run does once, at its end.
_STARTS = {
    "interpreter": "import os",
    "import of Dagster": "import os, dagster._cli",
    "import of the definitions": "import os, dagster._cli, recsys_pipeline.definitions",
}


class Cost(NamedTuple):
    """Seconds, at a moment or between two."""

    wall: float
    cpu: float

    def since(self, earlier: "Cost") -> "Cost":
        """From an earlier moment to this one."""
        return Cost(self.wall - earlier.wall, self.cpu - earlier.cpu)

    def plus(self, other: "Cost") -> "Cost":
        """Both together."""
        return Cost(self.wall + other.wall, self.cpu + other.cpu)


Rows = dict[str, Cost]


def _cpu(*whose: int) -> float:
    return sum(usage.ru_utime + usage.ru_stime for usage in map(getrusage, whose))


class EventTimes(logging.Handler):
    """Notes when each event of a run comes, in the process of the run."""

    def __init__(self, path: str) -> None:
        """`path` of the file to which a line is added for each event."""
        super().__init__()
        self._path = Path(path)

    def emit(self, record: logging.LogRecord) -> None:
        """Write down time and CPU seconds, if the record is an event and no message."""
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        if event := meta.get("dagster_event"):
            line = [event.event_type_value, event.step_key, time.time(), _cpu(RUSAGE_SELF, RUSAGE_CHILDREN)]
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def commands(home: Path, config: str | None) -> list[str]:
    """The lines that `make materialize` would run on an environment that is installed."""
    line = ["make", "--dry-run", "--no-print-directory", "materialize", f"VENV={_VENV}"]
    line += [f"DAGSTER_HOME={home}", "-o", f"{_VENV}/.installed"]
    line += [f"CONFIG={config}"] if config else []
    shown = subprocess.run(line, cwd=_PROJECT, check=True, capture_output=True, text=True).stdout
    return shown.replace("\\\n", " ").splitlines()


def cost_of(line: str, environment: Mapping[str, str], log: Path) -> Cost:
    """What a line of the shell costs, its child processes included."""
    begin = Cost(time.time(), _cpu(RUSAGE_CHILDREN))
    with log.open("ab") as out:
        done = subprocess.run(
            ["/bin/bash", "-c", line], cwd=_PROJECT, env=environment, stdout=out, stderr=out, check=False
        )
    if done.returncode:
        raise RuntimeError(f"{line}\n{log.read_text()}")
    return Cost(time.time(), _cpu(RUSAGE_CHILDREN)).since(begin)


def with_event_times(instance: Path, path: Path) -> None:
    """Let the instance hand its events to `EventTimes`."""
    import yaml  # not in the process that is measured

    settings = yaml.safe_load(instance.read_text())
    handler = {"class": "benchmarks.steps.EventTimes", "level": "DEBUG", "path": str(path)}
    settings["python_logs"]["dagster_handler_config"] = {"handlers": {"event_times": handler}}
    instance.write_text(yaml.safe_dump(settings))


def rows_of_run(path: Path, whole: Cost, end: float, before: Rows) -> Rows:
    """The steps of a run, from its events, in their order.

    Args:
        path: of the file of `EventTimes`.
        whole: what the command costs.
        end: when it ended.
        before: what of it comes first, by name, from other commands.
    """
    events = [json.loads(line) for line in path.read_text().splitlines()]
    moments = [(kind, step, Cost(wall - (end - whole.wall), cpu)) for kind, step, wall, cpu in events]
    rows = dict(before)
    spent = Cost(sum(cost.wall for cost in rows.values()), sum(cost.cpu for cost in rows.values()))
    (begin,) = [at for kind, _, at in moments if kind == "PIPELINE_START"]
    rows["instance, plan of the run"] = begin.since(spent)
    started = {step: at for kind, step, at in moments if kind == "STEP_START"}
    ended = {step: at for kind, step, at in moments if kind == "STEP_SUCCESS"}
    in_steps, tables = Cost(0.0, 0.0), Cost(0.0, 0.0)
    for step, at in sorted(started.items(), key=lambda item: item[1]):
        of_step = [(kind, moment) for kind, name, moment in moments if name == step]
        inputs = [moment for kind, moment in of_step if kind == "LOADED_INPUT"]
        handled = [moment for kind, moment in of_step if kind == "HANDLED_OUTPUT"]
        outputs = [moment for kind, moment in of_step if kind == "STEP_OUTPUT"]
        # `release` is an asset that reports a check.
        kinds = {kind for kind, _ in of_step}
        is_check = "ASSET_CHECK_EVALUATION" in kinds and "ASSET_MATERIALIZATION" not in kinds
        reading = inputs[-1].since(at) if inputs else Cost(0.0, 0.0)
        writing = handled[-1].since(outputs[-1]) if handled and outputs else Cost(0.0, 0.0)
        cost = ended[step].since(at)
        in_steps, tables = in_steps.plus(cost), tables.plus(reading).plus(writing)
        rows[f"check {step}" if is_check else f"asset `{step}`"] = cost.since(reading).since(writing)
    rows["reading and writing the tables between the assets"] = tables
    last = max(ended.values())
    rows["between the steps"] = last.since(begin).since(in_steps)
    (end_of_run,) = [at for kind, _, at in moments if kind == "PIPELINE_SUCCESS"]
    rows["end of the run"] = end_of_run.since(last)
    rows["end of the process"] = whole.since(end_of_run)
    return rows


def measured(config: str | None) -> Rows:
    """What each step costs, once."""
    with tempfile.TemporaryDirectory() as folder:
        home, log, path = Path(folder, "home"), Path(folder, "log"), Path(folder, "events")
        environment = {
            **os.environ,
            "DAGSTER_HOME": str(home),
            "RECSYS_WAREHOUSE": str(Path(folder, "warehouse")),
            "PYTHONPATH": os.pathsep.join([str(_PROJECT), os.environ.get("PYTHONPATH", "")]),
        }
        rows = {_ONCE: Cost(0.0, 0.0)}
        for line in commands(home, config):
            if "asset materialize" in line:
                with_event_times(home / "dagster.yaml", path)
                before, earlier = {}, Cost(0.0, 0.0)
                for name, code in _STARTS.items():
                    start = cost_of(f"{sys.executable} -c '{code}; os._exit(0)'", environment, log)
                    before[name], earlier = start.since(earlier), start
                whole = cost_of(line, environment, log)
                rows |= rows_of_run(path, whole, time.time(), before)
            elif "-m recsys_pipeline" in line:
                rows["summary (python -m recsys_pipeline)"] = cost_of(line, environment, log)
            else:
                rows[_ONCE] = rows[_ONCE].plus(cost_of(line, environment, log))
    rows["all"] = Cost(sum(row.wall for row in rows.values()), sum(row.cpu for row in rows.values()))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", help="file of run configuration, as make's CONFIG")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    runs = []
    for number in range(arguments.repeats):
        runs.append(measured(arguments.config))
        print(
            f"repeat {number + 1}: {runs[-1]['all'].wall:.1f} s wall, {runs[-1]['all'].cpu:.1f} s CPU",
            flush=True,
        )
    print("\n| step | wall s | CPU s |\n|---|---|---|")
    for name in runs[0]:
        wall = statistics.median(run[name].wall for run in runs)
        cpu = statistics.median(run[name].cpu for run in runs)
        print(f"| {name} | {wall:.2f} | {cpu:.2f} |")


if __name__ == "__main__":
    main()
