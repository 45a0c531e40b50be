"""Processes that are killed, forked from the test's own: nothing has to be imported again."""

import os
import signal
import sys
import traceback
import warnings
from contextlib import contextmanager
from itertools import count

# As the interpreter reports them.
_CHANGES = {*("os.chmod", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink"), "shutil.rmtree"}
_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed(work):
    """Whether `work`, in a process of its own, was killed; False if it came to its end."""
    process = _fork(work)
    status = os.waitpid(process, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def killed_everywhere(work):
    """Yield after `work` was killed before its first change of the disk, before its second, to the end."""
    for fatal in count(1):

        def dying(fatal=fatal):
            changes = count(1)

            def hook(event, arguments):
                is_change = event in _CHANGES or (event == "open" and arguments[2] & _TO_WRITE)
                if is_change and next(changes) == fatal:
                    die()

            sys.addaudithook(hook)
            work()

        if not killed(dying):
            return
        yield fatal


@contextmanager
def alive_inside(manager):
    """A process that has entered `manager` and leaves it when the block ends; yields its id."""
    (inside, tell), (wait, end) = os.pipe(), os.pipe()

    def hold():
        os.close(end)
        with manager:
            os.write(tell, b"!")
            os.read(wait, 1)

    process = _fork(hold)
    os.close(wait)
    os.close(tell)
    try:
        assert os.read(inside, 1) == b"!"
        yield process
    finally:
        os.close(end)
        os.close(inside)
        os.waitpid(process, 0)


def _fork(work):
    with warnings.catch_warnings():
        # That Arrow's threads are not forked: the child does not use them.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process:
        return process
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
