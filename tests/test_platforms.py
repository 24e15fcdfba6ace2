"""The pipelines for GitLab and Azure: valid against the published schemas, sound shell, and the same stages as on GitHub."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml
from answers import DEFAULTS, ROOT, Render

BIN = Path(sys.executable).parent
AZURE = DEFAULTS["clouds"]["azure"]["registry"]
CLOUDS = [row["registry"] for row in DEFAULTS["clouds"].values() if row["registry"]]
ANSWERS: list[dict[str, str]] = [
    {},
    {"pool_type": "docker"},
    *({"pool_type": "docker", "image_registry": registry} for registry in ["ghcr.io/owner", "owner", *CLOUDS]),
    {"prefect_backend": "cloud", "pool_type": "managed", "database": "postgresql"},
]
FILES = {"gitlab": ".gitlab-ci.yml", "azure-devops": "azure-pipelines.yml"}
PLAN = "**Prefect plan**: 1 to create\n"
MARK = "<!-- what this changes on the Prefect API -->"


@pytest.fixture(params=ANSWERS, ids=lambda answers: "-".join(answers.values()) or "default", scope="module")
def answers(request: pytest.FixtureRequest) -> dict[str, str]:
    return request.param


def pipeline(ci: str, answers: dict[str, str], render: Render) -> tuple[Path, dict[str, Any]]:
    project = render(ci=ci, **answers)
    text = (project / FILES[ci]).read_text("utf-8")
    return project, yaml.safe_load(text.replace("!reference", ""))


def steps(part: Any) -> Iterator[dict[str, Any]]:
    """Yield everything in a pipeline for Azure that has shell to run."""
    if isinstance(part, dict):
        if part.keys() & {"bash", "script", "inlineScript"}:
            yield part
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from steps(one)


def shells(ci: str, content: dict[str, Any]) -> dict[str, str]:
    """Return the shell of each job or step."""
    if ci == "gitlab":
        jobs = {name: job for name, job in content.items() if isinstance(job, dict) and "script" in job}
        return {name: "\n".join(job["script"]) for name, job in jobs.items()}
    found = [next(step[key] for key in ("bash", "script", "inlineScript") if key in step) for step in steps(content)]
    return {f"step {number}": text for number, text in enumerate(found)}


def check(ci: str, file: Path) -> subprocess.CompletedProcess[str]:
    name = ci.removesuffix("-devops")
    schema = {"gitlab": "gitlab-ci", "azure": "azure-pipelines"}[name]
    command = [BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", "--data-transform", schema, file]
    command += ["--regex-variant", "nonunicode"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("ci", FILES)
def test_it_fits_the_published_schema(ci: str, answers: dict[str, str], render: Render, tmp_path: Path) -> None:
    project, _ = pipeline(ci, answers, render)
    file = tmp_path / "pipeline.yml"
    # Without the task of the AWS Toolkit: the schema contradicts the task's own definition of its input scriptType.
    text = (project / FILES[ci]).read_text("utf-8")
    text = re.sub(r"( +)- task: AWSShellScript@1\n(?:\1  .*\n)+", "", text)
    file.write_text(text, "utf-8")
    done = check(ci, file)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = {
        "gitlab": ("  stage: check", "  stge: 1"),
        "azure-devops": ("    displayName: Check", "    displayNam: Check"),
    }[ci]
    file.write_text(text.replace(*wrong), "utf-8")
    assert check(ci, file).returncode != 0


@pytest.mark.parametrize("ci", FILES)
def test_its_shell_is_sound(ci: str, answers: dict[str, str], render: Render, tmp_path: Path) -> None:
    _, content = pipeline(ci, answers, render)
    found = shells(ci, content)
    assert found
    for name, text in found.items():
        file = tmp_path / f"{name}.sh"
        file.write_text(f"#!/usr/bin/env bash\n{text}\n", "utf-8")
        done = subprocess.run([BIN / "shellcheck", file], capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout}\n{text}"
        assert not re.search(r"\$\((Build|System)\.|\$\{\{", text)  # what somebody names is never pasted into shell


@pytest.mark.parametrize("ci", FILES)
def test_it_does_what_github_does(ci: str, answers: dict[str, str], render: Render) -> None:
    _, content = pipeline(ci, answers, render)
    called = " ".join(re.findall(r"make ((?:--silent )?[^\n;&|]*)", "\n".join(shells(ci, content).values())))
    for target in ("lint", "test", "test-server", "audit", "plan"):
        assert f"{target} " in f"{called} "
    delivers = "image_registry" in answers or answers.get("pool_type") != "docker"
    boxed = "image_registry" in answers
    assert ("deploy" in called) == ("drift" in called) == delivers
    assert ("destroy ARGS=--yes" in called) == (boxed and (ci, answers["image_registry"]) != ("gitlab", AZURE))
    assert all((target in called) == boxed for target in ("published", "scan push", "deploy ARGS=--skip-build"))


@pytest.mark.parametrize("ci", FILES)
def test_settings_of_production_are_for_main_only(ci: str, render: Render) -> None:
    _, content = pipeline(ci, {"pool_type": "docker", "image_registry": "owner"}, render)
    if ci == "gitlab":
        assert content["drift"]["environment"] == {"name": "drift", "action": "verify"}
        assert content["plan"]["environment"]["name"] == "plan"
        return
    first, *others = [stage for stage in content["stages"] if "stage" in stage]
    groups = {one["stage"]: re.findall(r"'group': '(\w+)'", str(one)) for one in (first, *others)}
    assert groups == {
        "check": ["plan"],  # Azure holds a stage against the checks of all its groups, and this one is for all branches
        "image": ["registry"],
        "staging": ["staging"],
        "production": ["production"],
        "drift": ["production"],
    }
    for stage in others:
        assert "eq(variables['Build.SourceBranch'], 'refs/heads/main')" in stage["condition"] or (
            stage["condition"] == "eq(variables['Build.Reason'], 'Schedule')"
        )


# --- previews --------------------------------------------------------------------------------------------------


def previews(ci: str, render: Render) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Return the project, and the jobs or stages that make and remove a preview."""
    project, content = pipeline(ci, {"pool_type": "docker", "image_registry": "owner"}, render)
    if ci == "gitlab":
        return project, content["preview"], content["remove-preview"]
    ((asked, stages),) = content["stages"][-1].items()
    assert content["variables"]["PREVIEWS"] == "false"
    assert asked == "${{ if eq(variables.PREVIEWS, 'true') }}"
    return project, *stages


def test_gitlab_makes_a_preview_when_told_to_and_never_for_a_fork(render: Render) -> None:
    _, make, remove = previews("gitlab", render)
    _, content = pipeline("gitlab", {"pool_type": "docker", "image_registry": "owner"}, render)
    (rule,) = make["rules"]
    assert rule["if"].split(" && ") == [
        '$PREVIEWS == "true"',
        '$CI_PIPELINE_SOURCE == "merge_request_event"',
        "$CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_PROJECT_ID",
    ]
    assert content["preview-image"]["rules"] == [rule]
    assert content["preview-image"]["environment"]["action"] == "prepare"
    assert make["environment"]["on_stop"] == "remove-preview"
    assert remove["rules"] == [rule | {"when": "manual", "allow_failure": True}]
    assert remove["environment"] == {"name": make["environment"]["name"], "action": "stop"}
    assert {str(content[name]["variables"]) for name in ("preview", "preview-image", "remove-preview")} == {
        "{'PREVIEW': 'mr-$CI_MERGE_REQUEST_IID', 'IMAGE_TAG': 'mr-$CI_MERGE_REQUEST_IID-$CI_COMMIT_SHA'}"
    }


def test_azure_makes_a_preview_when_told_to_and_never_for_a_fork(render: Render) -> None:
    _, make, remove = previews("azure-devops", render)
    assert make["dependsOn"] == "check"
    assert "eq(variables['Build.Reason'], 'PullRequest')" in make["condition"]
    assert "ne(variables['System.PullRequest.IsFork'], 'True')" in make["condition"]
    assert remove["dependsOn"] == []  # that production has drifted keeps no preview alive
    assert remove["condition"] == "eq(variables['Build.Reason'], 'Schedule')"
    groups = [one["group"] for stage in (make, remove) for one in stage["variables"] if "group" in one]
    assert groups == ["preview", "preview"]


class Requests(BaseHTTPRequestHandler):
    """The pull requests of a repository: one is closed."""

    def do_GET(self) -> None:
        known = "s3cret" in f"{self.headers}" and self.path.split("?")[0].endswith(
            ("/pullRequests/7", "/pullRequests/12")
        )
        body = json.dumps({"status": "completed" if "/12?" in self.path else "active"}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("token", ["s3cret", "wrong"])
def test_azure_removes_the_previews_of_closed_pull_requests(token: str, render: Render, tmp_path: Path) -> None:
    _, _, remove = previews("azure-devops", render)
    (script,) = [step["bash"] for step in steps(remove) if "bash" in step]
    standing = [
        {"tags": ["preview", f"project:{name}"]}
        for name in ("my-flows.pr-7", "my-flows.pr-12", "my-flows-pr-9", "other.pr-12")
    ]
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name, text in {
        ".venv/bin/prefect": f"echo '{json.dumps([*standing, standing[1], {'tags': []}])}'",
        "make": 'echo "$PREVIEW $*"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        (tmp_path / name).chmod(0o755)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SYSTEM_COLLECTIONURI": f"http://127.0.0.1:{server.server_port}/",
        "SYSTEM_TEAMPROJECTID": "p",
        "BUILD_REPOSITORY_ID": "r",
        "TOKEN": token,
    }
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    server.shutdown()
    if token == "s3cret":
        assert (done.returncode, done.stdout) == (0, "pr-12 destroy ARGS=--yes\n"), done.stderr
    else:
        assert done.returncode != 0
        assert "destroy" not in done.stdout  # nobody said that it is closed


# --- updates of the template ------------------------------------------------------------------------------------


class Pulls(BaseHTTPRequestHandler):
    """Takes new pull requests."""

    seen: list[dict[str, str]]

    def do_POST(self) -> None:
        self.seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(201 if "s3cret" in f"{self.headers}" and "/pullrequests?" in self.path else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("ci", FILES)
def test_an_update_is_proposed_once(ci: str, render: Render, tmp_path: Path) -> None:
    def git(*arguments: str | Path) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments]
        return subprocess.run(command, cwd=work, capture_output=True, text=True, check=True).stdout

    def update() -> tuple[int, str]:
        with (work / ".copier-answers.yml").open("a", encoding="utf-8") as file:
            file.write("_commit: v0.9.0\n")
        done = subprocess.run(["bash", *flags, script], cwd=work, env=env, capture_output=True, text=True)
        git("checkout", "--quiet", "main")
        return done.returncode, done.stdout + done.stderr

    project, content = pipeline(ci, {}, render)
    flags = ["-eo", "pipefail", "-c"] if ci == "gitlab" else ["-c"]  # as each runs a step
    script = next(text for text in shells(ci, content).values() if "Update from the template: " in text)
    script = script.removeprefix("make update ARGS=--defaults\n")
    work, pushed = shutil.copytree(project, tmp_path / "work"), tmp_path / "pushed.git"
    git("init", "--quiet", "--initial-branch", "main")
    git("add", "--all")
    git("commit", "--quiet", "--message", "A commit")
    git("init", "--quiet", "--bare", pushed)
    git("--git-dir", pushed, "config", "receive.advertisePushOptions", "true")
    hook = pushed / "hooks/post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nenv | grep ^GIT_PUSH_OPTION_ | sort > options\n", "utf-8")
    hook.chmod(0o755)
    Pulls.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pulls)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "CI_PROJECT_URL": f"file://{pushed}".removesuffix(".git"),
        "UPDATE_TOKEN": "s3cret",
        "TOKEN": "s3cret",
        "BUILD_REPOSITORY_URI": f"file://{pushed}",
        "BUILD_SOURCEBRANCH": "refs/heads/main",
        "SYSTEM_COLLECTIONURI": f"http://127.0.0.1:{server.server_port}/",
        "SYSTEM_TEAMPROJECTID": "p",
        "BUILD_REPOSITORY_ID": "r",
    }
    done = subprocess.run(["bash", *flags, script], cwd=work, env=env, capture_output=True, text=True)
    assert done.stdout.startswith("Up to date"), done.stderr
    code, told = update()
    assert (code, "s3cret" in told) == (0, False), told
    assert ".copier-answers.yml" in git("--git-dir", pushed, "show", "--stat", "template-update-v0.9.0")
    if ci == "gitlab":
        options = (pushed / "options").read_text("utf-8")
        assert "=merge_request.create\n" in options
        assert "=merge_request.title=Update from the template: v0.9.0\n" in options
    else:
        (pull,) = Pulls.seen
        assert pull["sourceRefName"] == "refs/heads/template-update-v0.9.0"
        assert pull["targetRefName"] == "refs/heads/main"
    code, told = update()
    assert code == 0
    assert "Proposed before: " in told
    assert len(Pulls.seen) == (ci != "gitlab")
    server.shutdown()


# --- the plan as a comment, changed in place ----------------------------------------------------------------


class Api(BaseHTTPRequestHandler):
    """The notes of a merge request, or the threads of a pull request, in memory."""

    kept: list[dict[str, Any]]
    seen: list[str]

    def answer(self, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(200 if "s3cret" in f"{self.headers}" else 401)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        self.answer(self.kept if "notes" in self.path else {"value": self.kept})

    def write(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.seen.append(f"{self.command} {self.path.split('?')[0]}")
        if "notes" in self.path:
            body = parse_qs(sent, keep_blank_values=True)["body"][0]
            note = {"id": 5, "body": body}
        else:
            content = json.loads(sent)
            body = content["content"] if "content" in content else content["comments"][0]["content"]
            note = {"id": 5, "comments": [{"id": 1, "content": body}]}
        self.kept[:] = [*(one for one in self.kept if one["id"] != 5), note]
        self.answer(note)

    do_POST = do_PUT = do_PATCH = write

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def api() -> Iterator[ThreadingHTTPServer]:
    Api.kept, Api.seen = [{"id": 4, "body": "Good!", "comments": [{"id": 1, "content": "Good!"}]}], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.mark.parametrize("ci", FILES)
@pytest.mark.parametrize("fails", [False, True])
def test_the_plan_is_a_comment_that_is_changed_in_place(
    ci: str, fails: bool, api: ThreadingHTTPServer, render: Render, tmp_path: Path
) -> None:
    _, content = pipeline(ci, {}, render)
    make = tmp_path / "make"
    make.write_text(f"#!/bin/sh\nprintf '%s' '{PLAN}'\n[ \"$PREFECT_ENV\" = prod ] && exit {int(fails)}\n", "utf-8")
    make.chmod(0o755)
    url = f"http://127.0.0.1:{api.server_port}"
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PREFECT_API_URL": url,
        "ETL_SOURCE_TOKEN": "$(ETL_SOURCE_TOKEN)",  # as Azure gives what is not set
        "PLAN_TOKEN": "s3cret",
        "CI_API_V4_URL": url,
        "CI_PROJECT_ID": "1",
        "CI_MERGE_REQUEST_IID": "7",
        "AGENT_TEMPDIRECTORY": str(tmp_path),
        "SYSTEM_COLLECTIONURI": f"{url}/",
        "SYSTEM_TEAMPROJECTID": "p",
        "BUILD_REPOSITORY_ID": "r",
        "SYSTEM_PULLREQUEST_PULLREQUESTID": "7",
        "TOKEN": "s3cret",
    }
    if ci == "gitlab":
        parts = ["\n".join(content["plan"]["script"][1:])]
    else:
        (job,) = [job for job in content["stages"][0]["jobs"] if job["job"] == "plan"]
        parts = [step["bash"] for step in job["steps"] if "bash" in step]
    flags = ["-eo", "pipefail", "-c"] if ci == "gitlab" else ["-c"]  # as each runs a step
    for _ in range(2):
        for number, text in enumerate(parts):
            done = subprocess.run(["bash", *flags, text], cwd=tmp_path, env=env, capture_output=True, text=True)
            assert (done.returncode != 0) == (fails and number == 0), done.stdout + done.stderr
            assert "s3cret" not in done.stdout + done.stderr
    assert len(Api.kept) == 2  # one of somebody else, and ours
    assert MARK in str(Api.kept[1])
    assert "1 to create" in str(Api.kept[1])
    first, second = Api.seen
    assert first.startswith("POST ")
    assert second.split()[0] in ("PUT", "PATCH")
    assert second.split()[1].startswith(first.split()[1] + "/5")


@pytest.mark.parametrize("ci", FILES)
@pytest.mark.parametrize("told", ["No plan", "Not compared", "No production"])
def test_without_settings_nothing_is_done(ci: str, told: str, render: Render, tmp_path: Path) -> None:
    if (ci, told) == ("gitlab", "No production"):
        return  # there, somebody starts it, and is told what is missing
    _, content = pipeline(ci, {}, render)
    text = next(text for text in shells(ci, content).values() if f"{told}: " in text)
    text = text.removeprefix("make .venv/.synced\n")
    for url in ("", "$(PREFECT_API_URL)"):
        if url and ci == "gitlab":
            continue
        env = {"PATH": os.environ["PATH"], "PREFECT_API_URL": url}
        done = subprocess.run(["bash", "-e", "-c", text], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stdout.split(":")[0]) == (0, told), done.stderr


@pytest.mark.parametrize("ci", ["github", *FILES])
@pytest.mark.parametrize("pool", ["process", "docker", "kubernetes"])
def test_renovate_reads_its_configuration_and_finds_what_each_row_is_for(ci: str, pool: str, render: Render) -> None:
    project = render(ci=ci, pool_type=pool)
    file = project / "renovate.json"
    done = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.renovate", file, ROOT / "renovate.json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(file.read_text("utf-8"))
    named = {"docker-compose": "compose.yaml", "dockerfile": "Dockerfile"}
    assert all((project / name).exists() == (manager in content["enabledManagers"]) for manager, name in named.items())
    found = []
    for manager in content["customManagers"]:
        pattern = re.compile(manager["matchStrings"][0].replace("(?<", "(?P<"))
        for path in manager["managerFilePatterns"]:
            text = (project / path.strip("/^$")).read_text("utf-8")
            matches = [one.groupdict() | {"file": path.strip("/^$")} for one in pattern.finditer(text)]
            assert matches, manager["description"]
            found += [(one["file"], one.get("depName") or manager["depNameTemplate"]) for one in matches]
    assert {("Makefile", "uv")} <= set(found)
    assert (("Dockerfile", "uv") in found) == (("Makefile", "anchore/grype") in found) == (pool != "process")
    assert (("helm/targets.mk", "prefect-worker") in found) == (pool == "kubernetes")
    texts = [path.read_text("utf-8") for path in project.rglob("*") if path.is_file() and path != file]
    for rule in content.get("packageRules", []):
        (name,) = rule["matchPackageNames"]
        assert any(re.search(rf"(: |=){name}:", text) for text in texts), f"nothing to find for {name}"


def test_renovate_raises_each_image_of_the_template() -> None:
    found = set()
    for manager in json.loads((ROOT / "renovate.json").read_text("utf-8"))["customManagers"]:
        pattern = re.compile(manager["matchStrings"][0].replace("(?<", "(?P<"))
        (path,) = manager["managerFilePatterns"]
        text = (ROOT / path.strip("/^$").replace("\\", "")).read_text("utf-8")
        found |= {one["currentValue"] for one in pattern.finditer(text)}
    compose = re.findall(r"image: .+:(\S+)$", (ROOT / "template/compose.yaml.jinja").read_text("utf-8"), re.MULTILINE)
    versions = DEFAULTS["versions"]
    wanted = {*compose, *versions["python_images"].values(), versions["grype"], versions["buildkit"]}
    assert found == {one for one in wanted if "{{" not in one and "}}" not in one}


def test_renovate_pins_what_builds_and_scans(render: Render) -> None:
    manager = json.loads((render(pool_type="docker") / "renovate.json").read_text("utf-8"))["customManagers"][0]
    pattern = re.compile(manager["matchStrings"][0].replace("(?<", "(?P<"))
    pinned = pattern.search(f"anchore/grype:v1.2.3@sha256:{'0f' * 32} ")
    assert pinned
    assert pinned["currentDigest"] == f"sha256:{'0f' * 32}"


def test_the_tested_date_is_raised_in_both_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("Makefile", "pyproject.toml", "data/versions.yml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for day, works in (("tomorrow", False), ("", False), ("2027-01-31", True)):
        done = subprocess.run(["make", "raise", f"DATE={day}"], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode == 0) == works, done.stdout
    assert 'exclude-newer = "2027-01-31T00:00:00Z"' in (tmp_path / "pyproject.toml").read_text("utf-8")
    assert yaml.safe_load((tmp_path / "data/versions.yml").read_text("utf-8"))["tested_on"] == "2027-01-31"
    assert {file.name for file in tmp_path.iterdir()} == {"Makefile", "data", "pyproject.toml"}
