"""A Prefect server of the tests' own, and projects whose `ops` is run against it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from demo import without_prefect_settings

AUTH = "admin:let-me-in"
SECRET = "canary4711"  # in every secret that the projects are given
SETTINGS = {
    "ALERT_WEBHOOK_URL": f"http://127.0.0.1:9/{SECRET}",
    "ETL_SOURCE_TOKEN": SECRET,
    "PREFECT_ENV": "prod",
    "SLACK_WEBHOOK_URL": f"https://hooks.slack.com/services/T/B/{SECRET}",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A Prefect server with authentication, on loopback, with its data in `home`; it runs while its `with` block does."""

    def __init__(self, home: Path, env: dict[str, str], python: Path = Path(sys.executable)) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.python, self.home = python, home
        self.env = without_prefect_settings(env) | {
            "DO_NOT_TRACK": "1",
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_API_AUTH_STRING": AUTH,
        }
        # A busy server may close a connection that is kept just when it is used again.
        fresh = httpx.Limits(max_keepalive_connections=0)
        self.client = httpx.Client(auth=tuple(AUTH.split(":")), timeout=60, limits=fresh)
        self.log = home / "server.log"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        command = [self.python, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.home, env=self.env, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(httpx.HTTPError):
                if self.client.get(f"{self.url}/health", timeout=2).is_success:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"the server did not start: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request, as a person or another program would."""
        for _ in range(150):  # 503: SQLite is busy with another write, in a storm with many
            answer = self.client.request(method, self.url + path, json=body)
            if answer.status_code != 503:
                break
            time.sleep(0.2)
        answer.raise_for_status()
        return answer.json() if answer.content else None


@dataclass
class Answer:
    """What a command printed, its exit code, and the requests that it made."""

    code: int
    out: str
    err: str
    requests: list[str] = field(default_factory=list)

    @property
    def writes(self) -> list[str]:
        return [request for request in self.requests if not request.startswith("GET") and "/filter" not in request]

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in (self.out + self.err).splitlines()]


class Forks:
    """Runs `ops` commands in forks of one process that has imported Prefect."""

    def __init__(self, python: Path, env: dict[str, str]) -> None:
        command = [python, Path(__file__).with_name("ops_forks.py")]
        self.process = subprocess.Popen(
            command, env=env, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
        )

    def run(self, folder: Path, arguments: list[str], env: dict[str, str]) -> Answer:
        assert self.process.stdin
        assert self.process.stdout
        print(
            json.dumps({"folder": str(folder), "arguments": arguments, "env": env}),
            file=self.process.stdin,
            flush=True,
        )
        return Answer(**json.loads(self.process.stdout.readline()))

    def stop(self) -> None:
        self.process.communicate()


def run_ops(folder: Path, env: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m ops COMMAND` of the project in `folder`."""
    python = folder / ".venv/bin/python"
    return subprocess.run([python, "-m", "ops", *command], cwd=folder, env=env, capture_output=True, text=True)


@dataclass
class Project:
    """A copy of a rendered project, and what it declares."""

    folder: Path
    forks: Forks
    env: dict[str, str]

    def __call__(self, *arguments: str, **env: str) -> Answer:
        """Run `python -m ops ARGUMENTS`, quickly."""
        return self.forks.run(self.folder, list(arguments), SETTINGS | env)

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Start `python -m ops ARGUMENTS` as its own process."""
        return subprocess.Popen(
            [self.folder / ".venv/bin/python", "-m", "ops", *arguments],
            cwd=self.folder,
            env=self.env | SETTINGS | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def run(self, *arguments: str, **env: str) -> Answer:
        """Run `python -m ops ARGUMENTS` as its own process."""
        process = self.start(*arguments, **env)
        out, err = process.communicate()
        return Answer(process.returncode, out, err)

    def deploy(self, *deployments: dict[str, Any]) -> None:
        """Write prefect.yaml."""
        content = {"name": self.folder.name, "pull": [], "deployments": list(deployments)}
        (self.folder / "prefect.yaml").write_text(yaml.safe_dump(content))

    def declare(self, module: str, text: str) -> None:
        """Write the last lines of ops/MODULE.py anew."""
        file = self.folder / f"ops/{module}.py"
        before = file.read_text().split("\n# --- of the test ---")[0]
        file.write_text(f"{before}\n# --- of the test ---\n{text}\n")

    def copy(self, folder: Path, name: str) -> "Project":
        """Return a copy under another name."""
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns(".prefect", ".venv"))
        (folder / ".venv").symlink_to((self.folder / ".venv").resolve())
        toml = folder / "pyproject.toml"
        toml.write_text(toml.read_text().replace(f'name = "{self.folder.name}"', f'name = "{name}"'))
        return Project(folder, self.forks, self.env)
