"""Every kind of alert, on every channel, on a real server: once for the run that deserves it, and not for others.

The limits are scaled to seconds by settings; the automations are those of production.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from ops_server import AUTH, Server, run_ops
from receiver import Alert, Receiver

from demo import render

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
CHANNELS = list(yaml.safe_load((ROOT / "data/channels.yml").read_text("utf-8")))
KINDS = list(yaml.safe_load((ROOT / "data/alerts.yml").read_text("utf-8")))
SECONDS = 20  # of the limits; the server looks every 5 seconds
START = 60  # how long a busy machine may take to start a run
STORM = 20  # runs that fail at once
ZOMBIE = 75  # a heartbeat comes every 30 seconds, which is the least that Prefect does
LIMITS = {
    "ALERT_THROTTLE_MINUTES": "0",
    "SLA_MINUTES": str(SECONDS / 60),
    "LATE_MINUTES": str(START / 60),
    "OFFLINE_MINUTES": str(SECONDS / 60),
    "STUCK_MINUTES": str(ZOMBIE / 60),
}
# What else is declared for the tests. Of `after`, the trigger is the example in docs/alerts.md.
DEPLOYMENTS = """
  - {name: slow, entrypoint: flows.slow.slow, tags: ["fresh:100s"], work_pool: *work_pool}
  - {name: patient, entrypoint: flows.slow.slow, tags: ["sla:10m"], work_pool: *work_pool}
  - {name: frail, entrypoint: flows.slow.slow, tags: ["pause-after:3/1h"], work_pool: *work_pool}
  - name: after
    entrypoint: flows.slow.slow
    parameters: {seconds: 0}
    work_pool: *work_pool
    triggers:
      - match: {prefect.resource.id: "prefect.flow-run.*"}
        match_related: {prefect.resource.role: deployment, prefect.resource.name: etl-daily}
        expect: [prefect.flow-run.Completed]
"""
TITLES = {
    "failure": "A run failed",
    "success": "A run completed",
    "sla": "A run takes longer than",
    "late": "A run has been due for",
    "stuck": "A run has been Pending for",
    "worker-offline": "The work pool has had no worker for",
    "missing": "No run has completed for",
}


class Stage:
    """A server, a project with every kind of alert and every channel, its worker, and their receivers."""

    def __init__(self, folder: Path, server: Server, receiver: Receiver) -> None:
        self.folder, self.server, self.receiver = folder, server, receiver
        self.env = {name: value for name, value in server.env.items() if "RECEIVER" not in name} | {
            "PREFECT_API_URL": server.url,
            "PREFECT_API_AUTH_STRING": AUTH,
            "PREFECT_ENV": "prod",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "2",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            **receiver.settings(),
            **LIMITS,
        }
        self.ids: dict[str, str] = {}

    def ops(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        return run_ops(self.folder, self.env | env, *command)

    def start_worker(self) -> None:
        command = [self.folder / ".venv/bin/python", "-m", "ops", "worker"]
        with (self.server.home / "worker.log").open("ab") as log:
            self.worker = subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=log, stderr=log)

    def kill_worker(self) -> None:
        """As when a machine dies: the worker, and the runs that it started, without a word."""
        listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        parents = dict(tuple(map(int, line.split())) for line in listed.splitlines())
        family = [self.worker.pid]
        for pid in family:  # it grows
            family += [child for child, parent in parents.items() if parent == pid]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.worker.wait()

    def deployment(self, name: str) -> str:
        if name not in self.ids:
            self.ids[name] = self.server("GET", f"/deployments/name/{name}")["id"]
        return self.ids[name]

    def run(self, deployment: str, state: str = "SCHEDULED", **parameters: Any) -> dict[str, Any]:
        """Create a run; one that is not SCHEDULED is left alone by workers, and its states are set by `set_state`."""
        body = {"parameters": parameters, "state": {"type": state}}
        return self.server("POST", f"/deployments/{self.deployment(deployment)}/create_flow_run", body)

    def set_state(self, run: dict[str, Any], type: str, name: str | None = None) -> None:
        state = {"type": type, "name": name or type.capitalize(), "message": f"now {type}"}
        self.server("POST", f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})

    def state(self, run: dict[str, Any]) -> str:
        return self.server("GET", f"/flow_runs/{run['id']}")["state_name"]

    def wait(self, *runs: dict[str, Any], state: str, seconds: float = 240) -> None:
        for run in runs:
            eventually(lambda run=run: self.state(run) == state, seconds, f"{state} of {run['name']}")

    def beat(self, run: dict[str, Any], tag: str) -> None:
        """Send a heartbeat as the process of a run does."""
        related = [{"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}]
        event = {"event": "prefect.flow-run.heartbeat", "related": related, "id": run["id"], "occurred": now()}
        event |= {"resource": {"prefect.resource.id": f"prefect.flow-run.{run['id']}"}}
        self.server("POST", "/events", [event])


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def eventually(found: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        time.sleep(0.3)
    raise AssertionError(f"no {what} within {seconds:.0f} s")


@pytest.fixture(scope="module")
def stage(project: Path, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("alerts") / "my-flows"
    lists = f"alert_channels=[{', '.join(CHANNELS)}]", f"alert_on=[{', '.join(KINDS)}]"
    render(folder, "project_name=My Flows", "user_name=Orders Team", *lists)
    (folder / ".venv").symlink_to((project / ".venv").resolve())
    (folder / "flows/slow.py").write_text((project / "flows/slow.py").read_text())
    with (folder / "prefect.yaml").open("a") as file:
        file.write(DEPLOYMENTS)
    receiver = Receiver()
    receiver.start()
    clean = {name: value for name, value in env.items() if not name.startswith(("PREFECT_", "SLA_"))}
    server = Server(tmp_path_factory.mktemp("alerts-server"), clean, folder / ".venv/bin/python")
    server.env |= {
        "PYTHONPATH": str(Path(__file__).with_name("redirect")),
        "PREFECT_UI_URL": f"http://127.0.0.1:{server.port}",
        "TEST_RECEIVER": receiver.address,
        "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "2",
    }
    stage = Stage(folder, server, receiver)
    with server:
        applied = stage.ops("apply", "--yes")
        assert applied.returncode == 0, applied.stdout + applied.stderr
        stage.start_worker()
        yield stage
        stage.kill_worker()


@pytest.fixture(scope="module")
def theirs(stage: Stage) -> str:
    """A deployment of another project on the same server."""
    etl = stage.server("GET", "/deployments/name/etl/etl-daily")
    copied = ("flow_id", "entrypoint", "work_pool_name", "pull_steps", "parameter_openapi_schema")
    tags = ["project:beta", "sla:default", "fresh:100s", "pause-after:3/1h"]
    stage.server("POST", "/deployments/", {name: etl[name] for name in copied} | {"name": "theirs", "tags": tags})
    return "etl/theirs"


@pytest.fixture(scope="module")
def story(stage: Stage, theirs: str) -> dict[str, dict[str, Any]]:
    """Runs, one for each thing that can happen, ours and theirs; by the time it returns, every limit has passed."""
    pool = {"name": "beta", "type": "process", "base_job_template": {}}
    stage.server("POST", "/work_pools/", pool)
    heartbeat = {"name": "their worker", "heartbeat_interval_seconds": 1}
    stage.server("POST", "/work_pools/beta/workers/heartbeat", heartbeat)
    runs = {
        "failed": stage.run("etl/etl-daily", source="missing.csv", batch_size=7),
        "slow": stage.run("slow/slow", seconds=SECONDS * 2),
        "fast": stage.run("slow/slow", seconds=0),
        "patient": stage.run("slow/patient", state="RUNNING", seconds=1),
        "crashed": stage.run("slow/patient", state="RUNNING", seconds=1),
        "timed out": stage.run("slow/patient", state="RUNNING", seconds=1),
        "cancelled": stage.run("slow/patient", state="RUNNING", seconds=1),
        "pending": stage.run("slow/patient", state="PENDING", seconds=1),
        "zombie": stage.run("slow/patient", seconds=600),
    }
    others = {f"their {state}": stage.run(theirs, state=state) for state in ("RUNNING", "PENDING")}
    others |= {
        f"their {name}": stage.run(theirs, state="RUNNING") for name in ("failed", "completed", "late", "zombie")
    }
    stage.set_state(runs["crashed"], "CRASHED")
    stage.set_state(runs["timed out"], "FAILED", "TimedOut")
    stage.set_state(runs["cancelled"], "CANCELLED")
    stage.set_state(others["their failed"], "FAILED")
    stage.set_state(others["their completed"], "COMPLETED")
    stage.set_state(others["their late"], "SCHEDULED", "Late")
    stage.beat(others["their zombie"], "project:beta")
    stage.wait(runs["failed"], state="Failed")
    stage.wait(runs["slow"], runs["fast"], state="Completed")
    stage.wait(runs["zombie"], state="Running")
    time.sleep(2)  # its first heartbeat arrives
    stage.kill_worker()
    runs["late"] = stage.run("ml-training/ml-training")
    stage.wait(runs["zombie"], state="Crashed", seconds=ZOMBIE + 60)
    eventually(lambda: stage.receiver.about("slow/slow", TITLES["missing"]), 90, "missing alert")
    eventually(lambda: stage.receiver.about(runs["late"]["name"]), START, "late alert")
    time.sleep(8)  # time for a second one to come
    return runs | others


def kinds(alerts: list[Alert]) -> dict[str, list[str]]:
    """Return by title of the alert the channels that it came on, sorted."""
    found: dict[str, list[str]] = {}
    for alert in alerts:
        kind = next((kind for kind, title in TITLES.items() if alert.text.startswith(title)), alert.text)
        found.setdefault(kind, []).append(alert.channel)
    return {kind: sorted(channels) for kind, channels in found.items()}


EXPECTED = {
    "failed": {"failure"},
    "crashed": {"failure"},
    "timed out": {"failure"},
    "cancelled": set(),
    "slow": {"sla", "success"},
    "fast": {"success"},
    "patient": set(),
    "pending": {"stuck"},
    "zombie": {"failure"},
    "late": {"late"},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_alert_arrives_once_on_every_channel(stage: Stage, story: dict[str, dict[str, Any]], name: str) -> None:
    found = kinds([one for one in stage.receiver.about(story[name]["name"]) if TITLES["missing"] not in one.text])
    assert found == {kind: sorted(CHANNELS) for kind in EXPECTED[name]}


def test_a_zombie_is_marked_crashed_and_told_why(stage: Stage, story: dict[str, dict[str, Any]]) -> None:
    for alert in stage.receiver.about(story["zombie"]["name"]):
        assert "no heartbeat for 1.25 minutes" in alert.text


def test_a_pool_without_worker_is_told_once(stage: Stage, story: dict[str, dict[str, Any]]) -> None:
    assert kinds(stage.receiver.about("work pool my-flows")) == {"worker-offline": sorted(CHANNELS)}
    assert not stage.receiver.about("work pool beta")


def test_a_deployment_without_success_is_told_once(stage: Stage, story: dict[str, dict[str, Any]]) -> None:
    assert kinds(stage.receiver.about("", TITLES["missing"])) == {"missing": sorted(CHANNELS)}
    assert kinds(stage.receiver.about("slow/slow", TITLES["missing"])) == {"missing": sorted(CHANNELS)}


@pytest.mark.usefixtures("story")
def test_other_projects_alert_nobody_here(stage: Stage) -> None:
    assert not [alert.text for alert in stage.receiver.alerts if "theirs" in alert.text]


@pytest.mark.usefixtures("story")
def test_vendors_accept_all_messages(stage: Stage) -> None:
    assert stage.receiver.refused == []


def test_messages_look_alike(stage: Stage, story: dict[str, dict[str, Any]]) -> None:
    run = story["failed"]
    for alert in stage.receiver.about(run["name"], TITLES["failure"]):
        lines = [line.strip() for line in alert.text.splitlines() if line.strip()]
        assert lines[:2] == ["A run failed (my-flows)", f"etl/etl-daily, run {run['name']}"], alert
        assert lines[2].startswith("Failed: ")
        assert lines[3] == f"http://127.0.0.1:{stage.server.port}/runs/flow-run/{run['id']}"
        if alert.channel == "sms":
            assert len(lines) == 4
            continue
        assert lines[4] == "parameters: source, batch_size=7", "a number is shown, text is not"
        assert lines[5:7] == ["owner: Orders Team", "runbook: README.md#alert-failure"]
        assert lines[7].startswith("key: failure ")
        assert "missing.csv" not in "".join(lines[4:])


def test_levels_become_severity_and_priority(stage: Stage, story: dict[str, dict[str, Any]]) -> None:
    def of(channel: str, name: str, title: str) -> dict[str, Any]:
        return next(a.body for a in stage.receiver.about(story[name]["name"], TITLES[title]) if a.channel == channel)

    severity = [of("pagerduty", *one)["payload"]["severity"] for one in (("failed", "failure"), ("slow", "sla"))]
    assert [*severity, of("pagerduty", "fast", "success")["payload"]["severity"]] == ["critical", "warning", "info"]
    priority = [of("opsgenie", *one)["priority"] for one in (("failed", "failure"), ("slow", "sla"))]
    assert [*priority, of("opsgenie", "fast", "success")["priority"]] == ["P1", "P3", "P5"]


@pytest.mark.usefixtures("story")
def test_keys_differ(stage: Stage) -> None:
    keys = [alert.body["key"] for alert in stage.receiver.alerts if alert.channel == "webhook"]
    assert len(keys) == len(set(keys))


@pytest.mark.usefixtures("story")
def test_a_second_apply_writes_and_repeats_nothing(stage: Stage) -> None:
    before = len(stage.receiver.alerts)
    again = stage.ops("apply", "--yes")
    assert "0 written" in again.stdout, again.stdout + again.stderr
    assert len(stage.receiver.alerts) == before


@pytest.mark.usefixtures("story")
def test_a_deployment_that_keeps_failing_is_paused(stage: Stage, theirs: str) -> None:
    def paused(name: str) -> bool:
        return stage.server("GET", f"/deployments/{stage.deployment(name)}")["paused"]

    for deployment in ("slow/frail", theirs):
        for _ in range(3):
            assert not paused(deployment)
            stage.set_state(stage.run(deployment, state="RUNNING", seconds=1), "FAILED")
    eventually(lambda: paused("slow/frail"), 30, "paused deployment")
    assert not paused(theirs)
    assert not paused("slow/patient"), "it failed three times, too, and has no such tag"


@pytest.mark.usefixtures("story")
def test_a_deployment_runs_after_another(stage: Stage) -> None:
    def runs() -> list[Any]:
        return stage.server("POST", "/flow_runs/filter", {"deployments": {"name": {"any_": ["after"]}}})

    assert not runs(), "the first run of etl-daily failed"
    stage.set_state(stage.run("etl/etl-daily", state="RUNNING"), "COMPLETED")
    eventually(runs, 30, "run of slow/after")
    assert len(runs()) == 1


@pytest.mark.usefixtures("story")
@pytest.mark.parametrize("fault", [500, 12, "refused"])
def test_a_receiver_that_fails_blocks_nothing_and_loses_only_its_message(stage: Stage, fault: int | str) -> None:
    receiver, lost = stage.receiver, stage.run("slow/patient", state="RUNNING", seconds=1)
    failed = {"event": {"name": ["prefect.automation.action.failed"]}}

    def failures() -> int:
        return stage.server("POST", "/events/filter", {"filter": failed})["total"]

    before = failures()
    with receiver.failing(fault):
        stage.set_state(lost, "FAILED")
        assert stage.state(lost) == "Failed"
        # Mail has a receiver of its own; what a webhook answers is no failure to Prefect.
        silent = len(CHANNELS) - (2 if fault == 500 else 1)
        eventually(lambda: failures() >= before + silent and "/webhook" in receiver.lost, 120, "failed actions")
    found = stage.run("slow/patient", state="RUNNING", seconds=1)
    stage.set_state(found, "FAILED")
    eventually(lambda: len(receiver.about(found["name"])) == len(CHANNELS), 60, "next alert")
    assert [alert.channel for alert in receiver.about(lost["name"])] == ["email"]


def storm(api: Callable[..., Any], deployment: str) -> list[dict[str, Any]]:
    """Let runs of the deployment with this id fail, as fast as the API takes it, and return them."""

    def fail(_: int) -> dict[str, Any]:
        body = {"parameters": {"seconds": 1}, "state": {"type": "RUNNING"}}
        run = api("POST", f"/deployments/{deployment}/create_flow_run", body)
        api("POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": "FAILED"}, "force": True})
        return run

    with ThreadPoolExecutor(4) as pool:
        return [*pool.map(fail, range(STORM))]


def told(receiver: Receiver, runs: list[dict[str, Any]], channels: int) -> list[list[str]]:
    """Return the channels on which each run was told, sorted, when each could have been told twice."""
    wanted = len(runs) * channels
    eventually(lambda: sum(len(receiver.about(run["id"])) for run in runs) >= wanted, 120, "alerts of a storm")
    time.sleep(8)
    return [sorted(alert.channel for alert in receiver.about(run["id"])) for run in runs]


@pytest.mark.usefixtures("story")
def test_a_storm_of_failures_is_told_once_each(stage: Stage) -> None:
    runs = storm(stage.server, stage.deployment("slow/patient"))
    assert told(stage.receiver, runs, len(CHANNELS)) == [sorted(CHANNELS)] * STORM


@pytest.mark.usefixtures("story")
def test_failures_of_one_deployment_are_throttled(stage: Stage) -> None:
    applied = stage.ops("apply", "--yes", ALERT_THROTTLE_MINUTES="5")
    assert "1 written" in applied.stdout, applied.stdout + applied.stderr
    runs = [stage.run(name, state="RUNNING", seconds=1) for name in ("slow/patient", "slow/patient", "slow/slow")]
    for run in runs:
        stage.set_state(run, "FAILED")
    eventually(lambda: len(stage.receiver.about(runs[2]["name"])) == len(CHANNELS), 30, "alert")
    told = sorted(len(stage.receiver.about(run["name"])) for run in runs[:2])  # the server may see the second one first
    assert told == [0, len(CHANNELS)]
    assert "1 written" in stage.ops("apply", "--yes").stdout


@pytest.mark.usefixtures("story")
def test_alerts_test_tells_which_channels_accept(stage: Stage) -> None:
    before = len(stage.receiver.alerts)
    done = stage.ops("alerts", "test", "failure")
    # A run of an earlier test may be late just now, too.
    sent = [alert for alert in stage.receiver.alerts[before:] if TITLES["late"] not in alert.text]
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(alert.channel for alert in sent) == sorted(set(CHANNELS) - {"webhook"})
    assert done.stdout.count("accepted my-flows-") == len(sent)
    assert all("TEST of the alerts of my-flows" in alert.text for alert in sent)
    with stage.receiver.failing(500):
        done = stage.ops("alerts", "test", "slack-failure")
    assert done.returncode == 1
    assert "refused  my-flows-slack-failure: " in done.stdout
    assert "one of my-flows-discord-failure" in stage.ops("alerts", "test", "carrier-pigeon").stderr
    told = stage.ops("alerts", "simulate", "zombie").stderr.strip()  # which declares an automation, and is no alert
    assert told == f"no alert is called zombie: choose one of {', '.join(KINDS)}"


@pytest.mark.usefixtures("story")
def test_alerts_simulate_raises_each_kind(stage: Stage) -> None:
    before = len(stage.receiver.alerts)
    command = [stage.folder / ".venv/bin/python", "-m", "ops", "alerts", "simulate"]
    started = {
        kind: subprocess.Popen([*command, kind], cwd=stage.folder, env=stage.env, stdout=-1, stderr=-1, text=True)
        for kind in KINDS
    }
    for kind, process in started.items():
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, f"{kind}: {out}{err}"
        assert out.count("accepted") == len(CHANNELS)
    # A run of an earlier test may be late just now, too.
    sent = {kind: set(channels) for kind, channels in kinds(stage.receiver.alerts[before:]).items()}
    assert sent == {kind: set(CHANNELS) for kind in KINDS}
    left = stage.server("POST", "/automations/filter", {"limit": 200})
    assert not [one["name"] for one in left if "trial" in one["name"]]
    assert not stage.server("POST", "/deployments/filter", {"deployments": {"tags": {"all_": ["alert-simulation"]}}})
