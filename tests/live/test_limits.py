"""Limits of every level hold under load, and one that is missing is an error."""

import json
import subprocess
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from test_live import end_of, eventually, start_run

pytestmark = pytest.mark.live

# 50 runs at once, tasks with a tag, and a run that asks for a limit that is not there.
CROWD = """\
import asyncio
import json
import time
from collections import Counter

from prefect import flow, task
from prefect.concurrency.asyncio import concurrency, rate_limit

inside, most, started = Counter(), Counter(), []


async def work(kind):
    inside[kind] += 1
    most[kind] = max(most[kind], inside[kind])
    await asyncio.sleep(0.2)
    inside[kind] -= 1


@flow
async def crowded():
    async with concurrency("crowd", occupy=1, strict=True):
        await work("runs")


@task(tags=["ml-train"])
async def train():
    await work("tasks")


@flow
async def training():
    await asyncio.gather(*(train() for _ in range(24)))


@flow
async def paced():
    for _ in range(6):
        await rate_limit("pace", strict=True)
        started.append(time.monotonic())


@flow
async def lost():
    async with concurrency("nobody-made-this", strict=True):
        pass


async def main():
    ended = await asyncio.gather(*(crowded(return_state=True) for _ in range(50)))
    await training()
    await paced()
    gone = await lost(return_state=True)
    told = {"most": most, "completed": sum(state.is_completed() for state in ended)}
    print(json.dumps(told | {"seconds": started[-1] - started[0], "lost": gone.name, "why": gone.message}))


if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture(scope="module")
def crowd(project: Path, api: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    api("POST", "/v2/concurrency_limits/", {"name": "crowd", "limit": 5})
    # One slot, which is free again after two seconds.
    api("POST", "/v2/concurrency_limits/", {"name": "pace", "limit": 1, "slot_decay_per_second": 0.5})
    script = tmp_path_factory.mktemp("crowd") / "crowd.py"
    script.write_text(CROWD)
    done = subprocess.run(
        [project / ".venv/bin/python", script], env=api.env, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_fifty_runs_keep_a_limit_of_five(crowd: dict[str, Any]) -> None:
    assert crowd["completed"] == 50
    assert 1 < crowd["most"]["runs"] <= 5


def test_tasks_keep_the_limit_of_their_tag(crowd: dict[str, Any], api: Any) -> None:
    declared = api("GET", "/concurrency_limits/tag/ml-train")["concurrency_limit"]  # in ops/limits.py
    assert 1 < crowd["most"]["tasks"] <= declared < 24


def test_a_rate_limit_keeps_its_rate(crowd: dict[str, Any]) -> None:
    assert crowd["seconds"] >= 5 * 2 * 0.9  # six starts, five gaps


def test_a_missing_limit_fails_loudly(crowd: dict[str, Any]) -> None:
    assert crowd["lost"] == "Failed"
    assert "nobody-made-this" in crowd["why"]


@pytest.fixture(scope="module")
def held(api: Any) -> dict[str, list[dict[str, Any]]]:
    """Runs that the worker of `make dev` was given at once, more than the limits of deployments and pool let start."""
    pool = api("GET", "/work_pools/my-flows")
    asked = {name: [start_run(api, f"slow/{name}", seconds=4) for _ in range(2)] for name in ("alone", "queued")}
    try:
        told = eventually(lambda: waiting(api, asked["queued"]), 60, "run that waits for its deployment")
        api("PATCH", "/work_pools/my-flows", {"concurrency_limit": 2})  # meanwhile: it asks again after 30 seconds
        asked["slow"] = [start_run(api, "slow/slow", seconds=6) for _ in range(4)]
        for run in chain.from_iterable(asked.values()):
            end_of(api, run, 180)
    finally:
        api("PATCH", "/work_pools/my-flows", {"concurrency_limit": pool["concurrency_limit"]})
    ended = {name: [api("GET", f"/flow_runs/{run['id']}") for run in runs] for name, runs in asked.items()}
    return ended | {"waited": told}


def waiting(api: Any, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [api("GET", f"/flow_runs/{run['id']}") for run in runs]
    return [run for run in found if run["state_name"] == "AwaitingConcurrencySlot"]


def most_at_once(runs: list[dict[str, Any]]) -> int:
    spans = [(run["start_time"], run["end_time"]) for run in runs if run["start_time"]]
    return max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)


def test_a_worker_keeps_the_limit_of_its_pool(held: dict[str, list[dict[str, Any]]]) -> None:
    assert {run["state_name"] for run in held["slow"]} == {"Completed"}
    assert most_at_once(held["slow"]) == 2


def test_a_run_too_many_of_a_deployment_waits_its_turn(held: dict[str, list[dict[str, Any]]]) -> None:
    assert len(held["waited"]) == 1
    assert [run["state_name"] for run in held["queued"]] == ["Completed", "Completed"]
    assert most_at_once(held["queued"]) == 1


def test_a_run_too_many_of_a_deployment_is_cancelled_where_it_says_so(held: dict[str, list[dict[str, Any]]]) -> None:
    assert sorted(run["state_name"] for run in held["alone"]) == ["Cancelled", "Completed"]
    assert most_at_once(held["alone"]) == 1
