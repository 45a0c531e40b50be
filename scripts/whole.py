"""Run a command whose processes end together, however it is ended.

    python scripts/whole.py COMMAND ...

`dagster dev` is a server, a daemon, two code servers and the runs that they start, some of which live on
when their parent is killed. Here the command has a process group of its own and a guardian in a session of
its own. The guardian waits for the end of the command or of this process: Ctrl-C, SIGTERM, a closed
terminal, even SIGKILL. Then it asks the whole group to end (SIGTERM), and kills what is left after 20
seconds.
"""

import os
import select
import signal
import subprocess
import sys
import time

_GRACE_SECONDS = 20.0
_GUARD = "--guard"


def run(command: list[str]) -> int:
    """Have the command guarded until it ends or this process is asked to; its exit status."""
    # The guardian reads its standard input, which ends when this process does.
    guardian = subprocess.Popen(
        [sys.executable, __file__, _GUARD, *command], stdin=subprocess.PIPE, start_new_session=True
    )
    assert guardian.stdin
    lifeline = guardian.stdin.fileno()
    asked = False

    def end(*_: object) -> None:
        nonlocal asked
        if not asked:
            asked = True
            os.close(lifeline)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    status = guardian.wait()
    return 0 if asked else status


def guard(command: list[str]) -> int:
    """Run the command until it or the standard input ends, then end its whole group."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_mortal)
    while process.poll() is None:
        ended, _, _ = select.select([0], [], [], 0.5)
        if ended and not os.read(0, 1):
            break
    _signal_group(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    while _signal_group(process.pid, 0):
        process.poll()
        if time.monotonic() > deadline:
            _signal_group(process.pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    return process.wait()


def _mortal() -> None:
    # What the guardian ignores, the command would ignore too.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _signal_group(group: int, number: int) -> bool:
    """Send the signal; whether anybody is left in the group."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of one that has ended
        return False
    return True


if __name__ == "__main__":
    if sys.argv[1:2] == [_GUARD]:
        sys.exit(guard(sys.argv[2:]))
    sys.exit(run(sys.argv[1:]))
