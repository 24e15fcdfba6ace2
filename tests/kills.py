"""Run a Python program and kill it, as `kill -9` does, at its n-th write to a folder or start of another program."""

import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = """
import atexit, os, runpy, signal, sys

at, folder, kind, name, *arguments = sys.argv[1:]
count = 0

def hook(event, args):
    global count
    opens = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    changes = event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir") and args[-1] == -1  # no path in another folder
    named = (opens or changes) and not isinstance(args[0], int)
    here = named and os.path.abspath(os.fspath(args[0])).startswith(folder)
    if event == "subprocess.Popen" or here:
        count += 1
        if count == int(at):
            os.kill(os.getpid(), 9)

sys.argv = [name, *arguments]
atexit.register(lambda: print(f"POINTS {count}", file=sys.stderr))
sys.addaudithook(hook)
runpy.run_module(name, run_name="__main__") if kind == "module" else runpy.run_path(name, run_name="__main__")
"""


def run(at: int, folder: Path, *program: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `program` (`module NAME ...` or `file NAME ...`) until it has done so many things; 0: to the end."""
    command = [sys.executable, "-c", PROGRAM, str(at), str(folder.resolve()), *program]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, **options)


def points(whole: subprocess.CompletedProcess[str], seed: int, number: int) -> Iterator[int]:
    """Yield random points at which to kill what was run as a whole, the first and the last among them."""
    found = re.search(r"POINTS (\d+)", whole.stderr)
    assert found, whole.stderr
    last = int(found[1])
    yield from sorted({1, last, *random.Random(seed).sample(range(1, last + 1), number)})


def is_killed(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == -signal.SIGKILL
