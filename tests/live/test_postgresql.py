"""A project with a database loads into a real PostgreSQL server and says what is wrong when there is none."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ops_server import run_ops

from demo import Dev, render, run_deployment

pytestmark = pytest.mark.live
PORT = 54329
PASSWORD = "secret-canary"


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The command that asks SQL of a temporary PostgreSQL server; it runs as another user, root is refused."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if os.geteuid() == 0 else []
    if not binaries:
        pytest.skip("needs root and PostgreSQL's server in /usr/lib/postgresql (apt-get install postgresql)")
    folder = tmp_path_factory.mktemp("postgresql")
    for parent in [folder, *folder.parents][:3]:
        parent.chmod(0o755)
    data, password = folder / "data", folder / "password"
    data.mkdir()
    password.write_text(PASSWORD)
    for path in (data, password):
        shutil.chown(path, "postgres")
    as_postgres = ["runuser", "-u", "postgres", "--"]
    server = [*as_postgres, f"{binaries[-1]}/pg_ctl", "-D", str(data), "-w"]
    initdb = [*as_postgres, f"{binaries[-1]}/initdb", "-D", str(data), "-A", "scram-sha-256", "--pwfile", str(password)]
    subprocess.run([*initdb, "-U", "postgres"], check=True, capture_output=True, cwd="/")
    options = f"-p {PORT} -k /tmp -c listen_addresses=127.0.0.1 -c fsync=off"
    subprocess.run([*server, "-o", options, "-l", str(data / "log"), "start"], check=True, capture_output=True, cwd="/")
    ask = ["psql", "-h", "127.0.0.1", "-p", str(PORT), "-U", "postgres", "-tAc"]
    yield ask
    subprocess.run([*server, "-m", "immediate", "stop"], check=False, capture_output=True, cwd="/")


def test_orders_are_loaded_once(postgresql: list[str], env: dict[str, str], tmp_path: Path) -> None:
    project = tmp_path / "warehouse"
    render(project, "project_name=warehouse", "database=postgresql")
    (project / ".env").write_text(
        f"DATABASE_PORT={PORT}\nDATABASE_NAME=postgres\nDATABASE_USER=postgres\nDATABASE_PASSWORD={PASSWORD}\n"
    )
    dev = Dev(project, env, show=False)
    try:
        dev.wait_for("^Ready", 300)
        assert "Completed" in dev.wait_for(r"^First run +\w+$", 120), "".join(dev.lines)
        assert "'Completed'" in run_deployment(project, env)  # a second load replaces, it adds nothing
        count = subprocess.run(
            [*postgresql, "select count(*), sum(amount)::numeric(18, 2) from orders"],
            env=env | {"PGPASSWORD": PASSWORD},
            capture_output=True,
            text=True,
            check=True,
        )
        assert count.stdout.strip() == "6|666.64"

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
