"""Make a file once, however many ask for it at the same time.

    python scripts/alone.py FOLDER FILE [MADE_FROM ...] -- COMMAND ...

Takes the lock of FOLDER, waits for it if another has it, and runs COMMAND unless FILE is there by then and
no older than what it is made from. FILE is touched after a command that succeeds. The lock is the kernel's,
on the folder itself: it ends with those who hold it, and leaves nothing behind. `flock` of the shell would
do, but macOS has none.
"""

import fcntl
import os
import subprocess
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run the command, if it is needed; its exit status."""
    split = arguments.index("--")
    folder, file, *made_from = map(Path, arguments[:split])
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"Another make sets {folder} up; waiting for it.", file=sys.stderr, flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    if file.exists() and all(file.stat().st_mtime >= each.stat().st_mtime for each in made_from):
        return 0
    # The command holds the lock too: it ends with the last of them, should this process be killed.
    status = subprocess.run(arguments[split + 1 :], check=False, pass_fds=[lock]).returncode
    if status == 0:
        file.touch()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
