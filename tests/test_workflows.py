"""The workflows, of every project that can be generated and of this repository: valid, safe, pinned, complete."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import yaml
from answers import CHOICES, ROOT, Render

BIN = Path(sys.executable).parent
WORKFLOWS = [*ROOT.glob(".github/workflows/*"), *ROOT.glob("template/.github/workflows/*")]
PARTS = [*ROOT.glob("includes/github_*.jinja")]
PINNED = re.compile(r"\s*(?:- )?uses: (?P<action>[^@\s]+)@(?P<pin>[0-9a-f]{40} # v\d+\.\d+\.\d+)")
BACKENDS = yaml.safe_load((ROOT / "data/backends.yml").read_text("utf-8"))
API = "http://127.0.0.1:1/api"
# Registries, and what a job needs to push there: a right, or the secrets of an environment.
REGISTRIES = {
    "ghcr.io/owner": {"packages": "write"},
    "1.dkr.ecr.eu-west-1.amazonaws.com": {"id-token": "write"},
    "europe-docker.pkg.dev/project/flows": {"id-token": "write"},
    "registry.azurecr.io": {"id-token": "write"},
    "owner": {},
}

QUESTIONS = ("prefect_backend", "database", "alert_channels")  # whose answers change the workflow
ANSWERS = [dict(zip(QUESTIONS, row, strict=True)) for row in product(*(CHOICES[name] for name in QUESTIONS))]
ANSWERS.append({"alert_channels": CHOICES["alert_channels"][-1], "alert_on": ()})  # channels that nothing uses


@pytest.fixture(scope="module", params=ANSWERS, ids=lambda answers: "-".join(map(str, answers.values())))
def each(request: pytest.FixtureRequest, render: Render) -> Path:
    """One project after the other, for every combination of the answers that change the workflow."""
    return render(**request.param)


def read_workflow(project: Path, name: str = "ci") -> dict:
    return yaml.safe_load((project / f".github/workflows/{name}.yml").read_text("utf-8"))


def audit(*workflows: Path) -> None:
    """Fail unless actionlint, with shellcheck, and zizmor, at its most pedantic, have nothing to say about `workflows`."""
    assert workflows
    for command in (["actionlint"], ["zizmor", "--offline", "--quiet", "--persona", "pedantic"]):
        env = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}  # actionlint asks shellcheck, which is there
        done = subprocess.run([BIN / command[0], *command[1:], *workflows], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_of_this_repository_pass_the_auditors() -> None:
    audit(*ROOT.glob(".github/workflows/*"))


def test_generated_workflows_pass_the_auditors(each: Path) -> None:
    audit(*each.glob(".github/workflows/*"))


@pytest.mark.parametrize("registry", REGISTRIES)
def test_the_image_is_built_once_scanned_and_pushed_before_a_deployment(registry: str, render: Render) -> None:
    project = render(pool_type="docker", image_registry=registry)
    audit(*project.glob(".github/workflows/*"))
    workflow = read_workflow(project, "deploy")
    assert workflow["env"]["IMAGE_TAG"] == "${{ inputs.commit || github.sha }}"
    job = workflow["jobs"]["image"]
    steps = [step["name"] for step in job["steps"] if "name" in step]
    assert steps[-6:] == ["Log in to the registry", "Look for the image", "Build", "Scan", "Push", "Sign"]
    assert workflow["jobs"]["staging"]["needs"] == "image"
    assert workflow["jobs"]["staging"]["if"] == "${{ !cancelled() && needs.image.result == 'success' }}"
    for name in ("staging", "production"):
        assert workflow["jobs"][name]["steps"][-1]["run"].splitlines()[-1].endswith("make deploy ARGS=--skip-build")

    signs = {"attestations": "write", "contents": "read", "id-token": "write"}
    assert job["permissions"] == signs | REGISTRIES[registry]
    assert job["steps"][-1]["with"]["create-storage-record"] is False  # that needs artifact-metadata: write, too
    preview = read_workflow(project)["jobs"]["preview"]
    assert preview["permissions"] == {"contents": "read"} | REGISTRIES[registry]
    keeps_a_password = "secrets.REGISTRY_PASSWORD" in str(job["steps"])
    assert keeps_a_password == (registry == "owner")  # for every other, a token of the job does
    assert job.get("environment") == ("registry" if keeps_a_password else None)


def test_an_image_that_stays_on_the_runner_is_not_deployed(render: Render) -> None:
    project = render(pool_type="docker")
    audit(*project.glob(".github/workflows/*"))
    assert not (project / ".github/workflows/deploy.yml").exists()
    assert "preview" not in read_workflow(project)["jobs"]


def test_every_action_has_one_pin_everywhere() -> None:
    pins: dict[str, str] = {}
    for file in [*WORKFLOWS, *PARTS]:
        uses = [line for line in file.read_text("utf-8").splitlines() if re.match(r"\s*(- )?uses:", line)]
        assert uses or file in PARTS, file
        for line in uses:
            found = PINNED.fullmatch(line)
            assert found, f"{file}: not pinned by a commit with its version in a comment: {line}"
            assert pins.setdefault(found["action"], found["pin"]) == found["pin"], f"{file}: {line}"


WRITES = {  # job -> what it may beyond reading the code
    "comment": {"pull-requests": "write"},
    "staging": {"deployments": "read"},
    "image": {"attestations": "write", "id-token": "write", "packages": "write"},
    "preview": {"packages": "write"},
}


@pytest.mark.parametrize("answers", [{}, {"pool_type": "docker", "image_registry": "ghcr.io/owner"}])
def test_a_job_may_do_what_it_does_and_no_more(answers: dict, render: Render) -> None:
    project = render(**answers)
    for workflow in (read_workflow(ROOT), read_workflow(project), read_workflow(project, "deploy")):
        assert workflow["permissions"] == {}
        for name, job in workflow["jobs"].items():
            reads = {} if name == "comment" else {"contents": "read"}
            assert job["permissions"] == reads | WRITES.get(name, {})
            code = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
            assert len(code) == len(reads)  # what may comment runs no code of the branch
            assert all(step["with"]["persist-credentials"] is False for step in code)


def test_a_deployment_gets_every_setting_and_no_other(each: Path) -> None:
    backend = yaml.safe_load((each / ".copier-answers.yml").read_text("utf-8"))["prefect_backend"]
    settings = read_settings(each)
    secret = {name for name, kind in settings.items() if "SecretStr" in kind}
    secret |= {"PREFECT_API_URL", BACKENDS[backend]["credential"]}
    # how long a run may take, and who watches it, belongs into the repository, and only previews have a name
    limits = {name for name in settings if name.endswith("_MINUTES")} | {"CLOUD_SLAS"}
    plain = settings.keys() - secret - limits - {"PREFECT_ENV", "PREVIEW"}
    wanted = {name: f"${{{{ secrets.{name} }}}}" for name in secret}
    wanted |= {name: f"${{{{ vars.{name} }}}}" for name in plain}

    jobs = read_workflow(each, "deploy")["jobs"]
    for name in ("staging", "production", "drift"):
        assert jobs[name]["steps"][-1]["env"] == wanted | {"PREFECT_ENV": "${{ vars.PREFECT_ENV }}"}
    assert read_workflow(each)["jobs"]["plan"]["steps"][-1]["env"] == wanted


def read_settings(project: Path) -> dict[str, str]:
    """Return the environment variables that ops/settings.py of `project` reads, each with its type."""
    module = ast.parse((project / "ops/settings.py").read_text("utf-8"))
    settings = next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    return {
        node.target.id.upper(): ast.unparse(node.annotation)
        for node in settings.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def test_settings_reach_only_the_steps_that_need_them(each: Path) -> None:
    for name in ("ci", "deploy"):
        workflow = read_workflow(each, name)
        jobs = workflow.pop("jobs")
        for job in {"plan", "staging", "production", "drift"} & jobs.keys():
            jobs[job]["steps"].pop()
        assert not re.search(r"\b(secrets|vars)\b", f"{workflow}{jobs}")


def test_only_what_is_on_main_and_passed_is_deployed(project: Path) -> None:
    workflow = read_workflow(project, "deploy")
    assert workflow[True].keys() == {"push", "schedule", "workflow_dispatch"}  # `on` is true in YAML 1.1
    assert workflow[True]["push"] == {"branches": ["main"]}
    jobs = workflow["jobs"]
    assert (jobs["staging"]["needs"], jobs["production"]["needs"]) == ("check", "staging")
    passed = "(needs.check.result == 'success' || inputs.commit != '')"  # what was delivered once is not checked again
    assert jobs["staging"]["if"] == f"${{{{ !cancelled() && {passed} }}}}"
    assert jobs["production"]["if"] == "${{ !cancelled() && needs.staging.result == 'success' }}"
    assert jobs["drift"]["environment"] == "drift"  # not the repository, whose secrets every branch can read
    for name in ("staging", "production"):
        assert jobs[name]["environment"] == name
        assert jobs[name]["steps"][1]["name"] == "Only what is, or was, on main"


def test_no_change_cancels_the_jobs_of_another(render: Render) -> None:
    project = render(pool_type="docker", image_registry="ghcr.io/owner")

    def group(of: str, **known: str) -> str:
        def first(found: re.Match[str]) -> str:
            return next(known[name] for name in found[1].split(" || ") if known.get(name))

        return re.sub(r"\$\{\{ (.+?) \}\}", first, of)

    of = read_workflow(project)["concurrency"]["group"]
    opened, merged, other = (
        group(of, **{"github.workflow": "CI", "github.ref": ref, "github.event.pull_request.number": number})
        for ref, number in (("refs/pull/7/merge", "7"), ("refs/heads/main", "7"), ("refs/heads/main", "8"))
    )
    assert opened == merged != other  # so a preview that is on its way is stopped, and then removed
    of = read_workflow(project, "deploy")["jobs"]["image"]["concurrency"]["group"]
    assert group(of, **{"github.sha": "a"}) != group(of, **{"github.sha": "b"}) == group(of, **{"inputs.commit": "b"})


@pytest.mark.parametrize("ci", ["github", "gitlab", "azure-devops"])
@pytest.mark.parametrize("backend", CHOICES["prefect_backend"])
def test_nobody_is_promised_a_credential_that_may_only_read(ci: str, backend: str, render: Render) -> None:
    project = render(ci=ci, prefect_backend=backend)
    names = {
        "github": [".github/workflows/ci.yml"],
        "gitlab": [".gitlab-ci.yml"],
        "azure-devops": ["azure-pipelines.yml"],
    }
    for text in (" ".join((project / name).read_text("utf-8").replace("\n# ", " ").split()) for name in names[ci]):
        assert ("may only read" in text) == (backend == "cloud")
        assert ("one credential, which may write and read every secret" in text) == (backend == "server")
    readme = " ".join((project / "README.md").read_text("utf-8").split())
    assert ("take that of a service account" in readme) == (backend == "cloud")
    assert ("may write and read every secret" in readme) == (backend == "server")
    assert ("let a runner of your own do the jobs" in readme) == (backend == "server")


@pytest.mark.parametrize("pool", ["process", "docker", "managed"])
def test_what_moves_the_code_is_said_where_no_image_does(pool: str, render: Render) -> None:
    with_image = {"image_registry": "ghcr.io/owner"} if pool == "docker" else {}
    project = render(pool_type=pool, prefect_backend="cloud", **with_image)
    for name in ("README.md", ".github/workflows/deploy.yml"):
        text = " ".join((project / name).read_text("utf-8").split())
        assert ("`git pull && make .venv/.synced`" in text) == (pool == "process")
        assert ("in all environments at once" in text) == (pool == "managed")


def test_a_preview_is_never_of_a_fork(render: Render) -> None:
    jobs = read_workflow(render(pool_type="docker", image_registry="ghcr.io/owner"))["jobs"]
    assert jobs["preview"]["if"].endswith("github.event.pull_request.head.repo.full_name == github.repository")
    assert jobs["remove-preview"]["if"] == jobs["preview"]["if"].replace("!= 'closed'", "== 'closed'")
    assert jobs["preview"]["steps"][-1]["env"]["PREFECT_ENV"] == "${{ vars.PREFECT_ENV }}"


# --- the shell of the steps, with stand-ins for what they call -------------------------------------------


def step(workflow: dict, job: str, name: str) -> dict:
    return next(step for step in workflow["jobs"][job]["steps"] if step.get("name") == name)


def run_step(step: dict, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a step in `folder` as GitHub does, with the programs that stand there before all others."""
    for name in ("summary", "output"):
        (folder / name).touch()
    return subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        cwd=folder,
        env={
            "PATH": f"{folder}:/usr/bin:/bin",
            "HOME": str(folder),
            "RUNNER_TEMP": str(folder),
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
            "GITHUB_REPOSITORY": "me/my-flows",
            "GITHUB_REF_NAME": "a-branch",
            **env,
        },
        capture_output=True,
        text=True,
    )


def git_in(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def stand_in(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    file.chmod(0o755)


@pytest.mark.parametrize("fails", [False, True])
def test_the_plan_goes_to_the_summary_and_to_the_comment(project: Path, tmp_path: Path, fails: bool) -> None:
    stand_in(tmp_path / "make", f'echo "$PREFECT_ENV: $*"\nexit {int(fails)}')
    done = run_step(step(read_workflow(project), "plan", "Plan"), tmp_path, PREFECT_API_URL=API)
    told = "prod: --silent plan ARGS=--markdown\n"
    assert (done.returncode, done.stdout) == (int(fails), told)
    assert (tmp_path / "summary").read_text("utf-8") == told
    assert re.fullmatch(rf"plan<<(\S+)\n{told}\n\1\n", (tmp_path / "output").read_text("utf-8"))


@pytest.mark.parametrize(
    ("workflow", "job", "name"),
    [("ci", "plan", "Plan"), ("deploy", "production", "Deploy"), ("deploy", "drift", "Compare production with main")],
)
def test_without_secrets_there_is_a_notice(workflow: str, job: str, name: str, project: Path, tmp_path: Path) -> None:
    stand_in(tmp_path / "make", "exit 1")
    done = run_step(step(read_workflow(project, workflow), job, name), tmp_path, PREFECT_API_URL="")
    assert done.returncode == 0
    assert done.stdout.startswith("::notice ")


GH = """\
echo "$*" >> calls
case "$*" in
  *" pr list "*|"pr list "*) echo "$PULL_REQUEST" ;;
  "api --paginate "*) echo "$COMMENT" ;;
  *) cp "$RUNNER_TEMP/body" "$RUNNER_TEMP/sent" ;;
esac"""


@pytest.mark.parametrize(("number", "comment"), [("7", ""), ("7", "42"), ("", "42")])
def test_the_comment_is_written_once_and_then_changed(project: Path, tmp_path: Path, number: str, comment: str) -> None:
    stand_in(tmp_path / "gh", GH)
    plan = "$(touch injected) `touch injected` <b>"
    (job,) = read_workflow(project)["jobs"]["comment"]["steps"]
    done = run_step(job, tmp_path, NUMBER=number, PULL_REQUEST="7", COMMENT=comment, PLAN=plan)
    assert done.returncode == 0, done.stderr
    last = (tmp_path / "calls").read_text("utf-8").splitlines()[-1]
    where = "PATCH repos/me/my-flows/issues/comments/42 " if comment else "POST repos/me/my-flows/issues/7/comments "
    assert where in last
    assert (tmp_path / "sent").read_text("utf-8").splitlines()[1:] == [plan]
    assert not (tmp_path / "injected").exists()


def test_no_comment_without_a_pull_request(project: Path, tmp_path: Path) -> None:
    stand_in(tmp_path / "gh", GH)
    (job,) = read_workflow(project)["jobs"]["comment"]["steps"]
    done = run_step(job, tmp_path, NUMBER="", PULL_REQUEST="", PLAN="plan")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "sent").exists()


@pytest.mark.parametrize(("environment", "deploys"), [("staging", True), ("prod", False), ("", False)])
def test_staging_takes_no_settings_but_its_own(project: Path, tmp_path: Path, environment: str, deploys: bool) -> None:
    stand_in(tmp_path / "make", "echo make $*")
    done = run_step(step(read_workflow(project, "deploy"), "staging", "Deploy"), tmp_path, PREFECT_ENV=environment)
    assert done.returncode == 0
    assert done.stdout.startswith("make deploy" if deploys else "::notice title=No staging::")


@pytest.mark.parametrize("job", ["staging", "production", "drift"])
def test_a_deployment_or_a_check_that_fails_fails_the_job(project: Path, tmp_path: Path, job: str) -> None:
    stand_in(tmp_path / "make", "echo make $*; exit 1")
    last = read_workflow(project, "deploy")["jobs"][job]["steps"][-1]
    assert run_step(last, tmp_path, PREFECT_ENV="staging", PREFECT_API_URL=API).returncode == 1


def test_only_a_commit_of_main_is_deployed(project: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    git = partial(git_in, work)
    git("init", "--quiet", "--initial-branch", "main")
    git("commit", "--quiet", "--allow-empty", "--message", "one")
    earlier = git("rev-parse", "HEAD")
    git("commit", "--quiet", "--allow-empty", "--message", "two")
    git("update-ref", "refs/remotes/origin/main", "HEAD")
    git("commit", "--quiet", "--allow-empty", "--message", "not merged")
    unmerged = git("rev-parse", "HEAD")
    only = step(read_workflow(project, "deploy"), "production", "Only what is, or was, on main")
    for commit, asked, passes in [
        (earlier, earlier, True),
        (earlier, earlier[:12], False),  # its image has the whole commit as its tag
        (earlier, "main", False),
        (unmerged, unmerged, False),
    ]:
        git("checkout", "--quiet", commit)
        assert (run_step(only, work, COMMIT=asked).returncode == 0) == passes, (commit, asked)


@pytest.mark.parametrize("newest", [True, False])
def test_a_release_that_was_overtaken_does_not_reach_staging(project: Path, tmp_path: Path, newest: bool) -> None:
    git = partial(git_in, tmp_path)
    git("init", "--quiet")
    commits = []
    for message in ("one", "two", "three"):
        git("commit", "--quiet", "--allow-empty", "--message", message)
        commits.append(git("rev-parse", "HEAD"))
    stand_in(
        tmp_path / "gh", f"echo {commits[1]}; echo {'0' * 40}; echo {commits[0]}"
    )  # one of them is not on main any more
    guard = step(
        read_workflow(project, "deploy"), "staging", "Nothing older than what went before, unless somebody asks for it"
    )
    done = run_step(guard, tmp_path, GITHUB_SHA=commits[2 if newest else 0], GITHUB_REPOSITORY="me/my-flows")
    assert done.returncode == (0 if newest else 1), done.stderr
    assert newest or f"The newer commit {commits[1]} overtook" in done.stdout
    again = run_step(guard, tmp_path, GITHUB_SHA=commits[1], GITHUB_REPOSITORY="me/my-flows")
    assert again.returncode == 0, again.stdout  # the same commit


@pytest.mark.parametrize(
    ("published", "go_back", "code"), [(True, "", 0), (True, "c", 0), (False, "", 0), (False, "c", 1)]
)
def test_an_image_is_built_unless_it_is_there_and_never_to_go_back(
    published: bool, go_back: str, code: int, render: Render, tmp_path: Path
) -> None:
    stand_in(tmp_path / "make", f"exit {int(not published)}")
    workflow = read_workflow(render(pool_type="docker", image_registry="ghcr.io/owner"), "deploy")
    done = run_step(step(workflow, "image", "Look for the image"), tmp_path, GO_BACK_TO=go_back)
    assert done.returncode == code
    assert (tmp_path / "output").read_text("utf-8") == ("published=true\n" if published else "")
    for name in ("Build", "Scan", "Push"):
        assert step(workflow, "image", name)["if"] == "steps.image.outputs.published != 'true'"


def test_what_is_signed_is_what_was_pushed(render: Render, tmp_path: Path) -> None:
    workflow = read_workflow(render(pool_type="docker", image_registry="ghcr.io/owner"), "deploy")
    written = {"image.name": "localhost:5000/me/my-flows:c0ffee", "containerimage.digest": "sha256:1"}
    stand_in(tmp_path / "make", f"echo '{json.dumps(written)}' > .image.json")
    done = run_step(step(workflow, "image", "Push"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "output").read_text("utf-8") == "name=localhost:5000/me/my-flows\ndigest=sha256:1\n"


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


def test_a_code_owner_is_asked_for_reviews(render: Render, project: Path) -> None:
    assert (
        (render(github_user="acme/data-team") / ".github/CODEOWNERS")
        .read_text("utf-8")
        .endswith("\n* @acme/data-team\n")
    )
    assert not (project / ".github/CODEOWNERS").exists()
    assert not (render(github_user="acme/data-team", ci="none") / ".github").exists()
