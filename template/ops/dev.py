"""Everything on this machine: a Prefect server, a worker, the deployments, and a receiver that shows alerts.

It lives in `.prefect/`, with a Prefect home of its own: no PREFECT_ setting of yours is read or changed.
"""

import asyncio
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from compileall import compile_dir
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from rich.console import Console
from rich.markup import escape

from ops.settings import PROJECT, ROOT, OpsError, Settings

if TYPE_CHECKING:
    from ops.declared import Declared

HOME = ROOT / ".prefect"
STATE = HOME / "dev.json"  # the environment and the processes of the `dev` that runs now
USUAL_PORT = 4200
FIRST_RUN = "etl/etl-daily"  # started when its deployment is new on the server
# `python -m prefect`, sooner: imports and migrations make many objects and no garbage.
PREFECT = "import gc, os; gc.set_threshold(50_000); from prefect.cli import app; app()"
# A worker loads while the server starts, then waits to be told that its work pool is there. It ends if we do.
WORKER = PREFECT.replace("app()", "import prefect.cli.worker, prefect.workers.process; os.read(0, 1) and app()")


class PortTaken(OpsError):
    """Another program has taken the port of our server since it was found free."""


def free_port(wanted: int = 0) -> int:
    """Return `wanted` when nothing listens there on loopback, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return probe.getsockname()[1]
    raise OpsError("No free port on 127.0.0.1")


def environment(port: int, receiver: str) -> dict[str, str]:
    """Return the environment of all processes: the caller's without its PREFECT_ settings, and ours.

    Args:
        port: of the server
        receiver: host:port that alerts are sent to, whatever .env says: a laptop pages nobody
    """
    local = {
        name.upper(): str(field.json_schema_extra["local"]).format(receiver=receiver)
        for name, field in Settings.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and "local" in field.json_schema_extra
    }
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        **Settings(prefect_env="dev").for_runs(),
        **local,
        "ALERT_THROTTLE_MINUTES": "0",  # whoever tries alerts out sees each
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # the worker starts runs with it
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(HOME),
        "PREFECT_ENV": "dev",
        **dict.fromkeys(
            ("NO_PROXY", "no_proxy"),
            f"127.0.0.1,localhost,{os.environ.get('no_proxy') or os.environ.get('NO_PROXY', '')}",
        ),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # SQLite takes one writer: a run that asks for a limit while its tasks are written would get a 503, and wait 2 s.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        "PREFECT_SERVER_UI_API_URL": "/api",  # of the page itself: a forwarded port has another address
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }


def enter(env: dict[str, str]) -> None:
    """Go on in the environment `env` of `dev`; Prefect, which reads its settings once, must not be imported yet."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(HOME)


def receive(show: Callable[[str, dict[str, Any]], None]) -> ThreadingHTTPServer:
    """Start a receiver on loopback that calls `show` with the channel and the body of each alert."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.end_headers()
            with suppress(ValueError):
                show(self.path.strip("/"), json.loads(body))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def start(console: Console) -> None:
    """Run the server, the worker and the deployments until Ctrl-C, or until one of them ends."""
    HOME.mkdir(exist_ok=True)
    with (HOME / "dev.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OpsError("`make dev` runs already in this project: stop it first (Ctrl-C where it runs)") from error
        stop_leftovers(console)
        # A Ctrl-C at any time, and a plain kill, both end in the `finally` below.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        processes: list[subprocess.Popen[bytes]] = []
        try:
            serve(console, processes)
        except PortTaken as error:
            console.print(error)
            stop(processes)
            os.chdir(ROOT)
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - Prefect has read the port
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            console.print("Stopping ...")
            stop(processes)
            STATE.unlink(missing_ok=True)
            console.print("Stopped. The server's data stays in .prefect/")


def serve(console: Console, processes: list[subprocess.Popen[bytes]]) -> None:
    def show(channel: str, alert: dict[str, Any]) -> None:
        text = str(alert.get("text") or f"{alert.get('title')}\n{alert.get('message')}")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        console.print(f"[bold red]ALERT[/] ({escape(channel)}) {escape(': '.join(lines[:3]))}")
        for line in lines[3:]:
            console.print(f"      [dim]{escape(line)}[/]")

    receiver = receive(show)
    port = free_port(USUAL_PORT)
    if port != USUAL_PORT:
        console.print(f"Port {USUAL_PORT} is taken, so the server gets {port}")
    env = environment(port, f"127.0.0.1:{receiver.server_port}")

    def spawn(code: str, *command: str, input: int, output: Path | None = None) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C reaches us only, and we stop the children in order.
        log = output.open("wb") if output else None
        process = subprocess.Popen(
            [sys.executable, "-c", code, *command],
            env=env,
            cwd=HOME,  # not the project: Prefect would read PREFECT_ settings from its .env
            stdin=input,
            stdout=log,
            stderr=subprocess.STDOUT if log else None,
            start_new_session=True,
        )
        processes.append(process)
        draft = STATE.with_suffix(".new")  # a kill at any time leaves the old file or the new one
        draft.write_text(json.dumps({"env": env, "pids": [p.pid for p in processes]}), "utf-8")
        draft.chmod(0o600)
        draft.replace(STATE)
        return process

    log = HOME / "server.log"
    command = ("server", "start", "--host", "127.0.0.1", "--port", str(port))
    server = spawn(PREFECT, *command, input=subprocess.DEVNULL, output=log)
    api = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/", timeout=10, trust_env=False)
    with console.status("Starting the Prefect server (the first start takes up to a minute)"):
        enter(env)
        for package in ("sqlalchemy", "prefect/server"):  # the first time it compiles them, last: now both do
            compile_dir(Path(httpx.__file__).parents[1] / package, quiet=2)
        from ops.declared import Declared  # Prefect takes our settings, and loads while the server starts

        declared = Declared(Settings())
        wait, go = os.pipe()
        flags = ("--type", "process", "--no-create-pool-if-not-found")
        workers = [
            spawn(WORKER, "worker", "start", "--pool", name, *flags, input=wait)
            for name in declared.objects["work pool"]
        ]
        wait_until_ready(api, server, log)
    console.print(f"Server    http://127.0.0.1:{port}  (its log: .prefect/server.log)")
    first_run = asyncio.run(apply(console, declared))
    os.write(go, bytes(len(workers)))
    os.close(go)
    console.print("Ready. In another terminal:  make run    Stop with Ctrl-C")
    if first_run:
        console.print(f"First run  http://127.0.0.1:{port}/runs/flow-run/{first_run}")
    while True:
        if first_run and (state := final_state(api, first_run)):
            console.print(f"First run  {state}")
            first_run = None
        for process, name in ((server, "server"), *((worker, "worker") for worker in workers)):
            if process.poll() is not None:
                raise OpsError(
                    f"The {name} ended with exit code {process.returncode}: see above and .prefect/server.log"
                )
        time.sleep(0.2)


async def apply(console: Console, declared: "Declared") -> UUID | None:
    """Apply what is declared; return the id of a first run when the deployment for it has just been created."""
    from ops.api import connect
    from ops.doctor import try_database
    from ops.reconcile import apply, make_plan
    from ops.report import print_change, print_notes

    async with connect() as client:
        plan = await make_plan(client, declared)
        print_notes(plan, console)
        done = await apply(client, declared, plan, lambda change: print_change(change, console))
    if f"{PROJECT}-warehouse" in declared.left_out or not any(change.name == FIRST_RUN for change in done):
        return None
    for name, fields in declared.objects["block"].items():
        if hasattr(fields["block"], "get_engine"):
            answers, line = try_database(name, fields["block"])
            if not answers:
                console.print(f"No first run: {escape(line)}")
                return None
    async with connect(waits=True) as client:
        deployment = await client.read_deployment_by_name(FIRST_RUN)
        return (await client.create_flow_run_from_deployment(deployment.id)).id


def final_state(api: httpx.Client, run_id: UUID) -> str | None:
    """Return the name of the state in which a run ended, or None while it has not."""
    with suppress(httpx.HTTPError):
        run = api.get(f"flow_runs/{run_id}").json()
        if run.get("state_type") in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return run["state_name"]
    return None


def wait_until_ready(api: httpx.Client, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return when our server answers: the one with our Prefect home.

    Raises:
        PortTaken: it ended, and something else listens on its port
        OpsError: it ended, or takes 3 minutes; with the end of its log
    """
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(httpx.HTTPError, ValueError, LookupError, TypeError):
            if api.get("admin/settings", timeout=2).json()["home"] == str(HOME):
                return
        time.sleep(0.1)
    port = api.base_url.port or 80
    if server.poll() is not None and free_port(port) != port:
        raise PortTaken(f"Another program has just taken port {port}: starting once more")
    tail = log.read_text("utf-8", "replace").splitlines()[-5:]
    raise OpsError("The server did not start. The end of .prefect/server.log:", *tail)


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Stop the processes, the last one first, each with what it started; kill what is still there after 15 seconds."""
    for process in reversed(processes):
        for sign, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, sign)
                process.wait(patience)
                break


def stop_leftovers(console: Console) -> None:
    """Stop what a killed `dev` left running; it holds no lock any more, but its children may live on."""
    with suppress(OSError, ValueError):
        for pid in json.loads(STATE.read_text("utf-8"))["pids"]:
            command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]  # -ww: the whole of it, whatever the path
            shown = subprocess.run(command, capture_output=True, text=True).stdout
            if "prefect" in shown and "start --" in shown:  # the number may belong to another program by now
                console.print(f"Stopping what an earlier `make dev` left: {shown.strip()}")
                os.killpg(pid, signal.SIGKILL)
    STATE.unlink(missing_ok=True)


def running() -> dict[str, str]:
    """Return the environment of the `dev` that runs now; raise OpsError when none does."""
    try:
        return json.loads(STATE.read_text("utf-8"))["env"]
    except (OSError, ValueError) as error:
        raise OpsError("`make dev` is not running in this project: start it first, in another terminal") from error


def run_against(arguments: list[str]) -> int:
    """Run `prefect ARGUMENTS` against the server of the `dev` that runs now and return its exit code."""
    command = [sys.executable, "-m", "prefect", *arguments]
    return subprocess.run(command, env=running(), cwd=HOME, check=False).returncode
