"""What goes wrong is told in one line with the remedy, and nothing is lost or left running."""

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ops_server import run_ops
from test_live import eventually

from demo import LEFTOVERS, Dev

pytestmark = pytest.mark.live


@pytest.fixture
def answering(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an API that answers everything with the status in the test's parameter."""

    class Stub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(request.param)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b"<html>" if request.param == 200 else b'{"detail": "no"}')

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()


def ops(project: Path, env: dict[str, str], command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    wanted = {"ALERT_WEBHOOK_URL": "http://127.0.0.1:9/", "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T/B/X"}
    return run_ops(project, env | wanted | settings, command)


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_no_server(project: Path, env: dict[str, str]) -> None:
    assert "does not answer: start it, or correct PREFECT_API_URL" in only_line(ops(project, env, "plan"))


@pytest.mark.slow
def test_a_firewall_that_drops_everything(project: Path, env: dict[str, str]) -> None:
    with socket.socket() as hole, contextlib.ExitStack() as waiting:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        for _ in range(3):  # then its queue is full, and Linux drops what comes
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(hole.getsockname())
        began = time.monotonic()
        line = only_line(ops(project, env, "plan", PREFECT_API_URL=f"http://127.0.0.1:{hole.getsockname()[1]}/api"))
    assert "does not answer in time: start it, or correct PREFECT_API_URL in .env" in line
    assert time.monotonic() - began < 120


@pytest.mark.parametrize("command", ["plan", "worker"])
def test_no_address(command: str, project: Path, env: dict[str, str]) -> None:
    assert only_line(ops(project, env, command, PREFECT_API_URL="")).startswith("PREFECT_API_URL is not set: set it in")


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("latin-1", "Line 2 of .env is not UTF-8: save the file as UTF-8"),
        ("utf-8-sig", ".env begins with a byte order mark: save the file as UTF-8 without one"),
    ],
)
def test_an_env_file_in_another_encoding(encoding: str, told: str, project: Path, env: dict[str, str]) -> None:
    file = project / ".env"
    file.write_bytes("# as an old editor saves it\nETL_SOURCE_TOKEN=schlüssel\n".encode(encoding))
    try:
        assert only_line(ops(project, env, "plan")) == told
    finally:
        file.unlink()


def test_a_wrong_option_does_not_pass_for_a_difference(project: Path, env: dict[str, str]) -> None:
    wrong = run_ops(project, env, "plan", "--nosuch")
    assert (wrong.returncode, "No such option: --nosuch" in wrong.stderr) == (1, True)
    assert subprocess.run(["make", "plan", "ARGS=--nosuch"], cwd=project, env=env, capture_output=True).returncode == 2


def test_a_fault_is_shown_as_it_is(project: Path, env: dict[str, str]) -> None:
    assert only_line(run_ops(project, env, "flow", ":x:")).startswith("':x:' cannot be the name of a flow")


@pytest.mark.parametrize(
    ("login", "told"),
    [
        (
            "user:s3cret@",
            "The Prefect API at http://127.0.0.1:9/api does not answer: start it, or correct PREFECT_API_URL",
        ),
        ("user:s3cret/@", "PREFECT_API_URL is no address: correct it in .env"),
        ("user:s3cret@host:99999/", "PREFECT_API_URL is no address: correct it in .env"),
    ],
)
def test_a_login_in_the_address_does_not_show(login: str, told: str, project: Path, env: dict[str, str]) -> None:
    line = only_line(ops(project, env, "plan", PREFECT_API_URL=f"http://{login}127.0.0.1:9/api"))
    assert told in line
    assert "s3cret" not in line


@pytest.mark.parametrize(
    ("answering", "told"),
    [
        (401, "refuses the key: check PREFECT_API_KEY"),
        (404, "is not a Prefect API: correct PREFECT_API_URL"),
        (200, "answers with a page that is no JSON: is there a login before it?"),
    ],
    indirect=["answering"],
)
def test_an_api_that_refuses(answering: str, told: str, project: Path, env: dict[str, str]) -> None:
    assert told in only_line(ops(project, env, "plan", PREFECT_API_URL=answering))


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("SLA_MINUTES", "0", "SLA_MINUTES: Input should be greater than or equal to"),
        ("SLA_MINUTES", "inf", "SLA_MINUTES: Input should be less than or equal to"),
        ("SLA_MINUTES", "soon", "SLA_MINUTES: Input should be a valid number"),
        ("PREFECT_ENV", "pord", "PREFECT_ENV: choose one of dev, staging, preview, prod"),
    ],
)
def test_a_setting_that_does_not_fit(
    setting: str, value: str, told: str, project: Path, env: dict[str, str], api: object
) -> None:
    line = only_line(ops(project, env, "plan", PREFECT_API_URL=api.env["PREFECT_API_URL"], **{setting: value}))  # ty: ignore
    assert told in line
    assert "in .env" in line


def test_a_pool_that_is_not_declared(project: Path, env: dict[str, str], api: object) -> None:
    file = project / "prefect.yaml"
    before = file.read_text()
    file.write_text(before.replace('    name: "my-flows"', '    name: "my-flow"'))
    try:
        done = ops(project, env, "plan", PREFECT_API_URL=api.env["PREFECT_API_URL"])  # ty: ignore
    finally:
        file.write_text(before)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == before.count("work_pool: *work_pool"), done.stderr  # one for each deployment
    assert all("work pool my-flow is not declared" in line and "did you mean my-flows?" in line for line in lines)


def started_in(home: Path) -> list[int]:
    """Return the processes whose Prefect home is `home`."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if f"PREFECT_HOME={home}\0".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


def wait_for_processes(project: Path, count: int) -> None:
    eventually(lambda: len(started_in(project / ".prefect")) == count, 60, f"{count} processes")


def test_a_killed_dev_is_cleaned_up_by_the_next(project: Path, env: dict[str, str], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, symlinks=True, ignore=shutil.ignore_patterns(".prefect"))
    with socket.socket() as usual:  # the usual port is taken, by this test or by somebody else
        usual.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            usual.bind(("127.0.0.1", 4200))
            usual.listen()
        except OSError:
            pass
        first = Dev(copy, env, show=False)
        first.wait_for("Port 4200 is taken, so the server gets", 60)
        first.wait_for("^Ready", 240)
        os.killpg(first.process.pid, signal.SIGKILL)
        first.process.wait()
        assert started_in(copy / ".prefect"), "server and worker have outlived `make dev`"

        second = Dev(copy, env, show=False)
        second.wait_for("Stopping what an earlier `make dev` left", 60)
        second.wait_for("^Ready", 240)
        second.stop()
    assert second.process.returncode is not None
    assert started_in(copy / ".prefect") == []


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_stopped_before_the_server_answers(
    sign: signal.Signals, project: Path, env: dict[str, str], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, symlinks=True, ignore=shutil.ignore_patterns(".prefect"))
    dev = Dev(copy, env, show=False)
    wait_for_processes(copy, 2)  # the server, and the worker that waits for it
    os.killpg(dev.process.pid, sign)
    dev.process.wait(60)
    left = 0 if sign == signal.SIGINT else 1  # who is killed stops no server, but its worker ends
    wait_for_processes(copy, left)
    assert not [line for line in dev.lines if line.startswith("Server") or "Traceback" in line]
    subprocess.run([copy / ".venv/bin/python", "-c", LEFTOVERS], cwd=copy, check=True)
    wait_for_processes(copy, 0)


def test_two_that_start_at_once_get_a_port_each(project: Path, env: dict[str, str], tmp_path: Path) -> None:
    both = []
    for name in ("one", "other"):
        copy = tmp_path / name
        shutil.copytree(project, copy, symlinks=True, ignore=shutil.ignore_patterns(".prefect"))
        both.append(Dev(copy, env, show=False))
    for dev in both:
        dev.wait_for("^Ready", 240)
    ports = {re.search(r":(\d+)", dev.wait_for("^Server", 1))[1] for dev in both}  # ty: ignore
    assert len(ports) == 2
    for dev in both:
        dev.stop()


def test_ctrl_c_while_it_is_still_importing(project: Path, env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    command = [".venv/bin/python", "-m", "ops", "plan"]
    done = subprocess.run(command, cwd=project, env=env | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


DEMO = """
import sys
from pathlib import Path

import demo

demo.DEMO = Path(sys.argv[1])
demo.RUNNING = demo.DEMO.with_name("demo.pid")
demo.main()
"""


def test_a_killed_demo_is_cleaned_up_by_the_next(env: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", DEMO, str(tmp_path / "demo")]
    first = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    while not (tmp_path / "demo/.prefect/dev.json").exists():
        assert first.poll() is None
        time.sleep(0.1)
    time.sleep(random.Random(4).uniform(0, 10))
    first.kill()
    first.wait()
    assert started_in(tmp_path / "demo/.prefect"), "server and worker have outlived the demo"

    second = subprocess.run(command, env=env, capture_output=True, text=True)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "Stopping what an earlier" in second.stdout
    assert "delivered" in second.stdout
    assert started_in(tmp_path / "demo/.prefect") == []
    assert not (tmp_path / "demo.pid").exists()
