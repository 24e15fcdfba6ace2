"""A project follows the template: updates from every release, changed answers, refusals, adoption.

The present template is published here as a version of its own, in a temporary clone. The hard cases, a renamed question
and a moved file, are those of 0.3.0, and those of a release that the tests make, with a second one after it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import copier
import kills
import pytest
from answers import CHOICES, CONFIG, DEFAULTS, QUESTIONS, ROOT, Answers, allowed, completions, rendered
from checks import contents, faults, stored
from copier import VcsRef
from copier._main import Worker

import bootstrap
from scripts import release

Tree = dict[str, bytes]
Edit = Callable[[Path], None]

PRESENT, PREVIOUS, OLDER = "v1000.0.0", "v999.0.0", "v998.0.0"  # newer than any release
FROM = [*(f"v{version}" for version in release.versions()), PREVIOUS]
ANSWERS: dict[str, Answers] = {
    "default": {},
    "everything": {
        "project_name": "Sales Flows",
        "python_version": "3.12",
        "prefect_backend": "cloud",
        "database": "postgresql",
        "alert_channels": ["webhook", "slack"],
        "alert_on": ["failure", "success", "sla"],
        "sla_minutes": "5",
    },
    "nothing": {"alert_channels": [], "ci": "none"},
}
OTHER_TEXT = {
    "project_name": "Other Flows",
    "project_description": "Something else",
    "user_name": "Somebody Else",
    "user_email": "else@example.com",
    "github_user": "acme/data-team",
    "sla_minutes": "5",
}
OTHER_IMAGE = {"pool_type": "docker", "image_registry": "ghcr.io/somebody"}
LEFT_OUT = {
    operation: set(rendered("\n".join(CONFIG["_exclude"]), DEFAULTS | {"_copier_operation": operation}).split())
    for operation in ("copy", "update")
}
YOURS = tuple(line.removeprefix("/") for line in LEFT_OUT["update"] - LEFT_OUT["copy"])  # what no update touches
MARKER = re.compile(rb"^(<{7}|>{7}) (before|after) updating$", re.MULTILINE)
CLI = Path(sys.executable).with_name("copier")


@pytest.fixture(scope="module", autouse=True)
def fast_and_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither the settings of whoever runs the tests, nor a question to Git about the mode of each file."""
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(
        "[user]\nname = Me\nemail = me@example.com\n[init]\ndefaultBranch = main\n", "utf-8"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
        patch.setattr(Worker, "_sync_git_index_executable_bit", Mock(), raising=False)
        yield


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commit(folder: Path) -> Path:
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "A commit")
    return folder


def publish(work: Path, version: str) -> None:
    commit(work)
    git(work, "tag", version)


def take_present(work: Path) -> None:
    """Put the template as it lies here, committed or not, in place of the one in `work`."""
    for part in ("copier.yml", "UPGRADING.md", "data", "includes", "template"):
        git(work, "rm", "-r", "--quiet", "--ignore-unmatch", part)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, work / part)
        elif (ROOT / part).exists():
            shutil.copy(ROOT / part, work / part)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with all its releases, found by their commits, and the present state as the newest."""
    if not release.has_history():
        pytest.skip("this clone has no history, so no released version: git fetch --unshallow")
    work = tmp_path_factory.mktemp("template") / "work"
    git(ROOT, "clone", "--quiet", "--shared", "--no-tags", str(ROOT), str(work))
    for version, wrote in release.commits().items():
        git(work, "tag", f"v{version}", wrote)
    git(work, "tag", PREVIOUS, "HEAD~1")
    take_present(work)
    publish(work, PRESENT)
    return work


@pytest.fixture(scope="module")
def present(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only the present state, for what needs no history: also in a shallow clone."""
    work = tmp_path_factory.mktemp("present") / "work"
    work.mkdir()
    git(work, "init", "--quiet")
    take_present(work)
    publish(work, OLDER)
    publish(work, PRESENT)
    return work


def copy(template: Path, project: Path, version: str, answers: Answers | None = None, **options: Any) -> Path:
    known = {"defaults": True, "quiet": True, "settings": copier.Settings(), "vcs_ref": version} | options
    copier.run_copy(str(template), project, answers or {}, **known)
    return project


def update(project: Path, answers: Answers | None = None, **options: Any) -> None:
    known = {"defaults": True, "overwrite": True, "quiet": True, "settings": copier.Settings()} | options
    copier.run_update(project, answers or {}, **known)


def tree(project: Path) -> Tree:
    return {name: content for name, content in contents(project).items() if not name.startswith(".git/")}


def without_git(project: Path) -> Path:
    copied = project.with_name("without-git")
    return shutil.copytree(project, copied, ignore=shutil.ignore_patterns(".git"))


def others(files: Tree) -> Tree:
    """Leave out what is the user's from the first day."""
    return {name: content for name, content in files.items() if not name.startswith(YOURS)}


def make(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", *arguments, f"COPIER={CLI}", "UV=/bin/true"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120)


# --- updates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", ANSWERS)
@pytest.mark.parametrize("version", FROM)
def test_an_untouched_project_becomes_what_is_made_today(
    version: str, answers: str, template: Path, tmp_path: Path
) -> None:
    project = commit(copy(template, tmp_path / "old/my-flows", version, ANSWERS[answers]))
    before = tree(project)
    update(project)
    after = tree(project)
    fresh = tree(copy(template, tmp_path / "new/my-flows", PRESENT, ANSWERS[answers]))
    assert others(after) == others(fresh)
    assert after.keys() - others(after).keys() == before.keys() - others(before).keys()
    assert all(after[name] == before[name] for name in after if name.startswith(YOURS))


DEPLOYMENT = """
  - name: mine # every hour
    entrypoint: flows.mine.mine
    work_pool: *work_pool
"""


def edit(project: Path) -> None:
    """Make the edits that a project sees in its first weeks."""

    def replace(name: str, old: str, new: str) -> None:
        text = (project / name).read_text("utf-8")
        assert old in text
        (project / name).write_text(text.replace(old, new, 1), "utf-8")

    def append(name: str, text: str) -> None:
        with (project / name).open("a", encoding="utf-8") as file:
            file.write(text)

    append("flows/etl.py", "# mine\n")
    append("prefect.yaml", DEPLOYMENT)
    append("Makefile", "\nmine: ## A target of mine\n\t@echo mine\n")
    replace("Makefile", "# `make help`", "# Mine, too. `make help`")
    replace("pyproject.toml", '    "httpx",\n', '    "httpx",\n    "mine-package",\n')
    (project / "flows/mine.py").write_text("from prefect import flow\n\n\n@flow\ndef mine() -> None: ...\n", "utf-8")
    (project / "README.md").write_text("# Mine\n\nWritten anew.\n", "utf-8")
    (project / ".pre-commit-config.yaml").unlink()
    git(project, "mv", "tests/test_settings.py", "tests/test_our_settings.py")


@pytest.mark.parametrize(("version", "answers"), [(FROM[0], "default"), *((each, "everything") for each in FROM)])
def test_edits_are_kept(version: str, answers: str, template: Path, tmp_path: Path) -> None:
    project = commit(copy(template, tmp_path / "old/my-flows", version, ANSWERS[answers]))
    base = tree(project)
    edit(project)
    mine = tree(commit(project))
    update(project)
    theirs = tree(copy(template, tmp_path / "new/my-flows", PRESENT, ANSWERS[answers]))

    marked = {name for name, content in tree(project).items() if MARKER.search(content)}
    both = {name for name in base.keys() & mine.keys() & theirs.keys() if not name.startswith(YOURS)}
    assert marked == {name for name in both if clash(tmp_path, base[name], mine[name], theirs[name])}
    assert marked == set(git(project, "diff", "--name-only", "--diff-filter=U").split())
    assert make(project, "no-conflicts").returncode == (2 if marked else 0)
    for name in marked:
        git(project, "checkout", "--ours", "--", name)

    after = tree(project)
    assert faults(without_git(project)) == ""
    assert all(after[name] == mine[name] for name in mine if name.startswith(YOURS))
    assert after["README.md"] == mine["README.md"]
    assert DEPLOYMENT in after["prefect.yaml"].decode()
    assert b'"mine-package"' in after["pyproject.toml"]
    assert b"\nmine: ## A target of mine\n" in after["Makefile"]
    assert b"# Mine, too. `make help`" in after["Makefile"]
    assert after["tests/test_our_settings.py"] == mine["tests/test_our_settings.py"]
    assert {".pre-commit-config.yaml", "tests/test_settings.py"}.isdisjoint(after)
    assert not [name for name in after if name.endswith((".rej", ".orig"))]
    assert stored(project)["_commit"] == PRESENT


def clash(folder: Path, base: bytes, mine: bytes, theirs: bytes) -> bool:
    """Ask Git whether both sides changed the same lines."""
    files = [folder / name for name in ("mine", "base", "theirs")]
    for file, content in zip(files, (mine, base, theirs), strict=True):
        file.write_bytes(content)
    return subprocess.run(["git", "merge-file", "-p", "-q", *files], capture_output=True).returncode > 0


def test_a_target_of_ones_own_goes_to_the_end_of_the_makefile() -> None:
    """There the template changes nothing, so nothing clashes."""
    assert (ROOT / "template/Makefile.jinja").read_text("utf-8").splitlines()[-1].startswith("# --- yours: ")


# --- hard cases: a question is renamed, a file is moved -------------------------------------------------

RENAMED = ("user_name", "owner_name")
MOVED = ("ops/limits.py", "ops/concurrency.py")
NOTE = "## {}\n\n- `ops/limits.py` is now `ops/concurrency.py`.\n"


@pytest.fixture(scope="module")
def next_release(present: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two more releases, which follow the policy of CONTRIBUTING.md; the second changes nothing."""
    work = tmp_path_factory.mktemp("next") / "work"
    git(present, "clone", "--quiet", str(present), str(work))
    for file in [work / "copier.yml", *work.glob("template/**/*")]:
        if file.is_file() and "__pycache__" not in file.parts:
            text = re.sub(rf"\b{RENAMED[0]}\b", RENAMED[1], file.read_text("utf-8"))
            file.write_text(re.sub(r"\bops([./])limits\b", r"ops\1concurrency", text), "utf-8")
    config = (work / "copier.yml").read_text("utf-8")
    config = config.replace("default: Data Team\n", "default: \"{{ user_name | default('Data Team') }}\"\n")
    (work / "copier.yml").write_text(config, "utf-8")
    git(work, "mv", *(f"template/{name}.jinja" for name in MOVED))
    upgrading = (work / "UPGRADING.md").read_text("utf-8").partition("\n## ")[0]
    (work / "UPGRADING.md").write_text(f"{upgrading}\n{NOTE.format('1001.0.0')}", "utf-8")
    publish(work, "v1001.0.0")
    publish(work, "v1002.0.0")
    return work


@pytest.fixture
def old(next_release: Path, tmp_path: Path) -> Path:
    """A project from before these releases, with an edit in the file that moves."""
    project = copy(next_release, tmp_path / "old/my-flows", PRESENT, {RENAMED[0]: "Zoë's Team"})
    with (project / MOVED[0]).open("a", encoding="utf-8") as file:
        file.write("\n# mine\n")
    return commit(project)


def test_the_answer_to_a_renamed_question_is_kept(old: Path) -> None:
    update(old, vcs_ref="v1001.0.0")
    answers = stored(old)
    assert answers[RENAMED[1]] == "Zoë's Team"
    assert RENAMED[0] not in answers
    assert 'name = "Zoë\'s Team"' in (old / "pyproject.toml").read_text("utf-8")


def test_edits_go_along_when_one_moves_the_file_first(old: Path, next_release: Path, tmp_path: Path) -> None:
    git(old, "mv", *MOVED)
    commit(old)
    update(old, vcs_ref="v1001.0.0")
    assert git(old, "diff", "--name-only", "--diff-filter=U").split() == [MOVED[1]]  # only there, at the edit
    git(old, "checkout", "--ours", "--", MOVED[1])
    fresh = copy(next_release, tmp_path / "new/my-flows", "v1001.0.0")
    assert (old / MOVED[1]).read_text("utf-8") == (fresh / MOVED[1]).read_text("utf-8") + "\n# mine\n"
    assert not (old / MOVED[0]).exists()


def test_what_0_3_0_renamed_and_moved_is_taken_along(template: Path, tmp_path: Path) -> None:
    project = commit(copy(template, tmp_path / "my-flows", "v0.2.0", {"code_owner": "acme/data-team"}))
    with (project / "ops/flow.py").open("a", encoding="utf-8") as file:
        file.write("\n# mine\n")
    commit(project)
    git(project, "mv", "ops/flow.py", "ops/new_flow.py")
    commit(project)
    update(project)
    assert stored(project)["github_user"] == "acme/data-team"
    assert "code_owner" not in stored(project)
    assert "* @acme/data-team" in (project / ".github/CODEOWNERS").read_text("utf-8")
    assert set(git(project, "diff", "--name-only", "--diff-filter=U").split()) <= {"ops/new_flow.py"}
    git(project, "checkout", "--ours", "--", "ops/new_flow.py")
    assert (project / "ops/new_flow.py").read_text("utf-8").endswith("\n# mine\n")
    assert not (project / "ops/flow.py").exists()


def test_an_update_tells_what_it_removed_and_what_to_look_at_once(old: Path) -> None:
    done = make(old, "update", "ARGS=--defaults --vcs-ref v1001.0.0")
    assert done.returncode == 0, done.stderr
    assert f"git show HEAD:./{MOVED[0]}" in done.stdout
    assert "# mine" in git(old, "show", f"HEAD:./{MOVED[0]}")
    assert NOTE.format("1001.0.0").removeprefix("## ") in done.stderr
    assert "MissingFileWarning" not in done.stderr

    commit(old)
    done = make(old, "update")  # where nobody could answer: it asks nothing that is answered
    assert done.returncode == 0, done.stderr
    assert stored(old)["_commit"] == "v1002.0.0"
    assert "is updated" in done.stderr
    assert MOVED[1] not in done.stdout + done.stderr


# --- changing one's mind --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def edited(present: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = commit(copy(present, tmp_path_factory.mktemp("edited") / "my-flows", PRESENT))
    with (project / "prefect.yaml").open("a", encoding="utf-8") as file:
        file.write(DEPLOYMENT)
    (project / "flows/mine.py").write_text("from prefect import flow\n\n\n@flow\ndef mine() -> None: ...\n", "utf-8")
    return commit(project)


def plain(answer: Any) -> Any:
    return list(answer) if isinstance(answer, tuple) else answer


def another(question: str) -> Answers:
    """Return a choice that differs from the default, with the answers that it needs; nothing, if there is none."""
    choice = next((each for each in reversed(CHOICES[question]) if each != DEFAULTS[question]), None)
    if choice is None:
        return {}
    shown = rendered(QUESTIONS[question].get("when", True), DEFAULTS) == "True"
    fits = shown and choice in allowed(question, DEFAULTS)
    wanted = {question: choice} if fits else next(completions({question: choice}))
    return {name: plain(answer) for name, answer in wanted.items()}


OTHERS = [OTHER_TEXT, OTHER_IMAGE, *filter(None, map(another, CHOICES))]


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: "-".join(other)[:40])
def test_answers_can_be_changed_and_changed_back(other: Answers, edited: Path, tmp_path: Path) -> None:
    project = shutil.copytree(edited, tmp_path / "my-flows")
    before, known = tree(project), stored(project)
    update(project, other, vcs_ref=VcsRef.CURRENT)
    changed = tree(commit(project))
    assert stored(project).items() >= other.items()
    assert not [name for name, content in changed.items() if MARKER.search(content)]
    assert faults(without_git(project)) == ""
    assert DEPLOYMENT in changed["prefect.yaml"].decode()
    assert all(changed[name] == before[name] for name in before if name.startswith(YOURS))

    update(project, {name: known[name] for name in other if name in known}, vcs_ref=VcsRef.CURRENT)
    assert tree(project) == before


def test_an_update_tells_which_answers_are_others_now(edited: Path, tmp_path: Path) -> None:
    project = shutil.copytree(edited, tmp_path / "my-flows")
    chosen = "ARGS=--defaults --vcs-ref :current: --data"
    assert "->" not in make(project, "update", f"{chosen} ci=github").stderr

    done = make(project, "update", f"{chosen} database=duckdb --data user_name='Zoë, 𐐀'")
    assert '\n    database: "none" -> "duckdb"\n    user_name: "Data Team" -> "Zoë, 𐐀"\n' in done.stderr
    commit(project)
    done = make(project, "update", f"{chosen} pool_type=docker")  # keeps no file, so DuckDB goes
    assert re.findall("^    (.*) -> (.*)$", done.stderr, re.MULTILINE) == [
        ('database: "duckdb"', '"none"'),
        ('pool_type: "process"', '"docker"'),
    ]


def test_no_question_is_left_out() -> None:
    asked = {name for name, question in QUESTIONS.items() if question.get("when") is not False}
    changed = {name for other in OTHERS for name, answer in other.items() if answer != plain(DEFAULTS[name])}
    assert asked - changed == {name for name in CHOICES if len(CHOICES[name]) == 1}


# --- where it is refused, or cut short ------------------------------------------------------------------


@pytest.fixture
def project(present: Path, tmp_path: Path) -> Path:
    return commit(copy(present, tmp_path / "my-flows", PRESENT))


def test_what_cannot_be_updated_is_told_and_left_alone(project: Path) -> None:
    def refused(*arguments: str) -> str:
        before = tree(project)
        done = make(project, "update", *arguments)
        assert done.returncode == 2
        assert tree(project) == before
        assert "Traceback" not in done.stderr
        assert "\n  File " not in done.stderr
        return done.stderr

    assert "Downgrades are not supported" in refused(f"ARGS=--defaults --vcs-ref {OLDER}")
    (project / "notes.txt").touch()
    assert "Destination repository is dirty; cannot continue. Please commit" in refused()
    (project / "notes.txt").unlink()
    answers = project / ".copier-answers.yml"
    answers.write_text(re.sub("(?m)^_src_path: .*", "_src_path: /no/where.git", answers.read_text("utf-8")), "utf-8")
    commit(project)
    assert "'/no/where.git' does not appear to be a git repository" in refused()


def test_an_update_that_is_killed_does_not_pass_for_a_whole_one(old: Path, tmp_path: Path) -> None:
    before = tree(old)
    program = ("module", "copier", "update", "--defaults", "--quiet")
    whole = kills.run(0, shutil.copytree(old, tmp_path / "whole"), *program)
    assert whole.returncode == 0, whole.stderr
    for point in kills.points(whole, seed=4, number=3):
        assert kills.is_killed(kills.run(point, old, *program))
        if git(old, "status", "--porcelain"):
            again = make(old, "update", "ARGS=--defaults")
            assert again.returncode == 2
            assert "Destination repository is dirty" in again.stderr
            git(old, "reset", "--quiet", "--hard")
            git(old, "clean", "--quiet", "-fd")
        assert tree(old) == before, point
    update(old)
    assert stored(old)["_commit"] == "v1002.0.0"


def test_a_project_in_a_folder_of_a_larger_repository(next_release: Path, tmp_path: Path) -> None:
    project = copy(next_release, tmp_path / "mono/services/my-flows", PRESENT)
    (tmp_path / "mono/README.md").write_text("# All services\n", "utf-8")
    with (project / "Makefile").open("a", encoding="utf-8") as file:
        file.write("mine:\n")
    commit(tmp_path / "mono")
    (tmp_path / "mono/notes.txt").write_text("elsewhere\n", "utf-8")
    done = make(project, "update", "ARGS=--defaults")
    assert done.returncode == 0, done.stderr
    fresh = tree(copy(next_release, tmp_path / "new/my-flows", "v1002.0.0"))
    assert others(tree(project)) == others(fresh) | {"Makefile": fresh["Makefile"] + b"mine:\n"}
    assert f"git show HEAD:./{MOVED[0]}" in done.stdout
    assert (tmp_path / "mono/notes.txt").read_text("utf-8") == "elsewhere\n"


# --- the commands of the project ------------------------------------------------------------------------


def test_make_takes_uv_from_a_folder_with_a_space(project: Path, tmp_path: Path) -> None:
    uv = tmp_path / "my tools/uv"
    uv.parent.mkdir()
    uv.write_text('#!/bin/sh\necho "uv $*" && mkdir .venv\n', "utf-8")
    uv.chmod(0o755)
    env = os.environ | {"PATH": f"{uv.parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["make", "--silent", ".venv/.synced"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "uv sync --quiet\n"), done.stderr


def test_make_tells_what_to_do_when_uv_cannot_be_installed(project: Path) -> None:
    env = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    command = ["make", "--silent", "UV=.uv/bin/uv", ".venv/.synced"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "uv was not installed: is there a way to the package index" in done.stdout


def test_make_update_check_tells_of_a_newer_version(old: Path) -> None:
    done = make(old, "update-check")
    assert done.returncode == 0
    assert "latest version is 1002.0.0" in done.stdout + done.stderr


def test_make_template_drift_shows_what_differs(project: Path) -> None:
    assert make(project, "template-drift").stdout == ""
    with (project / "Makefile").open("a", encoding="utf-8") as file:
        file.write("mine:\n")
    (project / "ops/limits.py").unlink()
    for file in ("flows/etl.py", "tests/test_etl.py", "tests/conftest.py"):
        (project / file).write_text("", "utf-8")
    (project / "mine.py").touch()
    before = tree(project)
    done = make(project, "template-drift", "ARGS=--patch")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^ (\S+) +\|", done.stdout, re.MULTILINE) == ["Makefile", "ops/limits.py", "tests/conftest.py"]
    assert "\n+mine:\n" in done.stdout
    assert tree(project) == before


def test_make_lint_stops_at_a_conflict_marker(project: Path) -> None:
    assert "lint: no-conflicts" in (project / "Makefile").read_text("utf-8")
    assert make(project, "no-conflicts").returncode == 0
    (project / "flows/etl.py").write_text("<<<<<<< before updating\n", "utf-8")
    done = make(project, "no-conflicts")
    assert done.returncode == 2
    assert done.stdout.startswith("flows/etl.py:1:<<<<<<< before updating\n")


# --- adoption: the template comes into a repository that is there already ------------------------------

ADOPT = (ROOT / "docs/how-to/adopt.md").read_text("utf-8")
DECLARED = """
from ops.declared import Declared
from ops.settings import Settings
found = Declared(Settings())
print(sorted(found.objects["deployment"]), found.faults)
"""


@pytest.fixture
def existing(tmp_path: Path) -> Path:
    """A repository as `prefect init` and `prefect deploy` leave it, with a flow in a folder and one beside it."""
    folder = tmp_path / "sales"
    (folder / "flows").mkdir(parents=True)
    flow = "from prefect import flow\n\n\n@flow\ndef {0}(count: int = 3) -> None:\n    print(count)\n"
    (folder / "flows/report.py").write_text(flow.format("report"), "utf-8")
    (folder / "hello.py").write_text(flow.format("hello"), "utf-8")
    (folder / "requirements.txt").write_text("prefect\nhumanize\n", "utf-8")
    (folder / "README.md").write_text("# Sales\n", "utf-8")
    command = [CLI.with_name("prefect"), "--no-prompt", "init", "--recipe", "local"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (folder / "prefect.yaml").read_text("utf-8")
    entries = """deployments:
- name: nightly # of ours
  entrypoint: flows/report.py:report
  parameters: {count: 5}
  schedule: {cron: "0 1 * * *"}
  work_pool: {name: sales}
- name: hello
  entrypoint: hello.py:hello
  work_pool: {name: sales}
"""
    (folder / "prefect.yaml").write_text(text[: text.index("deployments:")] + entries, "utf-8")
    return commit(folder)


def test_an_existing_repository_keeps_its_flows_and_deployments(existing: Path, next_release: Path) -> None:
    before = tree(existing)
    told = re.search(rf"uvx copier (copy (?:.*\\\n)*.*) {re.escape(bootstrap.UPSTREAM)} \.", ADOPT)
    assert told
    command = f"{CLI} {told[1]} --defaults --quiet --vcs-ref {PRESENT} {next_release} ."
    done = subprocess.run(["bash", "-ec", command], cwd=existing, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    after = tree(existing)
    assert {name for name in before if after[name] != before[name]} == set()
    assert {name for name in after if name.startswith("flows/")} == {"flows/report.py"}

    drift = make(existing, "template-drift").stdout
    assert "prefect.yaml" in drift  # so one sees what the template would have there
    text = (existing / "prefect.yaml").read_text("utf-8")
    old = re.search(r"(?m)^pull:\n(?:[- ].*\n|\n|#.*\n)*", text)
    assert old
    text = text.replace(old[0], "pull: []\n\n")
    text = text.replace('  schedule: {cron: "0 1 * * *"}\n', '  schedules: [{slug: nightly, cron: "0 1 * * *"}]\n')
    (existing / "prefect.yaml").write_text(text, "utf-8")
    done = subprocess.run([sys.executable, "-c", DECLARED], cwd=existing, capture_output=True, text=True, timeout=120)
    assert done.stdout.count("would not find") == 2, done.stderr
    text = text.replace("flows/report.py:report", "flows.report.report").replace("hello.py:hello", "hello.hello")
    (existing / "prefect.yaml").write_text(text, "utf-8")
    done = subprocess.run([sys.executable, "-c", DECLARED], cwd=existing, capture_output=True, text=True, timeout=120)
    assert done.stdout == "['hello/hello', 'report/nightly'] []\n", done.stderr

    commit(existing)
    update(existing)
    assert stored(existing)["_commit"] == "v1002.0.0"
    assert (existing / "prefect.yaml").read_text("utf-8") == text
    assert {name for name in tree(existing) if name.startswith("flows/")} == {"flows/report.py"}
