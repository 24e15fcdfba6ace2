"""The self-hosted server at work: an API process and the worker are killed under load, and no run is lost."""

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ops_server import SETTINGS, run_ops
from receiver import Receiver
from stack import Stack, kill, missing
from test_alerts import STORM, storm, told
from test_limits import most_at_once
from test_live import eventually, start_run

pytestmark = [
    pytest.mark.live,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}"),
]
RUNS, AT_ONCE = 12, 4
PATIENCE = 90  # seconds, in which a process starts also on a machine with other work
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@pytest.fixture(scope="module")
def receiver() -> Receiver:
    receiver = Receiver()
    receiver.start()
    return receiver


@pytest.fixture(scope="module")
def stack(env: dict[str, str], receiver: Receiver) -> Iterator[Stack]:
    redirected = {"PYTHONPATH": str(Path(__file__).with_name("redirect")), "TEST_RECEIVER": receiver.address}
    with (
        tempfile.TemporaryDirectory(prefix="stack", ignore_cleanup_errors=True) as folder,
        Stack(Path(folder), env, **redirected) as stack,
    ):
        yield stack


@pytest.fixture(scope="module")
def here(stack: Stack, receiver: Receiver) -> dict[str, str]:
    """The settings of the project."""
    return stack.env | SETTINGS | receiver.settings() | {"PREFECT_ENV": "staging", "ALERT_THROTTLE_MINUTES": "0"}


@pytest.fixture(scope="module")
def hit(stack: Stack, here: dict[str, str], project: Path) -> dict[str, Any]:
    """What became of the runs: they wait for a worker, and while they run an API process and the worker are killed."""
    applied = run_ops(project, here, "apply", "--yes")
    assert applied.returncode == 0, applied.stderr
    stack("PATCH", "/work_pools/my-flows", {"concurrency_limit": AT_ONCE})
    runs = [start_run(stack, "slow/slow", seconds=2)["id"] for _ in range(RUNS)]

    def found() -> list[dict[str, Any]]:
        return stack("POST", "/flow_runs/filter", {"flow_runs": {"id": {"any_": runs}}})

    def ended() -> int:
        return sum(run["state_type"] in ENDED for run in found())

    def stuck() -> list[str]:
        """Return the runs that the killed worker had taken, and that did not start: after a while, none will."""
        gone = datetime.now(UTC) - timedelta(seconds=PATIENCE)
        pending = [run for run in found() if run["state_type"] == "PENDING"]
        return [run["id"] for run in pending if datetime.fromisoformat(run["state"]["timestamp"]) < gone]

    first = start_worker(project, here, stack.folder)
    try:
        eventually(lambda: ended() >= 2, 240, "first runs")
        kill(stack.apis[0])
        before = ended()
        eventually(lambda: ended() >= before + 2, 240, "runs without it")
        first.send_signal(signal.SIGKILL)  # alone, as a machine that is out of memory does
        second = start_worker(project, here, stack.folder)
        try:
            eventually(lambda: ended() + len(stuck()) == RUNS, 400, "end of all runs but those that nobody starts")
            put_back = stuck()
            for run in put_back:  # what the alert on stuck runs asks a person to do
                stack("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "SCHEDULED"}})
            eventually(lambda: ended() == RUNS, 240, "end of the runs that were put back")
        finally:
            kill(second)
    finally:
        kill(first)
    return {
        "runs": found(),
        "put back": put_back,
    }


def start_worker(project: Path, env: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "worker.log").open("ab") as log:
        return subprocess.Popen(
            [project / ".venv/bin/python", "-m", "ops", "worker"],
            cwd=project,
            env=env | {"PREFECT_WORKER_QUERY_SECONDS": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def test_no_run_is_lost(hit: dict[str, Any]) -> None:
    lost = [(run["name"], run["state"]) for run in hit["runs"] if run["state_name"] != "Completed"]
    assert not lost
    assert len(hit["runs"]) == RUNS
    assert len(hit["put back"]) < AT_ONCE  # at most those that it had just taken


def test_the_pool_keeps_its_limit_meanwhile(hit: dict[str, Any]) -> None:
    assert 1 < most_at_once(hit["runs"]) <= AT_ONCE


def test_each_run_ran_once(hit: dict[str, Any]) -> None:
    assert {run["run_count"] for run in hit["runs"]} == {1}


def test_background_services_work_beside_the_api(hit: dict[str, Any], stack: Stack) -> None:
    """The alert on success is an automation: the service apart saw the events that came in through the other processes."""
    wanted = {
        "filter": {"event": {"name": ["prefect.automation.action.triggered", "prefect.automation.action.failed"]}}
    }

    def fired() -> Any:
        return stack("POST", "/events/filter", wanted)["total"] or None

    assert eventually(fired, 60, "an automation that fired")


def test_a_storm_of_failures_is_told_once_each(hit: dict[str, Any], stack: Stack, receiver: Receiver) -> None:
    deployment = stack("GET", "/deployments/name/slow/slow")["id"]
    assert told(receiver, storm(stack, deployment), 2) == [["slack", "webhook"]] * STORM


def test_a_dump_brings_everything_back(hit: dict[str, Any], stack: Stack, tmp_path: Path) -> None:
    """As docs/how-to/self-host.md says: dump, restore into an empty database, count the runs there."""
    dump = tmp_path / "prefect.dump"
    postgres = ["-h", "127.0.0.1", "-p", str(stack.database), "-U", "postgres"]
    subprocess.run(["pg_dump", *postgres, "--format=custom", f"--file={dump}", "postgres"], check=True)
    subprocess.run(["createdb", *postgres, "restored"], check=True)
    subprocess.run(["pg_restore", *postgres, "--dbname=restored", "--exit-on-error", str(dump)], check=True)
    count = [
        "psql",
        *postgres,
        "-d",
        "restored",
        "-tAc",
        "select count(*) from flow_run where state_type = 'COMPLETED'",
    ]
    assert int(subprocess.run(count, check=True, capture_output=True, text=True).stdout) >= RUNS
