"""Cookiecutter and "Use this template" give what Copier gives, and what they refuse leaves nothing behind."""

import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import zipfile
import zlib
from argparse import Namespace
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import copier
import kills
import pytest
import yaml
from answers import CANARY, CHOICES, QUESTIONS, ROOT, SETTINGS, Answers, Render, allowed, default, offered, rendered
from checks import stored
from cookiecutter.generate import generate_context
from cookiecutter.main import cookiecutter
from cookiecutter.prompt import prompt_for_config
from cookiecutter.utils import create_env_with_context
from copier._cli import CopierApp
from copier._main import Worker
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_cookies.plugin import Cookies

import bootstrap

BIN = Path(sys.executable).parent
FORM = ROOT / ".github/workflows/create-project.yml"
TEXTS = {
    "project_name": ["my-flows", "My Flows - v_2", "x", "null", "a" * 50],
    "project_description": ["Lädt O'Briens Aufträge: 100% & mehr (#1)!"],
    "user_name": ["Zoë O'Hara-Müller, R&D (Köln)"],
    "user_email": ["", "first.last+flows@mail.example.co.uk"],
    "sla_minutes": ["1", "60", "10080"],
    "image_registry": ["ghcr.io/owner", "registry.example.com:5000/data/flows"],  # blank is Copier's default
}
SLUG = create_env_with_context({"cookiecutter": {}}).from_string(
    json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))["project_slug"]
)
NEXT = "# what the next release adds\n"

Tree = dict[str, tuple[int, bytes]]


def tree(folder: Path) -> Tree:
    """Return each file with its mode and content, apart from Git's own."""
    paths = (path for path in folder.rglob("*") if not path.is_dir())
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    return {
        name: (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
        for name, path in files.items()
        if not name.startswith(".git/")
    }


def text(value: Any) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, tuple) else value


# --- in one process: what each door hands to Copier -------------------------------------------------


@cache
def hook(name: str, context: str) -> Answers:
    """Return the names that a hook defines, filled in and run as Cookiecutter does, but not as the main program."""
    known = {"cookiecutter": json.loads(context)}
    code = (ROOT / f"hooks/{name}.py").read_text("utf-8")
    names: Answers = {"__name__": name}
    exec(create_env_with_context(known).from_string(code).render(known), names)  # noqa: S102
    return names


def context(**entries: Any) -> str:
    usual = {"_template": "/t", "_repo_dir": "/t", "_output_dir": "/", "_checkout": None, "project_slug": "my-flows"}
    return json.dumps(usual | entries)


def sampled(seed: int) -> tuple[Answers, Answers]:
    """Return an answer to every question, and those of them that apply."""
    pick = random.Random(seed)
    given: Answers = {}
    apply: Answers = {}
    known: Answers = {}
    for name, question in QUESTIONS.items():
        known[name] = default(question, known)
        if question.get("when") is False:
            continue
        options = allowed(name, known) if name in CHOICES else TEXTS.get(name)
        if question.get("multiselect"):
            parts = [part for part in offered(question, known) if (part,) in options]
            given[name] = tuple(part for part in parts if pick.random() < 0.5)
        else:
            given[name] = pick.choice(options or [known[name]])
        if yaml.safe_load(rendered(question.get("when", True), known)):
            known[name] = apply[name] = given[name]
    return given, apply


def cookiecut(given: Answers, source: Path, parent: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the project that `cookiecutter --no-input` makes in the folder `parent` with the words `given`."""
    questions = generate_context(str(ROOT / "cookiecutter.json"), extra_context=given)
    chosen = prompt_for_config(questions, no_input=True)
    post_gen = hook("post_gen_project", context(**chosen, _template=str(source), _repo_dir=str(source)))
    folder = parent / chosen["project_slug"]
    folder.mkdir()
    (folder / "HOOKS-ARE-OFF.md").touch()

    def run(command: list[str], **_: Any) -> Namespace:
        assert command[:3] == [sys.executable, "-m", "copier"]
        return Namespace(returncode=CopierApp.run(command[2:], exit=False)[1], stderr="")

    post_gen["subprocess"] = SimpleNamespace(run=run, PIPE=subprocess.PIPE)
    monkeypatch.chdir(folder)
    post_gen["main"]()
    return folder


@pytest.mark.parametrize("seed", range(40))
def test_every_door_gives_the_same_bytes(
    seed: int, source: Path, render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Copier asks Git about each file of a project that lies in a repository; these do not, and it takes a third longer.
    monkeypatch.setattr(Worker, "_sync_git_index_executable_bit", Mock(), raising=False)
    given, apply = sampled(seed)
    expected = render(**apply)
    assert stored(expected).keys() == {"_src_path", *apply}

    data = [(name, text(value)) for name, value in given.items()]
    monkeypatch.setattr(bootstrap, "UPSTREAM", str(source))
    bootstrap.render(tmp_path / "bootstrap", Namespace(data=data, defaults=True, vcs_ref=None))
    assert tree(tmp_path / "bootstrap") == tree(expected)

    folder = cookiecut(dict(data), source, tmp_path, monkeypatch)
    assert tree(folder) == tree(expected)


@settings(max_examples=50, deadline=None)
@given(st.from_regex(r"[A-Za-z][A-Za-z0-9 _-]{0,48}[A-Za-z0-9_-]", fullmatch=True))
def test_the_folder_is_named_by_the_slug(name: str) -> None:
    slug = SLUG.render(cookiecutter={"project_name": name})
    assert slug == rendered(QUESTIONS["project_slug"]["default"], {"project_name": name})


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_a_hook_reads_any_answer_as_it_was_given(answer: str) -> None:
    assert hook("post_gen_project", context(user_name=answer))["CONTEXT"]["user_name"] == answer


@pytest.mark.parametrize(
    ("origin", "typed", "kept"),
    [
        ("https://github.com/o/t.git", "gh:o/t", "gh:o/t"),
        ("https://gitlab.com/o/t.git", "gl:o/t", "gl:o/t"),
        ("https://github.com/o/t", "https://github.com/o/t", "https://github.com/o/t"),
        ("git@example.com:o/t", "git@example.com:o/t", "git@example.com:o/t"),
        ("file:///o/t.git", "file:///o/t.git", "file:///o/t.git"),
        ("file:///o/t", "git+file:///o/t", "git+file:///o/t"),
        ("https://bitbucket.org/o/t.git", "bb:o/t", "https://bitbucket.org/o/t.git"),
        ("https://example.com/o/t", "mine:t", "git+https://example.com/o/t"),
        ("https://example.com/o/t", "t", "git+https://example.com/o/t"),  # an earlier clone of Cookiecutter
    ],
)
def test_the_address_is_kept_as_copier_spells_it(origin: str, typed: str, kept: str, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", origin], check=True)
    post_gen = hook("post_gen_project", context(_template=typed, _repo_dir=str(tmp_path)))
    assert post_gen["address"](tmp_path) == kept


def test_a_blank_answer_is_left_to_copier() -> None:
    post_gen = hook("post_gen_project", context(user_email="", ci="none", _checkout="v1", __hidden="x"))
    assert post_gen["options"]() == ["--vcs-ref=v1", "--data=ci=none"]


def test_copier_is_found_beside_cookiecutter_or_on_the_path_or_by_uvx(monkeypatch: pytest.MonkeyPatch) -> None:
    find = hook("post_gen_project", context())["copier"]
    assert find() == [sys.executable, "-m", "copier"]
    monkeypatch.setitem(sys.modules, "copier", None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert find() == ["copier"]
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/uvx" if name == "uvx" else None)
    assert find() == ["uvx", "copier"]


def test_generated_files_are_up_to_date() -> None:
    command = [sys.executable, "scripts/cookiecutter_json.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


# How the address is given: in a command, as the words that stand for it, as a link of the site, and as a name to GitHub.
GIVEN = re.compile(
    r"(gh:[\w-]+/[\w.-]*\w)|`(\S+)` stands for the|link: https://github\.com/(\S+)|repository\.name == '([^']*)'"
)


def addresses(repository: Path) -> list[tuple[str, str]]:
    """Return each place of a copy of the template that gives its address, or a part of it, with what it gives."""
    files = [repository / "README.md", repository / "mkdocs.yml", *sorted(repository.glob("docs/**/*.md"))]
    files += sorted([*repository.glob("docs/images/*.svg"), *repository.glob(".github/workflows/*.yml")])
    texts = {file.relative_to(repository).as_posix(): file.read_text("utf-8") for file in files}
    return [
        (name, next(filter(None, found.groups()))) for name, text in texts.items() for found in GIVEN.finditer(text)
    ]


def other(found: list[tuple[str, str]], upstream: str) -> list[tuple[str, str]]:
    """Return those of `found` that are not of the address `upstream`."""
    owner, name = bootstrap.place(upstream)
    return [(file, given) for file, given in found if given not in (upstream, f"{owner}/{name}", name)]


def test_every_file_gives_the_address_that_the_doors_use() -> None:
    found = addresses(ROOT)
    assert {"README.md", "mkdocs.yml", "docs/tutorial.md", ".github/workflows/ci.yml"} <= {file for file, _ in found}
    told = f"not {bootstrap.UPSTREAM}, as in bootstrap.py; docs/how-to/three-doors.md, Your own fork, changes all"
    assert other(found, bootstrap.UPSTREAM) == [], told


# --- real commands, on a machine of their own --------------------------------------------------------


@dataclass
class Machine:
    """A home whose Git finds the template's public address in a local repository with two releases."""

    home: Path
    upstream: Path

    @property
    def env(self) -> dict[str, str]:
        return {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ} | {"HOME": str(self.home)}

    def run(self, *command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=self.env | {"PWD": str(cwd)} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def ok(self, *command: str | Path, cwd: Path, **environment: str) -> str:
        done = self.run(*command, cwd=cwd, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def commit(self, folder: Path) -> None:
        self.ok("git", "init", "--quiet", cwd=folder)
        self.ok("git", "add", "--all", cwd=folder)
        self.ok("git", "commit", "--quiet", "--message", "A commit", cwd=folder)

    def copy(self, folder: Path, *options: str) -> Tree:
        self.ok(BIN / "copier", "copy", "--defaults", "-q", *options, bootstrap.UPSTREAM, folder, cwd=self.home)
        return tree(folder)

    def use_this_template(self, folder: Path) -> Path:
        """Return what GitHub makes: the files of the newest commit, with a history of their own."""
        self.ok("git", "clone", "--quiet", self.upstream, folder, cwd=self.home)
        shutil.rmtree(folder / ".git")
        self.commit(folder)
        self.ok("git", "remote", "add", "origin", "https://github.com/me/copier-prefect-flows", cwd=folder)
        return folder


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    home = tmp_path_factory.mktemp("home")
    machine = Machine(home, home / "copier-prefect.git")
    public = bootstrap.UPSTREAM.replace("gh:", "https://github.com/") + ".git"
    (home / ".gitconfig").write_text(
        f"[user]\nname = Me\nemail = me@example.com\n[init]\ndefaultBranch = main\n"
        f'[url "file://{machine.upstream}"]\ninsteadOf = {public}\n'
        f'[url "file://{home}/pushed.git"]\ninsteadOf = https://x-access-token:t@github.com/me/my-flows\n',
        "utf-8",
    )
    work = home / "work"
    junk = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "demo", "uv.lock")
    shutil.copytree(ROOT, work, ignore=junk)
    machine.commit(work)
    machine.ok("git", "tag", "v0.1.0", cwd=work)
    example = work / "template/.env.example.jinja"
    example.write_text(example.read_text("utf-8") + NEXT, "utf-8")
    (work / "template/doctor.sh").write_text("#!/bin/sh\nmake doctor\n", "utf-8")
    (work / "template/doctor.sh").chmod(0o755)
    machine.commit(work)
    machine.ok("git", "tag", "v0.2.0", cwd=work)
    machine.ok("git", "clone", "--quiet", "--bare", work, machine.upstream, cwd=home)
    return machine


@pytest.fixture(scope="module")
def old(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return machine.copy(tmp_path_factory.mktemp("old") / "my-flows", "--vcs-ref=v0.1.0")


@pytest.fixture(scope="module")
def new(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return machine.copy(tmp_path_factory.mktemp("new") / "my-flows")


def test_a_project_from_cookiecutter_can_be_updated(machine: Machine, old: Tree, new: Tree, tmp_path: Path) -> None:
    command = [BIN / "cookiecutter", "--no-input", bootstrap.UPSTREAM]
    told = machine.ok(*command, "--checkout", "v0.1.0", cwd=tmp_path)
    project = tmp_path / "my-flows"
    assert told.strip().splitlines()[:3] == ["my-flows is ready. Next:", "", f"    cd {project}"]
    assert tree(project) == old
    check_update(machine, project, new)


def test_a_project_from_use_this_template_can_be_updated(
    machine: Machine, old: Tree, new: Tree, tmp_path: Path
) -> None:
    project = machine.use_this_template(tmp_path / "my-flows")
    command = [sys.executable, "bootstrap.py", "--defaults", "--vcs-ref", "v0.1.0", "--data", "ci=github"]
    said = machine.ok(*command, cwd=project)
    assert "git reset --hard" in said
    assert tree(project) == old
    assert set(old) == set(machine.ok("git", "ls-files", cwd=project).splitlines())
    assert machine.ok("git", "rev-list", "--count", "HEAD", cwd=project) == "1\n"
    check_update(machine, project, new)


def check_update(machine: Machine, project: Path, new: Tree) -> None:
    machine.commit(project)
    machine.ok(BIN / "copier", "update", "--defaults", "--quiet", cwd=project)
    assert tree(project) == new
    assert new["doctor.sh"][0] & stat.S_IXUSR
    assert new[".env.example"][1].decode().endswith(NEXT)


# Where people and programs keep what they log in with, in a home and in the folder that they work in.
LOGINS = {
    ".aws/credentials": f"[default]\naws_secret_access_key = {CANARY}\n",
    ".git-credentials": f"https://me:{CANARY}@github.com\n",
    ".netrc": f"machine github.com login me password {CANARY}\n",
    ".prefect/profiles.toml": f'active = "mine"\n[profiles.mine]\nPREFECT_API_KEY = "{CANARY}"\n',
    ".vault-token": CANARY,
    "work/.env": "".join(f"{name}={CANARY}\n" for name in sorted(SETTINGS)),
}


@pytest.mark.parametrize("door", ["copier", "cookiecutter", "bootstrap"])
def test_no_secret_of_who_makes_a_project_comes_into_it(door: str, machine: Machine, tmp_path: Path) -> None:
    """Not of the environment, of files, or of the template's address; not into its history or an output either."""
    careless, work = Machine(tmp_path, machine.upstream), tmp_path / "work"
    for name, content in LOGINS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, "utf-8")
    address = bootstrap.UPSTREAM.replace("gh:", f"https://me:{CANARY}@github.com/") + ".git"
    (tmp_path / ".gitconfig").write_text(
        (machine.home / ".gitconfig").read_text("utf-8")
        + f'[url "file://{machine.upstream}"]\ninsteadOf = {address}\n'
        + f'[credential]\nhelper = store\n[http "https://github.com"]\nextraHeader = "Authorization: {CANARY}"\n',
        "utf-8",
    )
    project, told = work / "my-flows", ""

    def say(*command: str | Path, cwd: Path) -> None:
        nonlocal told
        done = careless.run(*command, cwd=cwd, **dict.fromkeys(SETTINGS, CANARY))
        told += done.stdout + done.stderr
        assert done.returncode == 0, told

    if door == "copier":
        say(BIN / "copier", "copy", "--defaults", "--vcs-ref=v0.1.0", address, project, cwd=work)
    elif door == "cookiecutter":
        say(BIN / "cookiecutter", "--no-input", "--checkout=v0.1.0", address, cwd=work)
    else:
        careless.use_this_template(project)
        careless.ok("git", "config", "remote.origin.url", address.replace(".git", "-made.git"), cwd=project)
        say(sys.executable, "bootstrap.py", "--defaults", "--vcs-ref=v0.1.0", cwd=project)
    shutil.copy(work / ".env", project)
    careless.commit(project)
    say(BIN / "copier", "update", "--defaults", cwd=project)
    careless.commit(project)

    public = bootstrap.UPSTREAM if door == "bootstrap" else address.replace(f"me:{CANARY}@", "")
    assert stored(project)["_src_path"] == public
    found = tree(project)
    assert found.pop(".env")
    assert [name for name, (_, content) in found.items() if CANARY.encode() in content] == []
    objects = [zlib.decompress(file.read_bytes()) for file in project.glob(".git/objects/??/*")]
    assert any(b"doctor.sh" in content for content in objects)
    assert not any(CANARY.encode() in content for content in objects)
    assert CANARY not in told


def test_a_local_folder_is_found_from_anywhere(machine: Machine, new: Tree, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    command = [BIN / "cookiecutter", "--no-input", "--output-dir", tmp_path / "out", "work"]
    machine.ok(*command, cwd=machine.home)
    found = tree(tmp_path / "out/my-flows")
    address = (f"_src_path: {bootstrap.UPSTREAM}\n", f"_src_path: {machine.home / 'work'}\n")
    mode, answers = new[".copier-answers.yml"]
    assert found == new | {".copier-answers.yml": (mode, answers.decode().replace(*address).encode())}


def test_a_zip_keeps_the_public_address(machine: Machine, new: Tree, tmp_path: Path) -> None:
    archive = tmp_path / "copier-prefect-0.2.0.zip"
    machine.ok("git", "archive", "--prefix=copier-prefect-0.2.0/", "-o", archive, "v0.2.0", cwd=machine.upstream)
    assert zipfile.is_zipfile(archive)
    machine.ok(BIN / "cookiecutter", "--no-input", archive, cwd=tmp_path)
    project = tmp_path / "my-flows"
    mode, answers = new[".copier-answers.yml"]
    found = tree(project)
    assert found[".copier-answers.yml"][1] == answers.replace(b"_commit: v0.2.0\n", b"")
    assert {name for name in new if found[name][1] != new[name][1]} == {".copier-answers.yml"}
    machine.commit(project)
    machine.ok(BIN / "copier", "recopy", "--defaults", "--overwrite", "--quiet", cwd=project)
    assert tree(project)[".copier-answers.yml"] == (mode, answers)  # can be updated from now on


def test_without_copier_cookiecutter_says_what_to_install(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text('import sys\nsys.modules["copier"] = None\n', "utf-8")
    (tmp_path / "out").mkdir()
    command = [BIN / "cookiecutter", "--no-input", machine.home / "work"]
    done = machine.run(*command, cwd=tmp_path / "out", PATH="/nowhere", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert f"{sys.executable} -m pip install copier" in done.stderr
    assert f"pipx run copier copy {machine.home / 'work'} my-flows" in done.stderr
    assert not list((tmp_path / "out").iterdir())


# --- Cookiecutter: what it refuses, through its own test tool -----------------------------------------


@pytest.fixture(scope="module")
def template(source: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The template without its history, with what Cookiecutter reads."""
    folder = tmp_path_factory.mktemp("template")
    shutil.copytree(source, folder, dirs_exist_ok=True)
    for part in ("hooks", "{{cookiecutter.project_slug}}"):
        shutil.copytree(ROOT / part, folder / part)
    shutil.copy(ROOT / "cookiecutter.json", folder)
    return str(folder)


def test_bake_gives_what_copier_gives(cookies: Cookies, template: str, tmp_path: Path) -> None:
    answers = {"project_name": "Sales Flows", "alert_channels": "[slack]", "alert_on": "[success]"}
    result = cookies.bake(template=template, extra_context=answers | {"sla_minutes": "5"})
    assert (result.exit_code, result.exception) == (0, None)
    assert result.project_path.name == "sales-flows"
    copier.run_copy(template, tmp_path / "expected", answers, defaults=True, quiet=True, settings=copier.Settings())
    assert tree(result.project_path) == tree(tmp_path / "expected")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"project_name": "../x"}, "project_name must start with a letter"),
        ({"project_name": "!"}, "project_name must start with a letter"),
        ({"sla_minutes": "0"}, "sla_minutes must be a whole number of minutes from 1 to 10080"),
        ({"alert_channels": "slack"}, "Not a YAML list: 'slack'"),
        ({"project_slug": "../x"}, "project_slug must be the name of one folder"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_a_refusal_is_one_line_and_leaves_nothing(
    answer: dict, reason: str, cookies: Cookies, template: str, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    result = cookies.bake(template=template, extra_context=answer)
    assert result.exit_code == -1
    assert reason in capfd.readouterr().err.partition("\n")[0]
    left = [path for path in tmp_path.rglob("*") if not path.name.startswith(("bake", "cookies"))]
    assert left == []


def test_a_refusal_keeps_the_folder_that_was_there(template: str, tmp_path: Path) -> None:
    (tmp_path / "my-flows").mkdir()
    (tmp_path / "my-flows/README.md").write_text("mine\n", "utf-8")
    with pytest.raises(Exception, match="Hook script failed"):
        cookiecutter(template, None, True, {"user_email": "@"}, None, True, str(tmp_path), default_config=True)
    assert tree(tmp_path).keys() == {"my-flows/README.md"}
    assert (tmp_path / "my-flows/README.md").read_text("utf-8") == "mine\n"


# --- "Use this template": what bootstrap.py leaves alone, and what can be undone ----------------------


@pytest.fixture
def copy(machine: Machine, tmp_path: Path) -> Path:
    return machine.use_this_template(tmp_path / "my-flows")


def test_the_command_for_a_fork_changes_every_address(machine: Machine, copy: Path) -> None:
    section = (ROOT / "docs/how-to/three-doors.md").read_text("utf-8").partition("## Your own fork")[2]
    command = re.search(r"\$ (git grep (?:.*\\\n)*.*)", section)
    assert command
    new = re.search(rf"#{'/'.join(bootstrap.place(bootstrap.UPSTREAM))}#([^#]+)#g", command[1])
    assert new
    before = addresses(copy)
    assert other(before, "gh:somebody/else") == before
    machine.ok("bash", "-euc", command[1], cwd=copy)
    assert other(addresses(copy), f"gh:{new[1]}") == []
    said = machine.ok(sys.executable, "-c", "import bootstrap; print(bootstrap.UPSTREAM)", cwd=copy)
    assert said == f"gh:{new[1]}\n"


def refused(machine: Machine, folder: Path, *options: str) -> str:
    """Return why bootstrap.py does not work in `folder`; fail if it changes anything there."""
    before = tree(folder)
    done = machine.run(sys.executable, "bootstrap.py", *options, cwd=folder)
    assert done.returncode == 1
    assert tree(folder) == before
    return done.stderr


def test_only_a_repository_made_from_the_template_is_replaced(machine: Machine, copy: Path, tmp_path: Path) -> None:
    (copy / "notes.txt").touch()
    assert refused(machine, copy, "--defaults").startswith("Commit or remove your changes first")
    (copy / "notes.txt").unlink()

    for address in ("https://github.com/{}.git", "git@github.com:{}", "https://github.com/{}/"):
        origin = address.format(bootstrap.UPSTREAM.removeprefix("gh:"))
        machine.ok("git", "config", "remote.origin.url", origin, cwd=copy)
        assert refused(machine, copy, "--defaults").startswith("This is the template itself")

    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(ROOT / "bootstrap.py", other)
    machine.commit(other)
    assert refused(machine, other, "--defaults").startswith("This is not a copy of the template")

    shutil.rmtree(copy / ".git")
    assert "not a git repository" in refused(machine, copy, "--defaults")
    machine.ok("git", "init", "--quiet", cwd=tmp_path)
    assert refused(machine, copy, "--defaults").startswith("This is not the top of a Git repository")


@pytest.mark.parametrize(
    ("upstream", "origin", "is_it"),
    [
        ("gh:acme/x", "https://user@github.com/Acme/X.git", True),
        ("gh:acme/x", "https://github.com/acme/x-flows", False),
        ("gh:acme/x", "https://github.com/other/x", False),
        ("git+file:///srv/origin.git", "file:///srv/origin.git", True),
        ("git+file:///srv/origin.git", "/srv/origin", True),
        ("git@github.com:acme/x.git", "https://github.com/acme/x", True),
        ("git@github.com:acme/x.git", "git@github.com:acme/y.git", False),
        ("https://git.acme.com/platform/x", "ssh://git@git.acme.com:22/platform/x.git/", True),
        ("https://git.acme.com/platform/x", "", False),
    ],
)
def test_the_template_is_known_by_any_address(
    upstream: str, origin: str, is_it: bool, machine: Machine, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "ROOT", copy)
    monkeypatch.setattr(bootstrap, "UPSTREAM", upstream)
    machine.ok("git", "config", "remote.origin.url", origin, cwd=copy)
    assert bootstrap.obstacle().startswith("This is the template itself") == is_it


def test_what_ends_before_the_swap_changes_nothing(machine: Machine, copy: Path) -> None:
    assert "Interactive session required" in refused(machine, copy)  # nobody is there to answer
    said = refused(machine, copy, "--defaults", "--data", "project_name=../x")
    assert "project_name must start with a letter" in said.splitlines()[0]
    assert said.endswith("Nothing was changed.\n")
    assert "v9" in refused(machine, copy, "--defaults", "--vcs-ref", "v9")


def test_an_interrupted_question_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(copier, "run_copy", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(SystemExit, match="Nothing was changed"):
        bootstrap.render(tmp_path, Namespace(data=[], defaults=False, vcs_ref=None))


@pytest.mark.parametrize("step", ["git checkout-index", "unlink"])
def test_a_swap_that_is_cut_short_can_be_undone(
    step: str, machine: Machine, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(copy)
    (tmp_path / "project/new").mkdir(parents=True)
    (tmp_path / "project/new/file").write_text("new\n", "utf-8")
    (tmp_path / "project/README.md").write_text("new\n", "utf-8")
    (tmp_path / "project/.gitignore").write_text("new/\n", "utf-8")  # an ignored file is not lost either
    monkeypatch.setattr(bootstrap, "ROOT", copy)
    git = bootstrap.git

    def killed(*arguments: Any, **options: Any) -> str:
        if arguments[0] == step.removeprefix("git "):
            raise KeyboardInterrupt
        return git(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "git", killed)
        patch.setattr(Path, "unlink", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            bootstrap.swap(tmp_path / "project")
    machine.ok("git", "reset", "--hard", cwd=copy)
    assert machine.ok("git", "status", "--porcelain", cwd=copy) == ""
    assert tree(copy) == before

    bootstrap.swap(tmp_path / "project")
    assert tree(copy).keys() == {"README.md", ".gitignore", "new/file"}
    assert {path.name for path in copy.iterdir()} == {"README.md", ".gitignore", "new", ".git"}


def test_a_bootstrap_that_is_killed_can_be_taken_back_and_done_again(
    machine: Machine, copy: Path, new: Tree, tmp_path: Path
) -> None:
    before = tree(copy)
    program = ("file", "bootstrap.py", "--defaults")
    whole = kills.run(0, shutil.copytree(copy, tmp_path / "whole"), *program, env=machine.env)
    assert whole.returncode == 0, whole.stderr
    for point in kills.points(whole, seed=4, number=3):
        assert kills.is_killed(kills.run(point, copy, *program, env=machine.env))
        if machine.ok("git", "status", "--porcelain", cwd=copy):
            said = refused(machine, copy, "--defaults")
            assert said.startswith(("Commit or remove your changes first", "An earlier run was cut short"))
            machine.ok("git", "reset", "--hard", cwd=copy)
            machine.ok("git", "clean", "-fd", cwd=copy)
        assert tree(copy) == before, point
    machine.ok(sys.executable, "bootstrap.py", "--defaults", cwd=copy)
    assert tree(copy).keys() == new.keys()


def test_help_and_options_are_plain(machine: Machine, copy: Path) -> None:
    assert "--data NAME=VALUE" in machine.ok(sys.executable, "bootstrap.py", "--help", cwd=copy)
    done = machine.run(sys.executable, "bootstrap.py", "--data", "ci", cwd=copy)
    assert done.returncode == 2
    assert "'ci' is not NAME=VALUE" in done.stderr


# --- the web form: its shell steps, with a local repository to push to --------------------------------


def test_the_web_form_offers_no_more_than_github_shows_and_says_it_in_sentences() -> None:
    inputs = form()["on"]["workflow_dispatch"]["inputs"]
    assert len(inputs) <= 25
    assert not [name for name, field in inputs.items() if re.search(r"\w Any of: ", field["description"])]


@pytest.mark.skipif(not shutil.which("jq"), reason="needs jq, which GitHub's runners have")
def test_the_web_form_and_its_second_step_give_the_project(
    machine: Machine, copy: Path, new: Tree, tmp_path: Path
) -> None:
    machine.ok("git", "init", "--quiet", "--bare", machine.home / "pushed.git", cwd=tmp_path)
    inputs = {name: field["default"] for name, field in form()["on"]["workflow_dispatch"]["inputs"].items()}
    runner = {
        "ANSWERS": json.dumps(inputs),
        "TOKEN": "t",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RUNNER_TEMP": str(tmp_path / "runner"),
        "GITHUB_REPOSITORY": "me/my-flows",
        "GITHUB_REF_NAME": "main",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }
    (tmp_path / "runner").mkdir()
    machine.ok("bash", "-e", "-c", form()["jobs"]["create"]["steps"][-1]["run"], cwd=copy, **runner)
    project = tmp_path / "clone/my-flows"
    machine.ok("git", "clone", "--quiet", machine.home / "pushed.git", project, cwd=tmp_path)
    assert tree(project) == {name: file for name, file in new.items() if not name.startswith(".github/workflows/")}
    command = re.search(r"uvx (copier recopy .*)", (tmp_path / "summary").read_text("utf-8"))
    assert command
    machine.ok("bash", "-e", "-c", f"{BIN}/{command[1]} --quiet", cwd=project)
    assert tree(project) == new


@cache
def form() -> Answers:
    return yaml.load(FORM.read_text("utf-8"), yaml.BaseLoader)  # noqa: S506 - only strings: `on` stays a word
