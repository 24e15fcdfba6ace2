"""Image size, rebuild after a change of code, and start of a container: the generated Dockerfile against a plain one.

The plain one is what most projects start with: one stage, `COPY . .`, `pip install .`. Both are built on one base image
and run by one Docker worker, in turn, with Prefect's default command; ours with the engine as its command, too, which
cannot be cancelled. Needs a Docker engine.

    .venv/bin/python benchmarks/image.py [ROUNDS]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/live"), str(ROOT / "benchmarks")]

from engine import docker, missing, provide, size  # noqa: E402
from first_run import background, machine  # noqa: E402
from ops_server import Server  # noqa: E402
from test_docker import DEPLOYMENT, FLOW, Project  # noqa: E402

from demo import render, without_prefect_settings  # noqa: E402

PLAIN = """\
FROM {base}
RUN python -m venv /venv
WORKDIR /app
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip /venv/bin/pip install -c constraints.txt .
ENV PATH=/venv/bin:$PATH
"""


def build(folder: Path, name: str, dockerfile: str) -> float:
    """Build an image and return the seconds that it took."""
    started = time.monotonic()
    docker(
        "buildx",
        "build",
        "--quiet",
        "--load",
        "--tag",
        name,
        "--file",
        str(folder / dockerfile),
        str(folder),
        timeout=600,
    )
    return time.monotonic() - started


def seconds_to_running(server: Server, run: str) -> float:
    """Return the seconds from the worker's submission of a completed run to its start in the container."""
    states = server("GET", f"/flow_run_states/?flow_run_id={run}")
    at = {state["type"]: datetime.fromisoformat(state["timestamp"]) for state in reversed(states)}
    if "COMPLETED" not in at:
        sys.exit(f"run {run} ended as {states[-1]}")
    return (at["RUNNING"] - at["PENDING"]).total_seconds()


def main(rounds: int = 5) -> None:
    if why := missing():
        sys.exit(why)
    env = without_prefect_settings({k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "boxed"
        render(folder, "project_name=boxed", "pool_type=docker", "ci=none")
        base = (folder / "Dockerfile").read_text().split("ARG PYTHON_IMAGE=")[1].split()[0]
        provide(base, Path(scratch))
        (folder / "flows/probe.py").write_text(FLOW)
        with (folder / "prefect.yaml").open("a") as file:
            file.write(DEPLOYMENT)
        subprocess.run(["make", "--silent", ".venv/.synced"], cwd=folder, env=env, check=True)
        subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
        export = ["uv", "export", "--no-dev", "--no-emit-project", "--no-hashes", "--quiet", "-o", "constraints.txt"]
        subprocess.run(export, cwd=folder, env=env, check=True)
        (folder / "Dockerfile.plain").write_text(PLAIN.format(base=base))
        with (folder / ".dockerignore").open("a") as file:
            file.write("!constraints.txt\n")
        home = Path(scratch) / "home"
        home.mkdir()
        server = Server(home, env)
        project = Project(folder, server, env | {"IMAGE_TAG": "ours"})
        images = {"ours": "Dockerfile", "plain": "Dockerfile.plain"}
        ways = {  # of a start: the image, and job variables
            "ours": ("ours", {}),
            "engine": ("ours", {"command": "python -m prefect.engine"}),
            "plain": ("plain", {"container_create_kwargs": {}}),
        }
        rebuilt: dict[str, list[float]] = {image: [] for image in images}
        started: dict[str, list[float]] = {way: [] for way in ways}
        for image, dockerfile in images.items():
            build(folder, f"boxed:{image}", dockerfile)
        for _ in range(rounds):
            (folder / "flows/changed.py").write_text(f"NOW = {time.time_ns()}\n")  # that no earlier build has cached
            for image, dockerfile in images.items():
                rebuilt[image].append(build(folder, f"boxed:{image}", dockerfile))
        with server:
            code, told = project("apply", "--yes", "--skip-build")
            assert code == 0, told
            deployment = server("GET", "/deployments/name/probe/probe")["id"]
            with background([".venv/bin/python", "-m", "ops", "worker"], folder, project.env):
                for number in range(rounds + 1):  # the first does not count
                    for way, (image, variables) in ways.items():
                        body = {"job_variables": {"image": f"boxed:{image}", **variables}}
                        run = server("POST", f"/deployments/{deployment}/create_flow_run", body)["id"]
                        while server("GET", f"/flow_runs/{run}")["state_type"] in ("SCHEDULED", "PENDING", "RUNNING"):
                            time.sleep(0.5)
                        if number:
                            started[way].append(seconds_to_running(server, run))
        print(f"\n{machine()}, base image {size(base):.0f} MB, {rounds} rounds, medians (from, to)")
        for image in images:
            print(f"{image:6} {size(f'boxed:{image}'):4.0f} MB  rebuild {told_of(rebuilt[image])}")
        for way in ways:
            print(f"{way:6} start {told_of(started[way])}")
        docker("image", "rm", "--force", *(f"boxed:{image}" for image in images))


def told_of(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} s ({min(seconds):.1f}, {max(seconds):.1f})"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
