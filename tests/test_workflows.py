"""The workflows, of every project that can be generated and of this repository: valid, safe, pinned, complete."""

import ast
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import yaml
from answers import CHOICES, ROOT, Render

BIN = Path(sys.executable).parent
WORKFLOWS = [*ROOT.glob(".github/workflows/*"), *ROOT.glob("template/.github/workflows/*")]
PINNED = re.compile(r"\s*(?:- )?uses: (?P<action>[^@\s]+)@(?P<pin>[0-9a-f]{40} # v\d+\.\d+\.\d+)")
BACKENDS = yaml.safe_load((ROOT / "data/backends.yml").read_text("utf-8"))
API = "http://127.0.0.1:1/api"

QUESTIONS = ("prefect_backend", "database", "alert_channels")  # whose answers change the workflow
ANSWERS = [dict(zip(QUESTIONS, row, strict=True)) for row in product(*(CHOICES[name] for name in QUESTIONS))]
ANSWERS.append({"alert_channels": CHOICES["alert_channels"][-1], "alert_on": ()})  # channels that nothing uses


@pytest.fixture(scope="module", params=ANSWERS, ids=lambda answers: "-".join(map(str, answers.values())))
def each(request: pytest.FixtureRequest, render: Render) -> Path:
    """One project after the other, for every combination of the answers that change the workflow."""
    return render(**request.param)


def read_workflow(project: Path) -> dict:
    return yaml.safe_load((project / ".github/workflows/ci.yml").read_text("utf-8"))


def audit(*workflows: Path) -> None:
    """Fail unless actionlint and zizmor, at its most pedantic, have nothing to say about `workflows`."""
    assert workflows
    for command in (["actionlint"], ["zizmor", "--offline", "--quiet", "--persona", "pedantic"]):
        done = subprocess.run([BIN / command[0], *command[1:], *workflows], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_of_this_repository_pass_the_auditors() -> None:
    audit(*ROOT.glob(".github/workflows/*"))


def test_generated_workflows_pass_the_auditors(each: Path) -> None:
    audit(*each.glob(".github/workflows/*"))


@pytest.mark.parametrize("registry", ["", "ghcr.io/owner", "owner"])
def test_the_image_is_pushed_before_a_deployment_or_nothing_is_deployed(registry: str, render: Render) -> None:
    project = render(pool_type="docker", image_registry=registry)
    audit(*project.glob(".github/workflows/*"))
    workflow = read_workflow(project)
    assert workflow["env"]["IMAGE_TAG"] == "${{ github.sha }}"
    assert ("deploy" in workflow["jobs"]) == (registry != "")  # an image that stays on the runner is lost
    if registry:
        login = workflow["jobs"]["deploy"]["steps"][-2]
        assert login["run"].startswith(f"docker login {'ghcr.io' if '.' in registry else 'docker.io'} ")
        assert login["env"].keys() == {"REGISTRY_USERNAME", "REGISTRY_PASSWORD"}


def test_every_action_has_one_pin_everywhere() -> None:
    pins: dict[str, str] = {}
    for file in WORKFLOWS:
        uses = [line for line in file.read_text("utf-8").splitlines() if re.match(r"\s*(- )?uses:", line)]
        assert uses, file
        for line in uses:
            found = PINNED.fullmatch(line)
            assert found, f"{file}: not pinned by a commit with its version in a comment: {line}"
            assert pins.setdefault(found["action"], found["pin"]) == found["pin"], f"{file}: {line}"


def test_no_job_may_do_more_than_read_the_code(project: Path) -> None:
    for workflow in (read_workflow(ROOT), read_workflow(project)):
        assert workflow["permissions"] == {}
        for job in workflow["jobs"].values():
            assert job["permissions"] == {"contents": "read"}
            assert job["steps"][0]["with"] == {"persist-credentials": False}  # later steps cannot even do that


def test_the_deployment_gets_every_setting_and_no_other(each: Path) -> None:
    backend = yaml.safe_load((each / ".copier-answers.yml").read_text("utf-8"))["prefect_backend"]
    settings = read_settings(each)
    secret = {name for name, kind in settings.items() if "SecretStr" in kind}
    secret |= {"PREFECT_API_URL", BACKENDS[backend]["credential"]}
    # the Makefile names the environment; how long a run may take belongs into the repository
    plain = settings.keys() - secret - {"PREFECT_ENV", "SLA_MINUTES"}

    given = read_workflow(each)["jobs"]["deploy"]["steps"][-1]["env"]
    assert given == {name: f"${{{{ secrets.{name} }}}}" for name in secret} | {
        name: f"${{{{ vars.{name} }}}}" for name in plain
    }


def read_settings(project: Path) -> dict[str, str]:
    """Return the environment variables that ops/settings.py of `project` reads, each with its type."""
    module = ast.parse((project / "ops/settings.py").read_text("utf-8"))
    settings = next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    return {
        node.target.id.upper(): ast.unparse(node.annotation)
        for node in settings.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def test_settings_reach_only_the_two_steps_that_need_them(each: Path) -> None:
    workflow = read_workflow(each)
    jobs = workflow.pop("jobs")
    plan, deploy = jobs["plan"]["steps"].pop(), jobs["deploy"]["steps"].pop()
    assert plan["env"] == deploy["env"]
    assert not re.search(r"\b(secrets|vars)\b", f"{workflow}{jobs}")


def test_only_what_is_on_main_and_passed_is_deployed(project: Path) -> None:
    workflow = read_workflow(project)
    assert workflow[True] == {"pull_request": None, "push": {"branches": ["main"]}}  # `on` is true in YAML 1.1
    assert workflow["jobs"]["deploy"]["if"] == "github.event_name == 'push'"
    assert workflow["jobs"]["deploy"]["needs"] == "check"
    assert workflow["jobs"]["deploy"]["environment"] == "production"


@pytest.mark.parametrize(("ops_exits_with", "succeeds"), [(0, True), (2, True), (1, False)])  # 2: there are changes
def test_the_plan_goes_to_the_summary(project: Path, tmp_path: Path, ops_exits_with: int, succeeds: bool) -> None:
    code, output, summary = run_last_step("plan", project, tmp_path, ops_exits_with, API)
    assert (code == 0) == succeeds
    assert output == "what ops says\n"
    assert summary == f"~~~\n{output}~~~\n"


def test_a_pull_request_without_secrets_gets_a_notice(project: Path, tmp_path: Path) -> None:
    code, output, summary = run_last_step("plan", project, tmp_path, 0, "")
    assert (code, summary) == (0, "")
    assert output.startswith("::notice ")


@pytest.mark.parametrize(("ops_exits_with", "url"), [(0, API), (1, API), (0, "")])
def test_a_deployment_that_did_not_happen_fails(project: Path, tmp_path: Path, ops_exits_with: int, url: str) -> None:
    code, output, _ = run_last_step("deploy", project, tmp_path, ops_exits_with, url)
    assert (code == 0) == (ops_exits_with == 0 and url != "")
    assert output.startswith("what ops says" if url else "::error ")


def run_last_step(job: str, project: Path, folder: Path, ops_exits_with: int, url: str) -> tuple[int, str, str]:
    """Run the last step of a job in `folder`, as GitHub does, with stand-ins for make and for the project's Python.

    Returns:
        exit code, output, job summary
    """
    for stand_in in (folder / "make", folder / ".venv/bin/python"):
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.write_text(f"#!/bin/sh\necho what ops says\nexit {ops_exits_with}\n", "utf-8")
        stand_in.chmod(0o755)
    summary = folder / "summary"
    summary.touch()
    done = subprocess.run(
        ["bash", "-e", "-c", read_workflow(project)["jobs"][job]["steps"][-1]["run"]],
        cwd=folder,
        env={
            "PATH": f"{folder}:/usr/bin:/bin",
            "PREFECT_API_URL": url,
            "RUNNER_TEMP": str(folder),
            "GITHUB_STEP_SUMMARY": str(summary),
        },
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr, summary.read_text("utf-8")
