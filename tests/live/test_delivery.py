"""The whole way of a change, by the steps of the generated workflows: test, build, plan, preview, staging, approval,
production, drift, back; on two Prefect servers, with stand-ins for docker and for gh."""

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from github import Environment, GitHub, git
from ops_server import AUTH, SECRET, SETTINGS, Server

from demo import render

pytestmark = [pytest.mark.live, pytest.mark.slow]

DOCKER = """\
#!/bin/bash
# Keeps in $PUSHED the names of the images that were pushed.
echo "docker $*" >> "$CALLS"
for word; do [ "$before" != --tag ] || image="$word"; before="$word"; done
case "$*" in
  login*) cat > /dev/null ;;
  "buildx imagetools inspect "*) grep -qxF "$before" "$PUSHED" ;;
  "buildx build --push "*)
    echo "$image" >> "$PUSHED"
    printf '{"image.name": "%s", "containerimage.digest": "sha256:0"}' "$image" > .image.json ;;
esac
"""
GH = """\
#!/bin/bash
case "$*" in
  *--paginate* | *deployments*) ;;
  *) cp "$RUNNER_TEMP/body" "$COMMENT" ;;
esac
"""
IMAGE = "ghcr.io/me/my-flows"
RELEASE = {"github.event.repository.visibility": "private", "inputs.commit": ""}
PULL_REQUEST = {
    "github.event.action": "synchronize",
    "github.event.pull_request.number": 7,
    "github.event.pull_request.head.repo.full_name": "me/my-flows",
    "github.repository": "me/my-flows",
}
TO_STAGING = ("check", "image", "staging")
CHECKED = ("check",)  # by the first release: once is enough


class Advisories(BaseHTTPRequestHandler):
    """A database of vulnerabilities that knows none."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"results": [{} for _ in asked["queries"]]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def clean(env: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if not name.startswith("PREFECT_") and name != "SLA_MINUTES"}


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in a repository of its own, on main."""
    folder = tmp_path_factory.mktemp("delivery") / "my-flows"
    render(folder, "project_name=my-flows", "pool_type=docker", "image_registry=ghcr.io/me")
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Create the project")
    return folder


@pytest.fixture(scope="module")
def work(origin: Path, clean: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of it, in which the runner has installed the project; its lock file is on main, too."""
    folder = tmp_path_factory.mktemp("github") / "work"
    git(origin, "clone", "--quiet", str(origin), str(folder))
    subprocess.run(["make", "--silent", ".venv/.synced"], cwd=folder, env=clean, check=True)
    (folder / "uv.lock").rename(origin / "uv.lock")
    git(origin, "add", "--all")
    git(origin, "commit", "--quiet", "--message", "Lock the dependencies")
    return folder


@pytest.fixture(scope="module")
def servers(clean: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    staging, prod = (Server(tmp_path_factory.mktemp(name), clean) for name in ("staging", "prod"))
    with staging, prod:
        yield {"staging": staging, "prod": prod}


@pytest.fixture(scope="module")
def advisories() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Advisories)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def github(
    work: Path,
    servers: dict[str, Server],
    advisories: str,
    clean: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> GitHub:
    """The repository on GitHub: environments with a server each, and a runner."""
    folder = tmp_path_factory.mktemp("runner")
    for name, text in {"docker": DOCKER, "gh": GH}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "registry").touch()
    held = {name: value for name, value in SETTINGS.items() if name in ("ALERT_WEBHOOK_URL", "ETL_SOURCE_TOKEN")}

    def environment(server: Server, row: str) -> Environment:
        secrets = held | {"PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": AUTH}
        return Environment(secrets, {"PREFECT_ENV": row} if row else {})

    runner = {
        "CALLS": str(folder / "calls"),
        "COMMENT": str(folder / "comment"),
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PUSHED": str(folder / "registry"),
    }
    repository = environment(servers["prod"], "")
    repository.vars["PREVIEWS"] = "true"
    return GitHub(
        work=work,
        env=clean | runner,
        repository=repository,
        environments={
            "staging": environment(servers["staging"], "staging"),
            "production": environment(servers["prod"], ""),
            "preview": environment(servers["staging"], "preview"),
        },
        stand_ins={"make audit": f"make audit ARGS='--service-url {advisories}'"},
    )


def deployed(server: Server) -> dict[str, dict[str, Any]]:
    found = server("POST", "/deployments/filter", {})
    return {
        one["name"]: {
            "image": one["job_variables"]["image"],
            "cron": [s["schedule"]["cron"] for s in one["schedules"]],
            "active": [s["active"] for s in one["schedules"]],
        }
        for one in found
    }


def images(github: GitHub) -> list[str]:
    return Path(github.env["PUSHED"]).read_text().split()


def commit(origin: Path, file: str, old: str, new: str) -> str:
    text = (origin / file).read_text()
    assert old in text
    (origin / file).write_text(text.replace(old, new))
    git(origin, "commit", "--quiet", "--all", "--message", f"Change {file}")
    return git(origin, "rev-parse", "HEAD")


def standing(github: GitHub, server: Server, folder: Path) -> list[str]:
    """Return the pull requests of the previews that the pipeline for Azure finds on a server."""
    if not folder.exists():
        render(folder, "project_name=my-flows", "pool_type=docker", "image_registry=ghcr.io/me", "ci=azure-devops")
    (find,) = re.findall(r'(?s)standing="\$\((.+?)\)"\n', (folder / "azure-pipelines.yml").read_text("utf-8"))
    env = github.env | {"PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": AUTH}
    done = subprocess.run(["bash", "-c", find], cwd=github.work, env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_change_goes_all_the_way_and_back(
    origin: Path, github: GitHub, servers: dict[str, Server], tmp_path: Path
) -> None:
    staging, prod = servers["staging"], servers["prod"]
    first = git(origin, "rev-parse", "HEAD")

    # The first release, as far as a reviewer has not said yes.
    assert github("deploy", "push", sha=first, jobs=TO_STAGING, **RELEASE) == {
        "check": "success",
        "image": "success",
        "staging": "success",
        "production": "not run",
        "drift": "skipped",
    }, github.told[-1]
    assert images(github) == [f"{IMAGE}:{first}"]
    on_staging = deployed(staging)
    assert on_staging["etl-daily"] == {"image": f"{IMAGE}:{first}", "cron": ["0 2 * * *"], "active": [False]}
    assert deployed(prod) == {}

    # The reviewer does.
    ended = github("deploy", "push", sha=first, passed=CHECKED, **RELEASE)
    assert ended["production"] == "success", github.told[-1]
    assert deployed(prod)["etl-daily"]["active"] == [True]
    assert github("deploy", "schedule", sha=first, **RELEASE)["drift"] == "success", github.told[-1]

    # Once more: nothing is built, nothing is written.
    calls = Path(github.env["CALLS"])
    calls.unlink()
    assert github("deploy", "push", sha=first, passed=CHECKED, **RELEASE)["production"] == "success"
    assert "buildx build" not in calls.read_text()
    assert [one for one in github.told[-6:] if "make deploy" in one and "0 written, " not in one] == []

    # A pull request: its plan, a preview on staging's server, and both leave what is deployed alone.
    git(origin, "switch", "--quiet", "--create", "later")
    second = commit(origin, "prefect.yaml", '"0 2 * * *"', '"0 3 * * *"')
    ended = github("ci", "pull_request", sha=second, jobs=("plan", "comment", "preview"), **PULL_REQUEST)
    assert {ended[name] for name in ("plan", "comment")} == {"success"}, github.told[-1]
    comment = Path(github.env["COMMENT"]).read_text()
    assert re.search(
        r"! deployment etl/etl-daily\n(    .*\n)*    schedules\.daily.*0 2 \* \* \* -> 0 3 \* \* \*", comment
    )
    assert deployed(staging).keys() == on_staging.keys()
    ended = github("ci", "pull_request", sha=second, passed=CHECKED, jobs=("preview",), **PULL_REQUEST)
    assert ended["preview"] == "success", github.told[-1]
    shown = deployed(staging)
    assert shown.keys() == on_staging.keys() | {f"pr-7-{name}" for name in on_staging}
    assert shown["pr-7-etl-daily"] == {
        "image": f"{IMAGE}:pr-7-{second}",
        "cron": ["0 3 * * *"],
        "active": [False],
    }
    assert standing(github, staging, tmp_path / "azure") == ["7"]
    closed = PULL_REQUEST | {"github.event.action": "closed"}
    assert github("ci", "pull_request", sha=second, **closed)["remove-preview"] == "success", github.told[-1]
    assert deployed(staging) == on_staging
    assert standing(github, staging, tmp_path / "azure") == []

    # Merged: both servers have it.
    git(origin, "switch", "--quiet", "main")
    git(origin, "merge", "--quiet", "later")
    assert github("deploy", "push", sha=second, passed=CHECKED, **RELEASE)["production"] == "success", github.told[-1]
    for server in (staging, prod):
        assert deployed(server)["etl-daily"]["cron"] == ["0 3 * * *"]
        assert deployed(server)["etl-daily"]["image"] == f"{IMAGE}:{second}"

    # Somebody changes production by hand: the night's check tells.
    id = prod("GET", "/deployments/name/etl/etl-daily")["id"]
    prod("PATCH", f"/deployments/{id}", {"description": "By hand"})
    assert github("deploy", "schedule", sha=second, **RELEASE)["drift"] == "failure"
    assert "description: By hand -> Load yesterday's orders" in github.told[-1]

    # Back: with the image of then, built by nobody, after which main is what production is not.
    calls.unlink()
    back = RELEASE | {"inputs.commit": first}
    ended = github("deploy", "workflow_dispatch", sha=second, **back)
    assert ended == {
        "check": "skipped",
        "image": "success",
        "staging": "success",
        "production": "success",
        "drift": "skipped",
    }, github.told[-1]
    assert "buildx build" not in calls.read_text()
    assert deployed(prod)["etl-daily"] == {"image": f"{IMAGE}:{first}", "cron": ["0 2 * * *"], "active": [True]}
    assert prod("GET", f"/deployments/{id}")["description"] == "Load yesterday's orders"
    assert github("deploy", "schedule", sha=second, **RELEASE)["drift"] == "failure"
    assert "0 2 * * * -> 0 3 * * *" in github.told[-1]


@pytest.mark.parametrize("commit_of", ["a branch", "nobody's image"])
def test_there_is_no_way_back_to_what_was_not_delivered(commit_of: str, origin: Path, github: GitHub) -> None:
    if commit_of == "a branch":
        git(origin, "switch", "--quiet", "--create", "not-merged")
        sha = commit(origin, "prefect.yaml", "[etl, daily]", "[etl]")
        git(origin, "switch", "--quiet", "main")
    else:
        sha = commit(origin, "prefect.yaml", "[ml, weekly]", "[ml]")
    main = git(origin, "rev-parse", "main")
    ended = github("deploy", "workflow_dispatch", sha=main, **RELEASE | {"inputs.commit": sha})
    assert (ended["image"], ended["staging"], ended["production"]) == ("failure", "not run", "not run")
    assert "::error title=Not deployed::" in github.told[-1]


@pytest.mark.parametrize("fault", ["a test", "the scan", "staging"])
def test_what_fails_stops_the_delivery(
    fault: str, origin: Path, github: GitHub, servers: dict[str, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: deployed(server) for name, server in servers.items()}
    built, passed = images(github), ()
    if fault == "a test":
        sha = commit(origin, "prefect.yaml", "batch_size: 1000", "batch_sise: 1000")
        wanted = {"check": "failure", "image": "not run", "staging": "not run", "production": "not run"}
    elif fault == "the scan":
        sha = commit(origin, "prefect.yaml", "batch_sise: 1000", "batch_size: 1000")
        monkeypatch.setitem(github.stand_ins, "make scan", "echo CVE-0; exit 1")
        passed = CHECKED
        wanted = {"check": "success", "image": "failure", "staging": "not run", "production": "not run"}
    else:
        sha = git(origin, "rev-parse", "HEAD")
        monkeypatch.setitem(github.environments["staging"].secrets, "PREFECT_API_URL", "http://127.0.0.1:9/api")
        passed = CHECKED
        wanted = {"check": "success", "image": "success", "staging": "failure", "production": "not run"}
    assert github("deploy", "push", sha=sha, passed=passed, **RELEASE) == wanted | {"drift": "skipped"}, github.told[-1]
    assert {name: deployed(server) for name, server in servers.items()} == before
    assert images(github) == [*built, *([f"{IMAGE}:{sha}"] if fault == "staging" else [])]
    if fault == "a test":
        assert "unknown parameter batch_sise, did you mean batch_size?" in github.told[-1]


def test_no_secret_was_printed(github: GitHub) -> None:
    told = "".join(github.told)
    assert "make deploy" in told
    for secret in (SECRET, AUTH, AUTH.split(":")[1], "ghs_hush"):
        assert secret not in told
    assert SECRET not in Path(github.env["COMMENT"]).read_text()


def test_a_commit_is_looked_at_before_it_is_made(work: Path, clean: dict[str, str]) -> None:
    def hooks() -> tuple[int, str]:
        git(work, "add", "--all")
        command = [".venv/bin/pre-commit", "run", "--all-files"]
        done = subprocess.run(command, cwd=work, env=clean, capture_output=True, text=True)
        return done.returncode, done.stdout

    code, told = hooks()
    assert code == 0, told
    wrong = {
        "key.pem": "-----BEGIN RSA PRIVATE KEY-----\n",
        "a.yaml": "a: [\n",
        "b.toml": "b =\n",
        "c.md": "<<<<<<< mine\n",
    }
    for name, text in wrong.items():
        (work / name).write_text(text)
    code, told = hooks()
    assert code == 1
    failed = re.findall(r"^(.+?)\.+Failed$", told, re.MULTILINE)
    assert failed == ["secrets", "conflict markers", "YAML can be read", "TOML can be read", "no private key"]
