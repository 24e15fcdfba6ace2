"""How fast `python -m ops apply` is, against `prefect deploy --all` of the same deployments.

Both on this machine, one after the other, each against its own fresh server, with the same Prefect: 200 scheduled
deployments of 10 flows, 50 of them with a trigger, which is an automation. `ops` makes 50 limits, 50 variables and the
alerts as well. Three servers in turn: SQLite alone; SQLite in use, with a worker that looks for runs every 2 seconds;
PostgreSQL and Redis with two API processes, in use as well.

    .venv/bin/python benchmarks/ops_apply.py
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from first_run import ROOT, background, machine, run
from rich.console import Console
from rich.table import Table
from server_load import AUTH, Server, Stack, missing

from demo import render, without_prefect_settings

FLOWS, DEPLOYMENTS, OTHERS = 10, 200, 50
SETTLES = 20  # seconds, until the server has scheduled the runs of new deployments
VERSIONS = yaml.safe_load((ROOT / "data/versions.yml").read_text())
SERVERS = ("SQLite", "SQLite, a worker polls", "PostgreSQL, a worker polls")

FLOW = """\
from prefect import flow


@flow
def flow_{number}(region: str = "eu", batch_size: int = 10) -> None:
    pass
"""
LIMITS = """
GLOBAL_CONCURRENCY_LIMITS = [GlobalConcurrencyLimitCreate(name=f"limit-{number}", limit=2) for number in range(%d)]
"""
VARIABLES = """
VARIABLES = [VariableCreate(name=f"variable_{number}", value=number) for number in range(%d)]
"""
TRIGGER = {"match": {"prefect.resource.id": "bench.*"}, "expect": ["bench.arrived"]}


def make_project(folder: Path, env: dict[str, str]) -> None:
    render(folder, "project_name=bench")
    for number in range(FLOWS):
        (folder / f"flows/flow_{number}.py").write_text(FLOW.format(number=number))
    deployments = [
        {
            "name": f"deployment-{number}",
            "entrypoint": f"flows.flow_{number % FLOWS}.flow_{number % FLOWS}",
            "description": f"Deployment {number}",
            "parameters": {"region": f"region-{number}", "batch_size": number},
            "tags": ["bench"],
            "schedules": [{"slug": "daily", "cron": f"{number % 60} 2 * * *", "timezone": "UTC"}],
            "work_pool": {"name": "bench"},
            "triggers": [] if number % (DEPLOYMENTS // OTHERS) else [TRIGGER],
        }
        for number in range(DEPLOYMENTS)
    ]
    (folder / "prefect.yaml").write_text(yaml.safe_dump({"name": "bench", "pull": [], "deployments": deployments}))
    with (folder / "ops/limits.py").open("a") as file:
        file.write(LIMITS % OTHERS)
    with (folder / "ops/variables.py").open("a") as file:
        file.write(VARIABLES % OTHERS)
    run(["make", "--silent", ".venv/.synced"], folder, env)


@contextmanager
def fresh_server(name: str, folder: Path, env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Give the environment in which commands reach a server without data."""
    home = Path(tempfile.mkdtemp(dir=folder))
    with Stack(home, env) if name.startswith("PostgreSQL") else Server(home, env) as server:
        yield env | {
            "DO_NOT_TRACK": "1",
            "PREFECT_API_URL": server.url,
            "PREFECT_API_AUTH_STRING": AUTH,
            "PREFECT_ENV": "prod",
            "ALERT_WEBHOOK_URL": "http://127.0.0.1:9/",
        }


@contextmanager
def worker(name: str, project: Path, env: dict[str, str]) -> Iterator[None]:
    """Have a worker look for runs of the project's pool, where the server is one in use."""
    if "polls" not in name:
        yield
        return
    command = [str(project / ".venv/bin/prefect"), "worker", "start", "--pool", "bench", "--type", "process"]
    with background(command, project, env | {"PREFECT_WORKER_QUERY_SECONDS": "2"}):
        time.sleep(10)  # until it asks
        yield


def seconds(command: list[str], project: Path, env: dict[str, str]) -> float:
    started = time.monotonic()
    run(command, project, env)
    return time.monotonic() - started


def measure(name: str, project: Path, folder: Path, env: dict[str, str]) -> tuple[list[float], list[float]]:
    """Return the seconds of `ops apply` and of `prefect deploy --all`: from empty, and with nothing changed."""
    python, prefect = str(project / ".venv/bin/python"), str(project / ".venv/bin/prefect")
    apply, deploy = [python, "-m", "ops", "apply", "--yes"], [prefect, "--no-prompt", "deploy", "--all"]
    with fresh_server(name, folder, env) as here:
        run([*apply, "--only", "work pool"], project, here)
        with worker(name, project, here):
            ours = [seconds(apply, project, here)]
            time.sleep(SETTLES)
            ours += [seconds(apply, project, here) for _ in range(3)]
    with fresh_server(name, folder, env) as here:
        run([prefect, "work-pool", "create", "bench", "--type", "process"], project, here)
        with worker(name, project, here):
            theirs = [seconds(deploy, project, here)]
            time.sleep(SETTLES)
            theirs += [seconds(deploy, project, here)]
    return [ours[0], sorted(ours[1:])[1]], theirs


def main() -> None:
    env = without_prefect_settings({k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"})
    table = Table("server", "", "ops apply", "deploy --all", "ratio", title=machine())
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL's user goes through it
        project = Path(folder) / "bench"
        make_project(project, env | {"UV_COMPILE_BYTECODE": "1"})  # else whoever comes first compiles Prefect
        importing = [str(project / ".venv/bin/python"), "-c", "from prefect import flow"]  # as each flow begins
        alone = min(seconds(importing, project, env) for _ in range(3))
        for name in SERVERS:
            if name.startswith("PostgreSQL") and (lacks := missing()):
                print(f"{name} is left out: this machine lacks {lacks}")
                continue
            results = zip(("from empty", "nothing changed"), *measure(name, project, Path(folder), env), strict=True)
            for what, ours, theirs in results:
                row = (name, what, f"{ours:.1f} s", f"{theirs:.1f} s", f"{theirs / ours:.1f}")
                table.add_row(*row)
                print(*row, sep=" | ", flush=True)
    Console().print(table)
    print(f"Prefect {VERSIONS['prefect']}, {DEPLOYMENTS} deployments of {FLOWS} flows")
    print(f"`from prefect import flow`, with the start of Python: {alone:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
