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

FLOW_SHARE, OTHER_SHARE = 20, 4  # deployments for each flow; for each trigger, limit and variable
SETTLES = 0.1  # seconds for each new deployment, until the server has scheduled its runs
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


def make_project(folder: Path, env: dict[str, str], deployments: int) -> None:
    flows, others = deployments // FLOW_SHARE, deployments // OTHER_SHARE
    render(folder, "project_name=bench")
    for number in range(flows):
        (folder / f"flows/flow_{number}.py").write_text(FLOW.format(number=number))
    entries = [
        {
            "name": f"deployment-{number}",
            "entrypoint": f"flows.flow_{number % flows}.flow_{number % flows}",
            "description": f"Deployment {number}",
            "parameters": {"region": f"region-{number}", "batch_size": number},
            "tags": ["bench"],
            "schedules": [{"slug": "daily", "cron": f"{number % 60} 2 * * *", "timezone": "UTC"}],
            "work_pool": {"name": "bench"},
            "triggers": [] if number % OTHER_SHARE else [TRIGGER],
        }
        for number in range(deployments)
    ]
    (folder / "prefect.yaml").write_text(yaml.safe_dump({"name": "bench", "pull": [], "deployments": entries}))
    with (folder / "ops/limits.py").open("a") as file:
        file.write(LIMITS % others)
    with (folder / "ops/variables.py").open("a") as file:
        file.write(VARIABLES % others)
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


def seconds(command: list[str], project: Path, env: dict[str, str], told: dict[str, int] | None = None) -> float:
    """Return how long a command takes; what it prints has to hold each of `told` so many times."""
    started = time.monotonic()
    printed = run(command, project, env)
    took = time.monotonic() - started
    for words, times in (told or {}).items():
        assert printed.count(words) == times, printed
    return took


def measure(
    name: str, project: Path, folder: Path, env: dict[str, str], deployments: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of `ops apply` and of `prefect deploy --all`: from empty, and with nothing changed."""
    python, prefect = str(project / ".venv/bin/python"), str(project / ".venv/bin/prefect")
    apply, deploy = [python, "-m", "ops", "apply", "--yes"], [prefect, "--no-prompt", "deploy", "--all"]
    others = deployments // OTHER_SHARE
    new = {"deployment flow-": deployments} | dict.fromkeys(
        ("automation flow-", "limit limit-", "variable var"), others
    )
    with fresh_server(name, folder, env) as here:
        run([*apply, "--only", "work pool"], project, here)
        with worker(name, project, here):
            ours = [seconds(apply, project, here, new)]
            time.sleep(SETTLES * deployments)
            ours += [seconds(apply, project, here, {"\n0 written": 1}) for _ in range(3)]
    with fresh_server(name, folder, env) as here:
        run([prefect, "work-pool", "create", "bench", "--type", "process"], project, here)
        with worker(name, project, here):
            theirs = [seconds(deploy, project, here)]
            time.sleep(SETTLES * deployments)
            theirs += [seconds(deploy, project, here)]
    return [ours[0], sorted(ours[1:])[1]], theirs


def main(deployments: int = 200, servers: tuple[str, ...] = SERVERS) -> None:
    env = without_prefect_settings({k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"})
    table = Table("server", "", "ops apply", "deploy --all", "ratio", title=machine())
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL's user goes through it
        project = Path(folder) / "bench"
        make_project(
            project, env | {"UV_COMPILE_BYTECODE": "1"}, deployments
        )  # else whoever comes first compiles Prefect
        importing = [str(project / ".venv/bin/python"), "-c", "from prefect import flow"]  # as each flow begins
        alone = min(seconds(importing, project, env) for _ in range(3))
        for name in servers:
            if name.startswith("PostgreSQL") and (lacks := missing()):
                print(f"{name} is left out: this machine lacks {lacks}")
                continue
            results = measure(name, project, Path(folder), env, deployments)
            for what, ours, theirs in zip(("from empty", "nothing changed"), *results, strict=True):
                row = (name, what, f"{ours:.1f} s", f"{theirs:.1f} s", f"{theirs / ours:.1f}")
                table.add_row(*row)
                print(*row, sep=" | ", flush=True)
    Console().print(table)
    print(f"Prefect {VERSIONS['prefect']}, {deployments} deployments of {deployments // FLOW_SHARE} flows")
    print(f"`from prefect import flow`, with the start of Python: {alone:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
