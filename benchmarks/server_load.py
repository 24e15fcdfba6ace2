"""How many runs a minute a Prefect server takes: the requests of runs, without the runs, at a rising rate.

.venv/bin/python benchmarks/server_load.py

Three servers in turn: one process with SQLite, as `make dev` has it; PostgreSQL and Redis with one API process; the same
with two. For each rate: the time that requests take, and what the server's processes spent on a run. The second tells
more on a machine with other work.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
from first_run import ROOT, machine
from rich.console import Console
from rich.table import Table

from demo import without_prefect_settings

sys.path.append(str(ROOT / "tests/live"))
from ops_server import AUTH, Server
from stack import Stack, missing

RATES = (60, 120, 240, 480, 960)  # runs a minute
SLOW = 1.0  # seconds: a 95th percentile of more than this ends the series


@dataclass
class Target:
    """A server that runs, and the sessions of its processes by their part."""

    server: Server | Stack
    parts: dict[str, list[int]]


@contextmanager
def sqlite(folder: Path, env: dict[str, str]) -> Iterator[Target]:
    with Server(folder, env) as server:
        yield Target(server, {"API": [server.process.pid]})


@contextmanager
def postgresql(folder: Path, env: dict[str, str], apis: int) -> Iterator[Target]:
    with Stack(folder, env, apis) as stack:
        api = [process.pid for process in stack.apis]
        database, redis, services, proxy = (p.pid for p in stack.processes if p.pid not in api)
        yield Target(stack, {"API": api, "services": [services], "database": [database, redis, proxy]})


def spent(sessions: list[int]) -> float:
    """Return the processor seconds of all processes of some sessions, so far."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) in sessions:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Load:
    """Sends what the schedule, the worker and the engine send for a run with some steps and ten lines of log."""

    def __init__(self, client: httpx.AsyncClient, deployment: str) -> None:
        self.client, self.deployment = client, deployment
        self.took: list[float] = []
        self.failed = 0

    async def ask(self, path: str, body: object) -> httpx.Response:
        started = time.monotonic()
        answer = await self.client.post(path, json=body)
        self.took.append(time.monotonic() - started)
        self.failed += answer.is_server_error  # it is too busy
        assert not answer.is_client_error, answer.text  # the API is another one today
        return answer

    async def run(self) -> None:
        made = await self.ask(f"/deployments/{self.deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}})
        if not made.is_success:
            return
        id = made.json()["id"]
        for state in ("PENDING", "RUNNING"):
            await self.ask(f"/flow_runs/{id}/set_state", {"state": {"type": state}})
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = {"name": "bench", "level": 20, "message": "a line of log", "timestamp": now, "flow_run_id": id}
        await self.ask("/logs/", [line] * 10)
        resource = {"prefect.resource.id": f"bench.run.{id}"}
        steps = [{"event": "bench.step", "occurred": now, "resource": resource, "id": str(uuid4())} for _ in range(9)]
        await self.ask("/events", steps)
        await self.ask(f"/flow_runs/{id}/set_state", {"state": {"type": "COMPLETED"}})


async def at_rate(load: Load, rate: int, seconds: int) -> float:
    """Start runs at a rate for some seconds; return how many a minute came to their end."""
    started, tasks = time.monotonic(), []
    for number in range(rate * seconds // 60):
        await asyncio.sleep(max(0, started + number * 60 / rate - time.monotonic()))
        tasks.append(asyncio.create_task(load.run()))
    await asyncio.gather(*tasks)
    return len(tasks) / max(time.monotonic() - started, seconds) * 60


async def measure(name: str, target: Target, table: Table, rates: tuple[int, ...], seconds: int) -> None:
    flow = target.server("POST", "/flows/", {"name": "bench"})["id"]
    deployment = target.server("POST", "/deployments/", {"name": "bench", "flow_id": flow})["id"]
    limits = httpx.Limits(max_connections=100)
    auth = tuple(AUTH.split(":"))
    async with httpx.AsyncClient(base_url=target.server.url, auth=auth, timeout=120, limits=limits) as client:
        await Load(client, deployment).run()  # the first of each request is slow
        for rate in rates:
            load = Load(client, deployment)
            before = {part: spent(sessions) for part, sessions in target.parts.items()}
            kept = await at_rate(load, rate, seconds)
            runs = len(load.took) / 6
            cost = {part: (spent(sessions) - before[part]) / runs for part, sessions in target.parts.items()}
            slowest = statistics.quantiles(load.took, n=20)[-1]
            row = (
                name,
                str(rate),
                f"{kept:.0f}",
                f"{statistics.median(load.took) * 1000:.0f}",
                f"{slowest * 1000:.0f}",
                str(load.failed),
                ", ".join(f"{part} {each * 1000:.0f}" for part, each in cost.items()),
            )
            table.add_row(*row)
            print(*row, sep=" | ", flush=True)
            if slowest > SLOW or kept < 0.9 * rate:
                break


def main(rates: tuple[int, ...] = RATES, seconds: int = 20) -> None:
    if lacks := missing():
        raise SystemExit(f"It needs {lacks}")
    env = without_prefect_settings(dict(os.environ))
    columns = ["server", "runs/min", "kept", "median ms", "p95 ms", "failed", "processor ms per run"]
    table = Table(*columns, title=machine())
    servers = {
        "SQLite": sqlite,
        "PostgreSQL, 1 API process": lambda folder, env: postgresql(folder, env, 1),
        "PostgreSQL, 2 API processes": lambda folder, env: postgresql(folder, env, 2),
    }
    for name, start in servers.items():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, start(Path(folder), env) as target:
            asyncio.run(measure(name, target, table, rates, seconds))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
