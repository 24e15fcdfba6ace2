"""The workflows, of every project that can be generated and of this repository: valid, safe, pinned, complete."""

import ast
import re
import shutil
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
            assert job["steps"][0]["with"]["persist-credentials"] is False  # later steps cannot even do that


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
    assert workflow[True] == {
        "pull_request": None,
        "push": {"branches": ["main"]},
        "workflow_dispatch": None,
    }  # `on` is true in YAML 1.1
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


# --- the workflow that proposes updates: its last step, with a repository to push to and a stand-in for gh ----


@pytest.fixture
def proposal(project: Path, tmp_path: Path) -> Path:
    """A project in a clone, after an update that changed one file."""
    (tmp_path / "gh").write_text('#!/bin/sh\necho "gh $*"\n', "utf-8")
    (tmp_path / "gh").chmod(0o755)
    (tmp_path / "update").write_text("my-flows is updated\n", "utf-8")
    (tmp_path / ".gitconfig").write_text(
        f'[user]\nname = Me\nemail = me@example.com\n[url "file://{tmp_path}/pushed.git"]\n'
        "insteadOf = https://x-access-token:t@github.com/me/my-flows\n",
        "utf-8",
    )
    work = shutil.copytree(project, tmp_path / "work")
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "A commit"]):
        subprocess.run(["git", *command], cwd=work, env=propose_env(tmp_path), check=True)
    subprocess.run(["git", "init", "--quiet", "--bare", tmp_path / "pushed.git"], check=True)
    with (work / ".copier-answers.yml").open("a", encoding="utf-8") as file:
        file.write("_commit: v0.2.0\n")
    return work


def propose_env(folder: Path) -> dict[str, str]:
    return {
        "PATH": f"{folder}:/usr/bin:/bin",
        "HOME": str(folder),
        "RUNNER_TEMP": str(folder),
        "GITHUB_REPOSITORY": "me/my-flows",
        "GH_TOKEN": "t",
    }


def propose(work: Path, may_change_workflows: bool = False) -> tuple[int, str]:
    workflow = yaml.safe_load((work / ".github/workflows/template-update.yml").read_text("utf-8"))
    env = propose_env(work.parent) | {"MAY_CHANGE_WORKFLOWS": str(may_change_workflows).lower()}
    command = ["bash", "-e", "-c", workflow["jobs"]["propose"]["steps"][-1]["run"]]
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_an_update_is_proposed_once_and_its_plan_asked_for(proposal: Path) -> None:
    code, told = propose(proposal)
    assert code == 0, told
    assert "gh pr create --head template-update-v0.2.0 " in told
    assert "gh workflow run ci.yml --ref template-update-v0.2.0" in told
    assert "my-flows is updated" in (proposal.parent / "body").read_text("utf-8")
    pushed = ["git", "--git-dir", proposal.parent / "pushed.git", "show", "--stat", "template-update-v0.2.0"]
    assert ".copier-answers.yml" in subprocess.run(pushed, capture_output=True, text=True, check=True).stdout

    subprocess.run(["git", "switch", "--quiet", "-"], cwd=proposal, check=True)
    assert propose(proposal) == (0, "::notice title=Up to date::The template has nothing new.\n")
    with (proposal / ".copier-answers.yml").open("a", encoding="utf-8") as file:
        file.write("_commit: v0.2.0\n")
    code, told = propose(proposal)
    assert code == 0
    assert "::notice title=Proposed before::" in told
    assert "gh" not in told.split()


def test_an_update_of_workflows_needs_a_token_of_its_own(proposal: Path) -> None:
    with (proposal / ".github/workflows/ci.yml").open("a", encoding="utf-8") as file:
        file.write("# more\n")
    code, told = propose(proposal)
    assert code == 1
    assert "::error title=Not proposed::v0.2.0 changes workflows: run make update on your machine" in told
    assert "gh" not in told.split()
    code, told = propose(proposal, may_change_workflows=True)
    assert code == 0, told
    assert "gh pr create " in told
    assert "gh workflow" not in told  # what that token pushes starts ci.yml


def test_the_update_workflow_may_do_what_it_does_and_no_more(project: Path) -> None:
    workflow = yaml.safe_load((project / ".github/workflows/template-update.yml").read_text("utf-8"))
    assert workflow["permissions"] == {}
    (job,) = workflow["jobs"].values()
    assert job["permissions"] == {"actions": "write", "contents": "write", "pull-requests": "write"}
    assert job["steps"][0]["with"] == {"persist-credentials": False}
    assert not re.search(r"secrets|token", str(job["steps"][:-1]))  # only the step that runs git and gh has it
