"""A project with a database loads into a real server, PostgreSQL or MariaDB, and says what is wrong without one."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from ops_server import free_port, run_ops

from demo import Dev, render, run_deployment

pytestmark = pytest.mark.live
PASSWORD = "secret-canary"
COUNT = "select count(*), cast(sum(amount) as decimal(18, 2)) from orders"
Ask = Callable[[str], str]


def ran(*command: object, given: str = "") -> str:
    words = list(map(str, command))
    return subprocess.run(words, input=given, check=True, capture_output=True, text=True, cwd="/").stdout.strip()


@contextmanager
def postgresql(folder: Path, port: int) -> Iterator[Ask]:
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if not binaries:
        pytest.skip("needs PostgreSQL's server (apt-get install postgresql)")
    shutil.chown(folder, "postgres")
    password = folder / "password"
    password.write_text(PASSWORD)
    as_postgres = ["runuser", "-u", "postgres", "--"]
    initdb = [*as_postgres, binaries / "initdb", "-A", "scram-sha-256", "-U", "flows", "--pwfile", password]
    ran(*initdb, "-D", folder / "data")
    server = [*as_postgres, binaries / "pg_ctl", "-D", folder / "data", "-w"]
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    ran(*server, "-o", options, "-l", folder / "log", "start")
    address = f"postgresql://flows:{PASSWORD}@127.0.0.1:{port}"
    ran("psql", f"{address}/postgres", "-c", "create database warehouse")
    try:
        yield lambda sql: ran("psql", f"{address}/warehouse", "-tAF,", "-c", sql)
    finally:
        ran(*server, "-m", "immediate", "stop")


@contextmanager
def mysql(folder: Path, port: int) -> Iterator[Ask]:
    if not shutil.which("mariadbd"):
        pytest.skip("needs MariaDB's server (apt-get install mariadb-server)")
    shutil.chown(folder, "mysql")
    as_mysql = ["runuser", "-u", "mysql", "--"]
    data = f"--datadir={folder / 'data'}"
    ran(*as_mysql, "mariadb-install-db", "--no-defaults", data, "--auth-root-authentication-method=normal")
    server = [*as_mysql, "mariadbd", "--no-defaults", data, f"--socket={folder / 'socket'}", f"--port={port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*server, "--bind-address=127.0.0.1", "--skip-name-resolve"], cwd="/", stdout=log, stderr=log
        )
    client = ["mariadb", "--no-defaults", f"--socket={folder / 'socket'}", "-N"]
    try:
        deadline = time.monotonic() + 60
        while subprocess.run([*client, "-e", "select 1"], capture_output=True).returncode:
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        user = f"create user flows@'127.0.0.1' identified by '{PASSWORD}'"
        ran(*client, given=f"create database warehouse; {user}; grant all on warehouse.* to flows@'127.0.0.1'")
        yield lambda sql: ran(*client, "warehouse", given=sql).replace("\t", ",")
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run a database server as its own user")
@pytest.mark.parametrize("database", [postgresql, mysql], ids=lambda database: database.__name__)
def test_orders_are_loaded_once(
    database: Callable[[Path, int], AbstractContextManager[Ask]],
    env: dict[str, str],
    tmp_path: Path,
) -> None:
    project, port = tmp_path / "warehouse", free_port()
    render(project, "project_name=warehouse", f"database={database.__name__}")
    (project / ".env").write_text(
        f"DATABASE_PORT={port}\nDATABASE_NAME=warehouse\nDATABASE_USER=flows\nDATABASE_PASSWORD={PASSWORD}\n"
    )
    # No folder of pytest's: its next session takes the way into that away from the server's user.
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, database(Path(folder), port) as ask:
        dev = Dev(project, env, show=False)
        try:
            dev.wait_for("^Ready", 300)
            assert "Completed" in dev.wait_for(r"^First run +\w+$", 120), "".join(dev.lines)
            assert "'Completed'" in run_deployment(project, env)  # a second load replaces, it adds nothing
            assert ask(COUNT) == "6,666.64"

            unreachable = env | {"DATABASE_PORT": "1", "ALERT_WEBHOOK_URL": "http://127.0.0.1:9/"}
            wrong = run_ops(project, unreachable, "doctor")
            line = next(line for line in wrong.stdout.splitlines() if "warehouse:" in line)
            assert line.startswith("wrong")
            assert "cannot be used" in line
            assert "DATABASE_ settings in .env" in line
        finally:
            dev.stop()
    output = "".join(dev.lines) + wrong.stdout + wrong.stderr + (project / ".prefect/server.log").read_text()
    assert PASSWORD not in output
