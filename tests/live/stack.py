"""A Prefect server as docs/how-to/self-host.md has it, on this machine: PostgreSQL, Redis, several API processes behind
a proxy, background services apart. The programs are the distribution's.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx
from ops_server import AUTH, free_port

PROXY = """\
daemon off;
user root;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream api {{
    {servers}
  }}
  map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://api;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_read_timeout 300s;
      client_max_body_size 20m;
    }}
  }}
}}
"""


def missing() -> str:
    """Return what this machine lacks for a stack, or nothing."""
    if os.geteuid() != 0:
        return "root, to run PostgreSQL as its own user"
    programs = [name for name in ("redis-server", "nginx") if not shutil.which(name)]
    programs += [] if postgresql() else ["PostgreSQL's server"]
    return f"{', '.join(programs)} (apt-get install postgresql redis-server nginx-light)" if programs else ""


def postgresql() -> Path | None:
    """Return the folder of the newest PostgreSQL server's programs."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


class Stack:
    """The stack, which runs while its `with` block does, in a folder whose parents everybody may enter: no folder of pytest's.

    Attributes:
        url: of the API, through the proxy
        env: settings of a client
        apis: the API processes
    """

    def __init__(self, folder: Path, env: dict[str, str], apis: int = 2, **settings: str) -> None:
        self.folder, self.processes = folder, []
        self.apis: list[subprocess.Popen[bytes]] = []
        self.port, self.database, self.redis = free_port(), free_port(), free_port()
        self.ports = [free_port() for _ in range(apis)]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.env = env | {"PREFECT_API_URL": self.url, "PREFECT_API_AUTH_STRING": AUTH, "DO_NOT_TRACK": "1"}
        database = f"postgresql+asyncpg://postgres@127.0.0.1:{self.database}/postgres"
        self.settings = env | {
            "DO_NOT_TRACK": "1",
            "PREFECT_HOME": str(folder),
            "PREFECT_API_URL": self.url,
            "PREFECT_API_AUTH_STRING": AUTH,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_API_AUTH_STRING": AUTH,
            "PREFECT_API_DATABASE_CONNECTION_URL": database,
            "PREFECT_API_DATABASE_MIGRATE_ON_START": "false",
            "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
            "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
            "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
            "PREFECT_SERVER_DOCKET_URL": f"redis://127.0.0.1:{self.redis}/1",
            "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE": "prefect_redis.cleanup_queue",
            "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL": f"redis://127.0.0.1:{self.redis}/1",
            "PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1",
            "PREFECT_REDIS_MESSAGING_PORT": str(self.redis),
            **settings,
        }

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self.folder.chmod(0o755)  # PostgreSQL's user has to reach its own in there
        self.start_database()
        self.spawn(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(self.redis), "--save", "", "--dir", str(self.folder)]
        )
        subprocess.run(
            [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"],
            env=self.settings,
            cwd=self.folder,
            check=True,
            capture_output=True,
        )
        # One first: on an empty database, two would write the block types at once, and one of them would fail.
        for port in self.ports:
            self.apis.append(self.start_api(port))
            if len(self.apis) in (1, len(self.ports)):
                for started in self.ports[: len(self.apis)]:
                    self.wait(lambda started=started: healthy(f"http://127.0.0.1:{started}/api"))
        self.spawn([sys.executable, "-m", "prefect", "server", "services", "start"])
        servers = " ".join(f"server 127.0.0.1:{port} max_fails=1 fail_timeout=5s;" for port in self.ports)
        config = self.folder / "nginx.conf"
        config.write_text(PROXY.format(folder=self.folder, port=self.port, servers=servers))
        self.spawn(["nginx", "-p", str(self.folder), "-c", str(config)])
        self.wait(lambda: healthy(self.url))

    def start_database(self) -> None:
        programs, data = postgresql(), self.folder / "data"
        data.mkdir()
        shutil.chown(data, "postgres")
        as_postgres = ["runuser", "-u", "postgres", "--"]
        initdb = [*as_postgres, f"{programs}/initdb", "-D", str(data), "-A", "trust", "-U", "postgres"]
        subprocess.run(initdb, check=True, capture_output=True, cwd="/")
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-k", str(data)]
        self.spawn([*as_postgres, f"{programs}/postgres", "-D", str(data), "-p", str(self.database), *options])

        def answers() -> bool:
            ready = [f"{programs}/pg_isready", "-h", "127.0.0.1", "-p", str(self.database)]
            return subprocess.run(ready, capture_output=True).returncode == 0

        self.wait(answers)

    def start_api(self, port: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        return self.spawn([*command, "--no-services"])

    def spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "stack.log").open("ab") as log:
            process = subprocess.Popen(
                command, env=self.settings, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    def wait(self, ready: Callable[[], bool], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                raise TimeoutError((self.folder / "stack.log").read_text()[-3000:])
            time.sleep(0.2)

    def stop(self) -> None:
        for process in reversed(self.processes):
            kill(process)

    def __call__(self, method: str, path: str, body: object = None) -> object:
        """Send one request through the proxy, as a client does: once more when a process has just died."""
        for _ in range(20):
            with suppress(httpx.TransportError):
                answer = httpx.request(method, self.url + path, json=body, auth=tuple(AUTH.split(":")), timeout=60)
                if answer.status_code not in (502, 503):
                    answer.raise_for_status()
                    return answer.json() if answer.content else None
            time.sleep(0.5)
        raise TimeoutError(f"no answer to {method} {path}")


def healthy(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health", timeout=5).is_success
    return False


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all of its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
