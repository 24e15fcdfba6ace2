"""A project, rendered and installed once, and its `make dev`."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ops_server import Server

from demo import Dev, render, without_prefect_settings

SLA_SECONDS = 12
# What starts the tests in the background has them ignore Ctrl-C, and so would everything that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

SLOW_FLOW = """\
import time

from prefect import flow


@flow
def slow(seconds: float) -> None:
    time.sleep(seconds)
"""

SLOW_DEPLOYMENT = """
  - name: slow
    entrypoint: flows.slow.slow
    work_pool: *work_pool
  - name: queued
    entrypoint: flows.slow.slow
    work_pool: *work_pool
    concurrency_limit:
      limit: 1
      collision_strategy: ENQUEUE
  - name: alone
    entrypoint: flows.slow.slow
    work_pool: *work_pool
    concurrency_limit:
      limit: 1
      collision_strategy: CANCEL_NEW
"""


class Api:
    """The Prefect API of a running `make dev`, as tests ask it."""

    def __init__(self, project: Path) -> None:
        self.env: dict[str, str] = json.loads((project / ".prefect/dev.json").read_text())["env"]
        self.client = httpx.Client(base_url=self.env["PREFECT_API_URL"], timeout=60)

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        for _ in range(20):  # 503: SQLite is busy with another write
            answer = self.client.request(method, self.env["PREFECT_API_URL"] + path, json=body)
            if answer.status_code != 503:
                break
            time.sleep(0.5)
        answer.raise_for_status()
        return answer.json() if answer.content else None


@pytest.fixture(scope="session")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose Prefect settings, in variables and in a profile, lead nowhere: nobody may follow them."""
    home = tmp_path_factory.mktemp("home")
    (home / ".prefect").mkdir()
    (home / ".prefect/profiles.toml").write_text(
        'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n'
    )
    cache = subprocess.run([".venv/bin/uv", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    return without_prefect_settings(dict(os.environ)) | {
        "HOME": str(home),
        "UV_CACHE_DIR": cache,
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
        "PREFECT_API_KEY": "pnu_not_mine",
        "PREFECT_WORKER_QUERY_SECONDS": "3600",
        "SLA_MINUTES": str(SLA_SECONDS / 60),
    }


@pytest.fixture(scope="module")
def server(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for the tests of one module."""
    with Server(tmp_path_factory.mktemp("server"), env) as server:
        yield server


@pytest.fixture(scope="session")
def project(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A default project with one flow more, whose runs take as long as the test says, and three deployments of it."""
    folder = tmp_path_factory.mktemp("live") / "my-flows"
    render(folder, "project_name=My Flows", "alert_channels=[webhook, slack]", "alert_on=[failure, success, sla]")
    (folder / "flows/slow.py").write_text(SLOW_FLOW)
    with (folder / "prefect.yaml").open("a") as file:
        file.write(SLOW_DEPLOYMENT)
    subprocess.run(["make", "--silent", ".venv/.synced"], cwd=folder, env=env, check=True)
    return folder


@pytest.fixture(scope="session")
def dev(project: Path, env: dict[str, str]) -> Iterator[Dev]:
    running = Dev(project, env, show=False)
    try:
        running.wait_for("^Ready", 240)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def api(project: Path, dev: Dev) -> Api:
    return Api(project)
