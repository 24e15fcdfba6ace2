"""The training flow on each task runner: on its own cluster, and on one that is there already."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ops_server import free_port

from demo import render

pytestmark = [pytest.mark.live, pytest.mark.slow]
OURS = "ours-only-0123456789abcdef0123456789"  # the token of the Ray cluster


@pytest.fixture(scope="module", params=["processes", "dask", "ray"])
def scaled(request: pytest.FixtureRequest, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of each task runner, installed; `threads` is the default, which the other live tests run."""
    folder = tmp_path_factory.mktemp(request.param) / "my-flows"
    render(folder, "project_name=My Flows", f"task_runner={request.param}")
    subprocess.run(["make", "--silent", ".venv/.synced"], cwd=folder, env=env, check=True)
    return folder


@pytest.fixture(scope="module")
def apart() -> Iterator[dict[str, str]]:
    """The setting that keeps Ray's files, by which it finds clusters, away from those of others; sockets need a short path."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield {"RAY_TMPDIR": folder}


def train(project: Path, env: dict[str, str], **settings: str) -> str:
    """Run the training flow and return its log; fail unless it completes."""
    done = subprocess.run(
        [".venv/bin/python", "-m", "flows.ml_training"],
        cwd=project,
        env=env | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert "Best learning rate 0.5" in done.stdout, done.stdout
    return done.stdout


@contextmanager
def running(project: Path, ready: str, env: dict[str, str], *command: str) -> Iterator[None]:
    """Run a program of the project's environment until the block ends; enter when its output holds `ready`."""
    log = project / f"{command[0]}-{command[1]}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [project / ".venv/bin" / command[0], *command[1:]],
            env=env,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while ready not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):  # Ray takes its time, and nothing of it is needed any more
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, sign)
                process.wait(10)


@contextmanager
def cluster(project: Path, env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run a cluster of the kind that the project can use and give the settings that lead to it, if there is one."""
    port = free_port()
    here = f"127.0.0.1:{port}"
    if (project / ".venv/bin/dask").exists():
        with (
            running(project, "Scheduler at", env, "dask", "scheduler", "--host", here, "--no-dashboard"),
            running(project, "Registered to", env, "dask", "worker", f"tcp://{here}", "--no-dashboard"),
        ):
            yield {"DASK_SCHEDULER_ADDRESS": f"tcp://{here}"}
    elif (project / ".venv/bin/ray").exists():
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": OURS}
        place = ["--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
        quiet = ["--include-dashboard=false", "--disable-usage-stats"]
        with running(project, "Ray runtime started", env | token, "ray", "start", *place, *quiet):
            yield token | {"RAY_ADDRESS": here}
    else:
        yield {}


def test_training_completes(scaled: Path, api: Any, apart: dict[str, str]) -> None:
    env = api.env | apart
    train(scaled, env)
    with cluster(scaled, env) as settings:
        if settings:
            assert "Connecting to an existing" in train(scaled, env, **settings)
