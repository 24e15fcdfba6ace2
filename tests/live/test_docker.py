"""The image is built from the rendered Dockerfile, and a Docker worker runs the flows in containers of it."""

import gzip
import os
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from engine import docker, missing, provide
from ops_server import AUTH, SECRET, SETTINGS, Server
from test_live import eventually

from demo import Dev, render

pytestmark = pytest.mark.live

FLOW = """\
import os
from pathlib import Path

from prefect import flow, get_run_logger

from runtime.secrets import read_secret


@flow
def probe() -> None:
    try:
        Path("/app/written").touch()
        told = "writable"
    except OSError as error:
        told = error.strerror
    groups = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    limit = next((file.read_text().strip() for file in groups if file.exists()), "")
    get_run_logger().info(f"uid={os.getuid()} app={told} memory={limit}")
    get_run_logger().info("the token is %s", read_secret("etl-source-token").get_secret_value())
"""
LINGER = """\
import time

from prefect import flow


@flow
def linger(megabytes: int = 0) -> None:
    held = b"x" * (megabytes << 20)
    time.sleep(600)
    print(len(held))
"""
LINGER_DEPLOYMENT = """
  - name: linger
    entrypoint: flows.linger.linger
    work_pool: *work_pool
"""
DEPLOYMENT = """
  - name: probe
    entrypoint: flows.probe.probe
    work_pool: *work_pool
  - name: heavy-probe
    entrypoint: flows.probe.probe
    work_pool:
      <<: *work_pool
      name: boxed-heavy
"""


class Project:
    """A project with a Docker pool, committed, and the server that it is deployed to."""

    def __init__(self, folder: Path, server: Server, env: dict[str, str]) -> None:
        self.folder, self.server = folder, server
        self.env = env | SETTINGS | {"PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": AUTH}
        self.env |= {"PREFECT_ENV": "staging", "PREFECT_HOME": str(server.home), "PREFECT_WORKER_QUERY_SECONDS": "1"}

    def __call__(self, *arguments: str) -> tuple[int, str]:
        command = [".venv/bin/python", "-m", "ops", *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=400)
        return done.returncode, done.stdout + done.stderr

    def commit(self) -> str:
        git = ["git", "-C", str(self.folder), "-c", "user.name=t", "-c", "user.email=t@example.com"]
        subprocess.run([*git, "add", "--all"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", "Commit"], check=True)
        return subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()

    def start(self, deployment: str, **options: Any) -> str:
        """Start a run of a deployment; return its id."""
        id = self.server("GET", f"/deployments/name/{deployment}")["id"]
        body = {"state": {"type": "SCHEDULED"}, **options}
        return self.server("POST", f"/deployments/{id}/create_flow_run", body)["id"]

    def reaches(self, run: str, state: str, seconds: float) -> None:
        """Wait until a run is in a state."""
        eventually(lambda: self.server("GET", f"/flow_runs/{run}")["state"]["name"] == state, seconds, state)

    def run(self, deployment: str) -> tuple[str, str]:
        """Run a deployment; return the name of the state in which it ended, and its log."""
        run = self.start(deployment)
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            state = self.server("GET", f"/flow_runs/{run}")["state"]
            if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                break
            time.sleep(0.5)
        told = ""
        while time.monotonic() < deadline and "Finished in state" not in told:  # the log comes in batches
            found = self.server("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200})
            told = "\n".join(line["message"] for line in found)
            if state["type"] != "COMPLETED":
                break
            time.sleep(0.2)
        return state["name"], told


@pytest.fixture(scope="module")
def project(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    if why := missing():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("docker") / "boxed"
    render(folder, "project_name=boxed", "pool_type=docker", "ci=none")
    found = re.search(r"ARG PYTHON_IMAGE=(\S+)", (folder / "Dockerfile").read_text())
    assert found
    provide(found[1], folder.parent)
    (folder / "flows/probe.py").write_text(FLOW)
    (folder / "flows/linger.py").write_text(LINGER)
    (folder / ".env").write_text(f"MY_PASSWORD={SECRET}\n")  # the environment has the others
    with (folder / "prefect.yaml").open("a") as file:
        file.write(DEPLOYMENT + LINGER_DEPLOYMENT)
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    env = env | {name: os.environ[name] for name in ("DOCKER_HOST", "DOCKER_CONFIG") if name in os.environ}
    subprocess.run(["make", "--silent", ".venv/.synced"], cwd=folder, env=env, check=True)
    with Server(tmp_path_factory.mktemp("server"), env) as server:
        yield Project(folder, server, env)
    for image in docker("image", "ls", "--quiet", "boxed").split():
        docker("image", "rm", "--force", image)


@contextmanager
def worker(project: Project, *pool: str) -> Iterator[Path]:
    """The worker of a pool; gives its log."""
    log = project.folder.parent / "worker.log"
    with log.open("wb") as out:
        command = [".venv/bin/python", "-m", "ops", "worker", *pool]
        process = subprocess.Popen(command, cwd=project.folder, env=project.env, stdout=out, stderr=out)
    try:
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def images() -> list[str]:
    return docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "boxed").split()


def test_flows_run_in_containers_of_the_image(project: Project) -> None:
    code, told = project("apply", "--yes")
    assert code == 1
    assert "commit your changes first, or set IMAGE_TAG" in told
    commit = project.commit()

    code, told = project("plan")
    assert code == 2, told
    assert images() == []  # a plan builds nothing

    code, told = project("apply", "--yes")
    assert code == 0, told
    assert images() == [f"boxed:{commit}"]  # built once, for all deployments
    deployed = project.server("GET", "/deployments/name/probe/probe")
    assert deployed["job_variables"]["image"] == f"boxed:{commit}"
    assert project("plan")[0] == 0

    with worker(project) as log:
        state, told = project.run("probe/probe")
        assert state == "Completed", f"{told}\n{log.read_text()[-3000:]}"
        assert f"uid=10001 app=Read-only file system memory={2 * 1024**3}" in told
        assert "the token is ********" in told
        assert SECRET not in told + log.read_text()
        state, told = project.run("etl/etl-daily")
        assert state == "Completed", f"{told}\n{log.read_text()[-3000:]}"
    with worker(project, "boxed-heavy") as log:
        state, told = project.run("probe/heavy-probe")
        assert state == "Completed", f"{told}\n{log.read_text()[-3000:]}"
        assert f"memory={8 * 1024**3}" in told

    compiled = "import argparse, os; assert os.path.exists(argparse.__cached__)"  # each process would do it anew
    docker("run", "--rm", f"boxed:{commit}", "python", "-c", compiled)
    for tool in ("pip", "uv", "setuptools", "prefect_docker", "pytest", "sqlalchemy", "ops"):
        with pytest.raises(RuntimeError, match="No module named"):
            docker("run", "--rm", f"boxed:{commit}", "python", "-c", f"import {tool}")


def containers(run: str) -> list[str]:
    """Return the containers of a run that are running."""
    return docker("ps", "--quiet", "--filter", f"label=io.prefect.flow-run-id={run}").split()


def test_a_cancelled_run_stops_and_one_without_memory_is_crashed(project: Project) -> None:
    """By what watches the run in the container: the worker may miss the end of one that is removed at its end."""
    little = {"mem_limit": "300m", "memswap_limit": "300m"}
    with worker(project):
        cancelled = project.start("linger/linger")
        too_large = project.start("linger/linger", parameters={"megabytes": 1000}, job_variables=little)
        try:
            project.reaches(cancelled, "Running", 120)
            command = [".venv/bin/prefect", "flow-run", "cancel", cancelled]
            subprocess.run(command, cwd=project.folder, env=project.env, check=True, capture_output=True)
            project.reaches(cancelled, "Cancelled", 60)
            eventually(lambda: not containers(cancelled), 30, "end of the container")
            project.reaches(too_large, "Crashed", 60)
            message = project.server("GET", f"/flow_runs/{too_large}")["state"]["message"]
            assert message.startswith("Process exited with status code: -9")
        finally:
            for run in (cancelled, too_large):
                if left := containers(run):
                    docker("rm", "--force", *left)


def found_in(archive: Path, *words: bytes) -> list[str]:
    """Return the parts of a saved image, its layers and its configuration, that hold one of the words."""
    found = []
    with tarfile.open(archive) as tar:
        for member in tar:
            if part := tar.extractfile(member):
                packed = part.read(2) == b"\x1f\x8b"
                part.seek(0)
                content = gzip.GzipFile(fileobj=part) if packed else part
                last = b""
                while block := content.read(1 << 24):
                    if any(word in last + block for word in words):
                        found.append(member.name)
                    last = block[-100:]
    return found


def test_no_secret_is_in_the_image(project: Project, tmp_path: Path) -> None:
    """Nor the credential of the API; .env and the environment of the build held them."""
    (image,) = images()
    docker("save", "--output", str(tmp_path / "image.tar"), image, timeout=300)
    assert found_in(tmp_path / "image.tar", SECRET.encode(), AUTH.encode()) == []
    assert found_in(tmp_path / "image.tar", b"def probe()")  # it looks into the layers


def test_an_image_that_was_built_before_is_used(project: Project) -> None:
    before = images()
    project.env["IMAGE_TAG"] = "built-before"
    try:
        assert "-> boxed:built-before" in project("plan")[1]
        code, told = project("apply", "--yes", "--skip-build")
        assert code == 0, told
        deployed = project.server("GET", "/deployments/name/probe/probe")
        assert deployed["job_variables"]["image"] == "boxed:built-before"
        assert images() == before
    finally:
        del project.env["IMAGE_TAG"]


def test_a_misspelt_job_variable_is_refused_before_anything_is_built_or_written(project: Project) -> None:
    file = project.folder / "prefect.yaml"
    right, before = file.read_text(), images()
    file.write_text(right.replace("image: ", "imagee: "))
    project.env["IMAGE_TAG"] = "misspelt"
    try:
        code, told = project("apply", "--yes")
        assert code == 1
        assert "unknown job variable imagee, did you mean image?" in told
        assert images() == before
    finally:
        del project.env["IMAGE_TAG"]
        file.write_text(right)


def test_make_dev_runs_flows_without_containers(project: Project) -> None:
    dev = Dev(project.folder, project.env, show=False)
    try:
        dev.wait_for("^Ready", 240)
        assert "Completed" in dev.wait_for(r"^First run +\w+$", 120)
        dev.wait_for("docker is for other environments: runs are processes of the pool boxed-local", 5)
    finally:
        dev.stop()
