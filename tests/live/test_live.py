"""What `make dev` promises, asserted on the Prefect server's own API."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import SLA_SECONDS
from ops_server import run_ops

from demo import Dev

pytestmark = pytest.mark.live


def eventually(found: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return the first true answer of `found`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        time.sleep(0.5)
    pytest.fail(f"no {what} within {seconds:.0f} s")


def start_run(api: Any, deployment: str, **parameters: Any) -> dict[str, Any]:
    deployment_id = api("GET", f"/deployments/name/{deployment}")["id"]
    return api(
        "POST",
        f"/deployments/{deployment_id}/create_flow_run",
        {"parameters": parameters, "state": {"type": "SCHEDULED"}},
    )


def end_of(api: Any, run: dict[str, Any], seconds: float = 60) -> str:
    """Return the name of the state in which `run` ended."""

    def ended() -> Any:
        now = api("GET", f"/flow_runs/{run['id']}")
        return now if now["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    return eventually(ended, seconds, f"end of {run['name']}")["state_name"]


def alerts(dev: Dev, run: dict[str, Any], title: str) -> list[str]:
    return [line for line in dev.lines if line.startswith("ALERT") and run["name"] in line and title in line]


def test_runs_complete_and_leave_artifacts(api: Any, dev: Dev) -> None:
    runs = [start_run(api, "etl/etl-daily"), start_run(api, "ml-training/ml-training", epochs=20)]
    assert [end_of(api, run) for run in runs] == ["Completed", "Completed"]
    left = api("POST", "/artifacts/latest/filter", {})
    assert {one["key"]: one["type"] for one in left}.items() >= {
        "etl-summary": "markdown",
        "ml-training-candidates": "table",
        "ml-training-fit": "image",
        "ml-training-progress": "progress",
        "ml-training-run": "markdown",  # a link
    }.items()
    assert all(one["description"] for one in left)
    for run in runs:
        eventually(lambda run=run: alerts(dev, run, "A run completed"), 30, "success alert")
        assert not alerts(dev, run, "A run failed")


def test_make_logs_shows_the_log_of_a_run(api: Any, dev: Dev, project: Path, env: dict[str, str]) -> None:
    wanted = {
        "deployments": {"name": {"any_": ["etl-daily"]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
    }
    run = eventually(lambda: api("POST", "/flow_runs/filter", wanted), 120, "first run")[0]

    def logs(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "--silent", "logs", *arguments], cwd=project, env=env, capture_output=True, text=True
        )

    shown = eventually(
        lambda: (found := logs(f"RUN={run['id']}").stdout).count("Finished in state") and found, 60, "log"
    )
    assert "Loaded 6 orders, rejected 2" in shown
    assert "make logs RUN=ID" in logs().stderr


def test_a_cancelled_run_stops(api: Any, dev: Dev) -> None:
    run = start_run(api, "slow/slow", seconds=600)

    def now(state: str) -> Any:
        found = api("GET", f"/flow_runs/{run['id']}")
        return found if found["state_type"] == state and found["infrastructure_pid"] else None

    process = Path("/proc", eventually(lambda: now("RUNNING"), 60, "running run")["infrastructure_pid"])
    assert process.exists()
    api("POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
    eventually(lambda: now("CANCELLED"), 60, "cancelled run")
    assert not process.exists()


def test_each_failure_is_told_once_on_every_channel(api: Any, dev: Dev) -> None:
    failed = start_run(api, "etl/etl-daily", source="missing.csv")
    assert end_of(api, failed) == "Failed"
    crashed = start_run(api, "slow/slow", seconds=0)
    api(
        "POST",
        f"/flow_runs/{crashed['id']}/set_state",
        {"state": {"type": "CRASHED", "name": "Crashed"}, "force": True},
    )
    timed_out = start_run(api, "slow/slow", seconds=0)
    api(
        "POST",
        f"/flow_runs/{timed_out['id']}/set_state",
        {"state": {"type": "FAILED", "name": "TimedOut"}, "force": True},
    )
    for run in (failed, crashed, timed_out):
        eventually(lambda run=run: len(alerts(dev, run, "A run failed")) >= 2, 30, "failure alert")
    time.sleep(10)  # time for a second one to come
    for run in (failed, crashed, timed_out):
        channels = sorted(line.split()[1] for line in alerts(dev, run, "A run failed"))
        assert channels == ["(slack)", "(webhook)"]
        assert not alerts(dev, run, "A run completed")


def test_sla_alert_for_the_slow_run_only(api: Any, dev: Dev) -> None:
    slow = start_run(api, "slow/slow", seconds=SLA_SECONDS * 2.5)
    fast = start_run(api, "slow/slow", seconds=0)
    assert end_of(api, slow, 120) == "Completed"
    assert end_of(api, fast) == "Completed"
    time.sleep(SLA_SECONDS + 5)
    assert len(alerts(dev, slow, "longer than")) == 2  # one on each channel
    assert not alerts(dev, fast, "longer than")


def test_other_projects_alert_nobody_here(api: Any, dev: Dev) -> None:
    etl = api("GET", "/deployments/name/etl/etl-daily")
    copied = ("flow_id", "entrypoint", "work_pool_name", "pull_steps", "parameter_openapi_schema")
    api("POST", "/deployments/", {name: etl[name] for name in copied} | {"name": "theirs", "tags": ["project:beta"]})
    run = start_run(api, "etl/theirs", source="missing.csv")
    assert end_of(api, run) == "Failed"
    time.sleep(10)
    assert not [line for line in dev.lines if line.startswith("ALERT") and run["name"] in line]


def test_an_active_schedule_makes_runs(api: Any) -> None:
    deployment = api("GET", "/deployments/name/etl/etl-daily")
    schedule = deployment["schedules"][0]
    assert schedule["active"] is False, "a laptop runs nothing by itself"
    path = f"/deployments/{deployment['id']}/schedules/{schedule['id']}"
    api("PATCH", path, {"active": True})
    wanted = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    eventually(lambda: api("POST", "/flow_runs/filter", wanted), 120, "scheduled run")
    api("PATCH", path, {"active": False})


def test_plan_after_apply_is_empty(api: Any, project: Path) -> None:
    plan = run_ops(project, api.env, "plan")
    assert plan.returncode == 0, plan.stdout + plan.stderr
    assert "0 to create, 0 to update" in plan.stdout
    again = run_ops(project, api.env, "apply", "--yes")
    assert "0 written" in again.stdout, again.stdout + again.stderr


def test_nothing_of_the_callers_prefect_is_used(project: Path, env: dict[str, str], api: Any) -> None:
    assert api.env["PREFECT_API_URL"].startswith("http://127.0.0.1:")
    assert "PREFECT_API_KEY" not in api.env
    home = Path(env["HOME"])
    assert [
        path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file() and "prefect" in str(path)
    ] == [".prefect/profiles.toml"]


def test_alerts_are_tried_on_the_server_of_dev(project: Path, env: dict[str, str], dev: Dev) -> None:
    tried = run_ops(project, env | {"PREFECT_PROFILE": "mine"}, "alerts", "test", "--local")
    assert (tried.returncode, tried.stderr, tried.stdout.count("accepted my-flows-")) == (0, "", 4)
    dev.wait_for("ALERT.*TEST of the alerts of my-flows", 10)


def test_the_ui_asks_the_address_of_its_own_page(api: Any) -> None:
    root = api.env["PREFECT_API_URL"].removesuffix("/api")
    assert httpx.get(f"{root}/ui-settings").json()["api_url"] == "/api"  # a forwarded port has another address


def test_a_second_dev_is_refused(project: Path, env: dict[str, str], dev: Dev) -> None:
    second = run_ops(project, env, "dev")
    assert second.returncode == 1
    assert "runs already in this project" in second.stderr
