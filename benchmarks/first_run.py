"""How long from nothing to the first completed flow run: `copier copy` + `make dev`, against the same by hand.

Both ways in turn, on this machine, with a warm package cache and the same version of Prefect. By hand
means the commands of Prefect's own documentation, typed without a pause: install, `prefect init`, a
flow, a server, a work pool, a deployment, a worker, a run. It has no alerts, limits, tests or blocks.

    .venv/bin/python benchmarks/first_run.py [ROUNDS]
"""

import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from demo import Dev, render, without_prefect_settings  # noqa: E402

VERSIONS = yaml.safe_load((ROOT / "data/versions.yml").read_text())
FLOW = """\
from prefect import flow, task


@task
def double(number: int) -> int:
    return number * 2


@flow
def hello(numbers: list[int] = [1, 2, 3]) -> int:
    return sum(double(number) for number in numbers)
"""


class Clock:
    """Seconds since the start, and what each step took."""

    def __init__(self) -> None:
        self.started = self.last = time.monotonic()
        self.steps: dict[str, float] = {}

    def step(self, name: str) -> None:
        now = time.monotonic()
        self.steps[name], self.last = now - self.last, now

    @property
    def total(self) -> float:
        return self.last - self.started


def ours(folder: Path, env: dict[str, str]) -> Clock:
    clock = Clock()
    project = folder / "project"
    render(project, "project_name=bench")
    clock.step("copier copy")
    subprocess.run(["make", "--silent", ".venv/.synced"], cwd=project, env=env, check=True)
    clock.step("install")
    dev = Dev(project, env, show=False)
    try:
        dev.wait_for("^Server", 240)
        clock.step("server answers")
        dev.wait_for("^Ready", 240)
        clock.step("apply")
        ended = dev.wait_for(r"^First run +\w+$", 120)
        clock.step("run")
        assert "Completed" in ended, ended
    finally:
        dev.stop()
    return clock


def by_hand(folder: Path, env: dict[str, str]) -> Clock:
    clock = Clock()
    override = folder / "override.txt"
    override.write_text("certifi\n")
    home = {
        **env,
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    run(["uv", "venv", "--quiet"], folder, env)
    date = VERSIONS["tested_on"]
    packages = ["--override", str(override), "--exclude-newer", f"{date}T00:00:00Z", f"prefect=={VERSIONS['prefect']}"]
    run(["uv", "pip", "install", "--quiet", *packages], folder, env)
    clock.step("install")
    prefect = str(folder / ".venv/bin/prefect")
    run([prefect, "init", "--recipe", "local"], folder, home)
    (folder / "flow.py").write_text(FLOW)
    clock.step("prefect init")
    url = "http://127.0.0.1:4287/api"
    home["PREFECT_API_URL"] = url
    with background([prefect, "server", "start", "--host", "127.0.0.1", "--port", "4287"], folder, home):
        client = httpx.Client()  # to make one for each question takes a part of the processor that the server needs
        wait_until(lambda: client.get(f"{url}/health").is_success)
        clock.step("server answers")
        run([prefect, "work-pool", "create", "pool", "--type", "process"], folder, home)
        clock.step("work-pool create")
        run([prefect, "--no-prompt", "deploy", "flow.py:hello", "--name", "first", "--pool", "pool"], folder, home)
        clock.step("deploy")
        with background([prefect, "worker", "start", "--pool", "pool"], folder, home) as log:
            wait_until(lambda: "started" in log.read_text())
            clock.step("worker start")
            output = run([prefect, "deployment", "run", "hello/first", "--watch"], folder, home)
            clock.step("run")
            assert "'Completed'" in output, output
    return clock


def run(command: list[str], folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def background(command: list[str], folder: Path, env: dict[str, str]) -> Iterator[Path]:
    log = folder / f"{command[1]}.log"
    # What starts this in the background has it ignore Ctrl-C, and so would Prefect's worker: then nothing stops it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        yield log
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def wait_until(true: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    sys.exit("it took too long")


def machine() -> str:
    cpu = (
        re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else None
    )
    return f"{cpu[1] if cpu else platform.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def main(rounds: int = 3) -> None:
    env = without_prefect_settings({k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"})
    times: dict[str, list[Clock]] = {"ours": [], "by hand": []}
    for number in range(rounds + 1):  # the first round warms the caches and does not count
        for name, way in (("ours", ours), ("by hand", by_hand)):
            with tempfile.TemporaryDirectory() as folder:
                clock = way(Path(folder), env)
            steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in clock.steps.items())
            print(
                f"{'warm-up' if not number else f'round {number}'}  {name:8} {clock.total:5.1f} s  ({steps})",
                flush=True,
            )
            if number:
                times[name].append(clock)
    ratios = [a.total / b.total for a, b in zip(times["ours"], times["by hand"], strict=True)]
    print(f"\n{machine()}, Prefect {VERSIONS['prefect']}, {rounds} rounds, medians")
    for name, clocks in times.items():
        print(f"  {name:8} {statistics.median(clock.total for clock in clocks):5.1f} s")
    print(f"  ratio    {statistics.median(ratios):5.2f}  (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
