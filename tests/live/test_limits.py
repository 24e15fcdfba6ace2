"""Limits of every level hold under load, and one that is missing is an error."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

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


def most_at_once(runs: list[dict[str, Any]]) -> int:
    spans = [(run["start_time"], run["end_time"]) for run in runs if run["start_time"]]
    return max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)
