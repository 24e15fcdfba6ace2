"""The renderer of the configurator does what Copier does: the same bytes, the same refusals, the same commands."""

import io
import shlex
import stat
import zipfile
from pathlib import Path
from unittest.mock import Mock

import copier
import pytest
import yaml
from answers import QUESTIONS, ROOT, Answers, Render
from copier._cli import CopierApp
from copier._main import Worker
from test_doors import cookiecut, sampled, tree
from test_refusals import BAD_TEXTS

from configurator.render import Refused, Template, archive, commands, folder_of

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
        *({name: "nonsense"} for name, question in QUESTIONS.items() if "choices" in question),
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
        template.project(template.ask(given), "gh:OWNER/copier-prefect")
    assert str(ours.value) == str(copiers.value)


def test_the_archive_keeps_what_can_be_executed(template: Template) -> None:
    files = template.project(template.ask({}), "gh:OWNER/copier-prefect", "v1.2.3")
    files["Makefile"].executable = True
    zipped = zipfile.ZipFile(io.BytesIO(archive(files, "my-flows")))
    modes = {info.filename.removeprefix("my-flows/"): info.external_attr >> 16 for info in zipped.infolist()}
    assert modes == {name: stat.S_IFREG | (0o755 if name == "Makefile" else 0o644) for name in files}
    answers = yaml.safe_load(zipped.read("my-flows/.copier-answers.yml"))
    assert answers["_src_path"] == "gh:OWNER/copier-prefect"
    assert answers["_commit"] == "v1.2.3"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_states_what_is_not_the_default(name: str, template: Template) -> None:
    asked = template.ask(PRESETS[name]["answers"])
    assert not asked.refusals
    assert asked.changed == PRESETS[name]["answers"]
