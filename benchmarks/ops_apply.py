"""How fast `python -m ops apply` is, against `prefect deploy --all` of the same deployments.

Both on this machine, one after the other, each against its own fresh server (SQLite), with the same
Prefect: 200 scheduled deployments of 10 flows. `ops` makes the work pool, 50 limits, 50 variables and
50 automations as well; `prefect deploy` makes the deployments only, its pool is there.

    .venv/bin/python benchmarks/ops_apply.py
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from first_run import ROOT, background, httpx, machine, run, wait_until

from demo import render, without_prefect_settings

FLOWS, DEPLOYMENTS, OTHERS = 10, 200, 50
PORT = 4288
VERSIONS = yaml.safe_load((ROOT / "data/versions.yml").read_text())

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
AUTOMATIONS = """

def automations(settings: Settings, block_id: Callable[[str], UUID], objects: Objects) -> list[AutomationCore]:
    return [
        AutomationCore(
            name=f"{PROJECT}: {number}",
            trigger=on({f"bench.{number}"}),
            actions=[CallWebhook(block_document_id=block_id(f"{PROJECT}-webhook"), payload="{}")],
        )
        for number in range(%d)
    ]
"""


def make_project(folder: Path, env: dict[str, str]) -> None:
    render(folder, "project_name=bench")
    for number in range(FLOWS):
        (folder / f"flows/flow_{number}.py").write_text(FLOW.format(number=number))
    deployments = [
        {
            "name": f"deployment-{number}",
            "entrypoint": f"flows/flow_{number % FLOWS}.py:flow_{number % FLOWS}",
            "description": f"Deployment {number}",
            "parameters": {"region": f"region-{number}", "batch_size": number},
            "tags": ["bench"],
            "schedules": [{"slug": "daily", "cron": f"{number % 60} 2 * * *", "timezone": "UTC"}],
            "work_pool": {"name": "bench"},
        }
        for number in range(DEPLOYMENTS)
    ]
    (folder / "prefect.yaml").write_text(yaml.safe_dump({"name": "bench", "pull": [], "deployments": deployments}))
    with (folder / "ops/limits.py").open("a") as file:
        file.write(LIMITS % OTHERS)
    with (folder / "ops/variables.py").open("a") as file:
        file.write(VARIABLES % OTHERS)
    with (folder / "ops/automations.py").open("a") as file:
        file.write(AUTOMATIONS % OTHERS)
    run(["make", "--silent", ".venv/.synced"], folder, env)


@contextmanager
def fresh_server(project: Path, home: Path, env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Give the environment in which commands reach a server without data."""
    home.mkdir()
    url = f"http://127.0.0.1:{PORT}/api"
    env = env | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    command = [str(project / ".venv/bin/prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(PORT)]
    with background(command, home, env):
        wait_until(lambda: httpx.get(f"{url}/health").is_success)
        yield env | {"PREFECT_API_URL": url, "PREFECT_ENV": "prod", "ALERT_WEBHOOK_URL": "http://127.0.0.1:9/"}


def seconds(command: list[str], project: Path, env: dict[str, str]) -> float:
    started = time.monotonic()
    run(command, project, env)
    return time.monotonic() - started


def main() -> None:
    env = without_prefect_settings({k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"})
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "bench"
        make_project(project, env)
        python = str(project / ".venv/bin/python")
        prefect = str(project / ".venv/bin/prefect")
        apply, deploy = [python, "-m", "ops", "apply", "--yes"], [prefect, "--no-prompt", "deploy", "--all"]
        importing = [python, "-c", "from prefect import flow"]  # as each flow begins
        seconds(importing, project, env)  # compiles it
        with fresh_server(project, Path(folder) / "ops-home", env) as here:
            ours = [seconds(apply, project, here) for _ in range(3)]
            alone = seconds(importing, project, here)
            last = subprocess.run(apply, cwd=project, env=here, capture_output=True, text=True).stdout.splitlines()[-1]
        with fresh_server(project, Path(folder) / "deploy-home", env) as here:
            run([prefect, "work-pool", "create", "bench", "--type", "process"], project, here)
            theirs = [seconds(deploy, project, here) for _ in range(2)]
    unchanged = min(ours[1:])
    print(f"{machine()}, Prefect {VERSIONS['prefect']}, {DEPLOYMENTS} deployments of {FLOWS} flows; {last}")
    print("                    ops apply    deploy --all    ratio")
    print(f"  from empty        {ours[0]:7.1f} s    {theirs[0]:10.1f} s   {theirs[0] / ours[0]:6.1f}")
    print(f"  nothing changed   {unchanged:7.1f} s    {theirs[1]:10.1f} s   {theirs[1] / unchanged:6.1f}")
    print(f"  nothing changed, without the {alone:.1f} s of `from prefect import flow`: {unchanged - alone:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
