"""The renderer of the configurator does what Copier does: the same bytes, the same refusals, the same commands."""

import io
import shlex
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path
from unittest.mock import Mock

import copier
import pytest
import yaml
from answers import CHOICES, QUESTIONS, ROOT, Answers, Render
from copier._cli import CopierApp
from copier._main import Worker
from test_doors import cookiecut, sampled, tree
from test_refusals import BAD_TEXTS

import bootstrap
from configurator.render import Refused, Session, Template, archive, commands, compared, folder_of

PRESETS = yaml.safe_load((ROOT / "configurator/presets.yml").read_text("utf-8"))
GIVEN = {name: row["answers"] for name, row in PRESETS.items()}
GIVEN |= {
    f"random {seed}": {name: list(v) if isinstance(v, tuple) else v for name, v in sampled(seed)[1].items()}
    for seed in range(100, 130)
}


@pytest.fixture(scope="module")
def template(source: Path) -> Template:
    return Template(source)


@pytest.fixture(autouse=True)
def without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    # Copier asks Git about each file of a project that lies in a repository; these do not.
    monkeypatch.setattr(Worker, "_sync_git_index_executable_bit", Mock(), raising=False)


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_it_gives_the_bytes_of_copier(given: Answers, template: Template, render: Render) -> None:
    expected = tree(render(**given))
    files = template.project(template.ask(given), str(template.root))
    assert {name: file.content for name, file in files.items()} == {name: body for name, (_, body) in expected.items()}
    assert {name for name, file in files.items() if file.executable} == {
        name for name, (mode, _) in expected.items() if mode & stat.S_IXUSR
    }


@pytest.mark.parametrize("given", list(GIVEN.values())[:10], ids=list(GIVEN)[:10])
def test_the_commands_give_the_same(
    given: Answers, template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(template, given)
    asked = template.ask(given, folder)
    files = {name: file.content for name, file in template.project(asked, str(template.root)).items()}
    typed = {tool: shlex.split(command) for tool, command in commands(template, asked, str(template.root)).items()}

    assert typed["copier"][:4] == ["uvx", "copier", "copy", "--defaults"]
    assert typed["copier"][-1] == folder
    (tmp_path / "copier").mkdir()
    monkeypatch.chdir(tmp_path / "copier")
    assert CopierApp.run([*typed["copier"][1:], "--quiet"], exit=False)[1] == 0
    assert {name: body for name, (_, body) in tree(Path(folder)).items()} == files

    start = ["uvx", "--with", "copier", "cookiecutter", "--no-input", str(template.root)]
    assert typed["cookiecutter"][: len(start)] == start
    answers = dict(word.split("=", 1) for word in typed["cookiecutter"][len(start) :])
    made = cookiecut(answers, template.root, tmp_path, monkeypatch)
    assert made.name == folder
    assert {name: body for name, (_, body) in tree(made).items()} == files


@pytest.mark.parametrize(
    "given",
    [
        *({"pool_type": "docker", name: value} for name, value in BAD_TEXTS[::7]),
        *({name: "nonsense"} for name in CHOICES),
        *({name: ["nonsense"]} for name, question in QUESTIONS.items() if question.get("multiselect")),
        {"pool_type": "managed"},
        {"pool_type": "ecs", "cloud_provider": "gcp"},
        {"project_slug": "mine"},
    ],
    ids=ascii,
)
def test_it_refuses_with_the_words_of_copier(given: Answers, template: Template, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError)) as copiers:
        copier.run_copy(str(template.root), tmp_path / "my-flows", given, defaults=True, quiet=True)
    with pytest.raises(Refused) as ours:
        template.project(template.ask(given), bootstrap.UPSTREAM)
    assert str(ours.value) == str(copiers.value)


def test_the_archive_keeps_what_can_be_executed(template: Template) -> None:
    files = template.project(template.ask({}), bootstrap.UPSTREAM, "v1.2.3")
    files["Makefile"].executable = True
    zipped = zipfile.ZipFile(io.BytesIO(archive(files, "my-flows")))
    modes = {info.filename.removeprefix("my-flows/"): info.external_attr >> 16 for info in zipped.infolist()}
    assert modes == {name: stat.S_IFREG | (0o755 if name == "Makefile" else 0o644) for name in files}
    answers = yaml.safe_load(zipped.read("my-flows/.copier-answers.yml"))
    assert answers["_src_path"] == bootstrap.UPSTREAM
    assert answers["_commit"] == "v1.2.3"


def test_a_project_from_the_archive_can_be_updated(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Me")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "me@example.com")

    def git(folder: Path, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)

    def release(version: str) -> None:
        git(published, "add", "--all")
        git(published, "commit", "--message", version)
        git(published, "tag", version)

    published = tmp_path / "template"
    shutil.copytree(source, published)
    git(published, "init")
    release("v1.0.0")
    session = Session(published, str(published), "v1.0.0")
    session.show({"database": "postgresql", "image_registry": "ghcr.io/not-asked"})
    zipfile.ZipFile(io.BytesIO(session.archive())).extractall(tmp_path)

    project = tmp_path / "my-flows"
    git(project, "init")
    git(project, "add", "--all")
    git(project, "commit", "--message", "Create the project")
    (published / "template/NEWS.md").write_text("new\n", "utf-8")
    release("v2.0.0")
    copier.run_update(project, defaults=True, overwrite=True, quiet=True)
    assert (project / "NEWS.md").read_text("utf-8") == "new\n"
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))
    assert answers["_commit"] == "v2.0.0"
    assert answers["database"] == "postgresql"
    done = subprocess.run(["git", "status", "--porcelain"], cwd=project, capture_output=True, text=True)
    assert sorted(done.stdout.splitlines()) == [" M .copier-answers.yml", "?? NEWS.md"]


def test_what_changed_is_told(source: Path) -> None:
    session = Session(source, str(source), "")
    session.show({})
    found = session.show({"database": "postgresql", "ci": "none"})
    states = {file["name"]: file["state"] for file in found["files"]}
    assert states["pyproject.toml"] == "changed"
    assert states["Makefile"] in ("", "changed")
    assert {name for name in found["gone"] if "/ci.yml" in name} == {".github/workflows/ci.yml"}
    assert session.show({})["gone"] == [name for name, state in states.items() if state == "new"]
    assert compared("a\nb\nc\n", "a\nx\ny\nc\n") == {"added": [1, 2], "removed": 1}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_states_what_is_not_the_default(name: str, template: Template) -> None:
    asked = template.ask(PRESETS[name]["answers"])
    assert not asked.refusals
    assert asked.changed == PRESETS[name]["answers"]
