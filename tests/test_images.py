"""The image, compose.yaml and the build in prefect.yaml, for every project that runs in containers."""

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest
import yaml
from answers import CHOICES, ROOT, Render
from prefect.settings import Settings
from prefect_redis.cleanup_queue import RedisWorkerCleanupQueueSettings

BIN = Path(sys.executable).parent
VERSIONS = yaml.safe_load((ROOT / "data/versions.yml").read_text("utf-8"))
POOLS = yaml.safe_load((ROOT / "data/pools.yml").read_text("utf-8"))
IMAGES = [name for name in CHOICES["pool_type"] if POOLS[name]["image"]]
FILES = {"Dockerfile", ".dockerignore", "compose.yaml"}


def files(project: Path) -> set[str]:
    return {name for name in FILES if (project / name).exists()}


def test_without_containers_there_is_no_file_for_them(project: Path) -> None:
    assert files(project) == set()


@pytest.mark.parametrize("pool", IMAGES)
@pytest.mark.parametrize("backend", CHOICES["prefect_backend"])
def test_files_for_containers(pool: str, backend: str, render: Render) -> None:
    if backend not in POOLS[pool]["backends"]:
        pytest.skip("is refused")
    project = render(pool_type=pool, prefect_backend=backend)
    on_one_machine = backend == "server" and pool != "kubernetes"  # there, helm/server.yaml is the server
    assert files(project) == (FILES if on_one_machine else FILES - {"compose.yaml"})


@pytest.mark.parametrize("python", CHOICES["python_version"])
def test_the_dockerfile_is_linted_and_unprivileged(python: str, render: Render) -> None:
    project = render(pool_type="docker", python_version=python)
    done = subprocess.run([BIN / "hadolint", project / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (project / "Dockerfile").read_text("utf-8").splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert bases == ["${PYTHON_IMAGE}", "dependencies", "${PYTHON_IMAGE}"]  # a mirror replaces one argument
    assert next(line for line in lines if line.startswith("ARG")).startswith(f"ARG PYTHON_IMAGE=python:{python}.")
    assert "USER 10001:10001" in lines


@pytest.mark.parametrize("pool", IMAGES)
def test_only_what_the_command_of_a_run_needs_is_in_the_image(pool: str, render: Render) -> None:
    backend = POOLS[pool]["backends"][0]
    text = (render(pool_type=pool, prefect_backend=backend) / "Dockerfile").read_text("utf-8")
    found = re.search(r'ARG SERVER_ONLY="([^"]+)"', text)
    assert (found is not None) == ("worker" in POOLS[pool])
    if found:
        needed = {re.split("[^a-z0-9-]", one.lower())[0] for one in requires("prefect") or [] if "extra ==" not in one}
        assert set(found[1].replace("\\", "").split()) <= needed


@pytest.mark.parametrize("registry", ["", "ghcr.io/owner", "localhost:5000/a/b"])
def test_the_image_is_built_once_and_pushed_where_there_is_a_registry(registry: str, render: Render) -> None:
    content = yaml.safe_load((render(pool_type="docker", image_registry=registry) / "prefect.yaml").read_text("utf-8"))
    (step,) = content["build"]
    inputs = step["prefect_docker.deployments.steps.build_docker_image"]
    assert inputs["image_name"] == f"{registry}/my-flows".lstrip("/")
    assert ("push" in content) == (registry != "")
    assert all("build" not in deployment for deployment in content["deployments"])
    assert all(d["work_pool"]["job_variables"] == {"image": "{{ image.image }}"} for d in content["deployments"])


def test_compose_is_pinned_checked_and_shows_nothing_without_a_password(render: Render) -> None:
    compose = yaml.safe_load((render(pool_type="docker") / "compose.yaml").read_text("utf-8"))
    services = compose["services"]
    assert services.keys() == {"postgres", "redis", "migrate", "server", "proxy", "services", "worker", "worker-heavy"}
    for name, service in services.items():
        assert not service["image"].endswith(("latest", ":3")), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "healthcheck" in services["postgres"].keys() & services["redis"].keys() & services["server"].keys()
    assert services["server"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"].startswith(
        "${PREFECT_SERVER_API_AUTH_STRING:?"
    )
    assert compose["volumes"].keys() == {"postgres", "redis"}
    server = services["server"]["environment"]
    assert server["PREFECT_UI_API_URL"] == "/api"  # of whatever address a browser came by
    assert server["PREFECT_UI_URL"]  # alerts have no links without it
    worker = services["worker"]["environment"]
    assert re.fullmatch(r"prefect-docker==[0-9.]+", worker["EXTRA_PIP_PACKAGES"])
    assert worker["UV_EXCLUDE_NEWER"] == f"{VERSIONS['tested_on']}T00:00:00Z"
    assert version("prefect-docker") == VERSIONS["prefect_docker"]  # what the live tests run


@pytest.mark.parametrize("pool", ["docker", "kubernetes"])
def test_what_workers_have_still_to_stop_goes_through_redis(
    pool: str, render: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has several processes: one learns of it, and the worker is connected to one of them."""
    project = render(pool_type=pool)
    if pool == "docker":
        env = yaml.safe_load((project / "compose.yaml").read_text("utf-8"))["x-server"]
    else:
        rows = yaml.safe_load((project / "helm/server.yaml").read_text("utf-8"))["global"]["prefect"]["env"]
        env = {one["name"]: one.get("value", "redis://:secret@redis:6379/1") for one in rows}
    for name, value in env.items():
        if "CLEANUP_QUEUE" in name:
            monkeypatch.setenv(name, value)
    assert Settings().server.worker_channel.cleanup_queue_storage == RedisWorkerCleanupQueueSettings.__module__
    found = RedisWorkerCleanupQueueSettings()
    assert "redis" in (found.url or found.host)


def test_doctor_knows_what_compose_asks_for(render: Render) -> None:
    """PREFECT_SERVER_API_AUTH_STRING was taken for a misspelt PREFECT_API_AUTH_STRING."""
    folder = render(pool_type="docker", observability=["prometheus"])
    asked = set(re.findall(r"\$\{([A-Z_]+)", (folder / "compose.yaml").read_text("utf-8")))
    assert asked >= {"POSTGRES_PASSWORD", "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_UI_URL"}
    (folder / ".env").write_text("".join(f"{name}=given\n" for name in sorted(asked | {"ALERT_WEBHOOK_URL"})))
    told = "from ops.doctor import try_settings; print(*[line for right, line in try_settings() if not right])"
    done = subprocess.run([sys.executable, "-c", told], cwd=folder, env={"PATH": ""}, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("registry", ["", "ghcr.io/owner"])
def test_the_workers_of_compose_have_the_login_to_the_registry(registry: str, render: Render) -> None:
    services = yaml.safe_load((render(pool_type="docker", image_registry=registry) / "compose.yaml").read_text("utf-8"))
    mounted = services["services"]["worker"]["volumes"]
    assert ("${DOCKER_CONFIG:-~/.docker}:/root/.docker:ro" in mounted) == (registry != "")


@pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx (apt-get install nginx-light)")
def test_the_proxy_of_compose_is_valid_for_nginx(render: Render, tmp_path: Path) -> None:
    compose = yaml.safe_load((render(pool_type="docker") / "compose.yaml").read_text("utf-8"))
    content = compose["configs"]["proxy"]["content"].replace("$$", "$")
    here = content.replace("listen 4200", "listen 127.0.0.1:4200")
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{here}}}\n")
    command = ["nginx", "-t", "-e", f"{tmp_path}/log", "-p", str(tmp_path), "-c", f"{tmp_path}/nginx.conf"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0,
    reason="needs Docker's plugin compose",
)
def test_compose_is_valid_for_docker(render: Render) -> None:
    folder = render(pool_type="docker", image_registry="ghcr.io/owner")
    command = ["docker", "compose", "config", "--format", "json"]
    refused = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert "set it in .env" in refused.stderr
    (folder / ".env").write_text("PREFECT_SERVER_API_AUTH_STRING=admin:secret\nPOSTGRES_PASSWORD=secret\n")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    login = {one["target"]: one["source"] for one in json.loads(done.stdout)["services"]["worker"]["volumes"]}
    assert Path(login["/root/.docker"]).is_absolute()
