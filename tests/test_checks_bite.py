"""The checks see the faults they are there for: each fault is planted in a clean copy."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import checks
import copier
import pytest
from answers import ROOT, Answers, completed, cover, rendered
from pathspec import PathSpec
from test_choices import own_tests
from test_workflows import audit

Check = Callable[[Path], list[str]]

TEXT_FAULTS = [
    (checks.template_markup, "Makefile", "# {{ project_slug }}\n"),
    (checks.template_markup, "ops/automations.py", "# {{ project_slug }}\n"),
    (checks.template_markup, "ops/kinds.py", "# {{ flow.name }}\n"),
    (checks.template_markup, "prefect.yaml", "{% if has_sla %}\n"),
    (checks.template_markup, "prefect.yaml", "{# why #}\n"),
    (checks.template_markup, ".github/workflows/ci.yml", "# {{ secrets.KEY }}\n"),
    (checks.template_markup, ".github/workflows/ci.yml", "# ${{ project_slug }}\n"),
    (checks.untidy_text, "Makefile", "# trailing \n"),
    (checks.untidy_text, "Makefile", "# carriage return\r\n"),
    (checks.untidy_text, "Makefile", "# no newline"),
    (checks.untidy_text, "Makefile", "\n"),
    (checks.untidy_text, "Makefile", "\n\n\n# far away\n"),
    (checks.untidy_text, "Makefile", "<<<<<<< before updating\n"),
    (checks.untidy_text, "flows/empty.py", ""),
    (checks.unfit_paths, 'flows/a"b.py', ""),
    (checks.unfit_paths, "flows/a:b.py", ""),
    (checks.unfit_paths, f"flows/{'a' * 120}.py", ""),
    (checks.unparsable, "prefect.yaml", "a: [\n"),
    (checks.unparsable, "pyproject.toml", "a = \n"),
    (checks.unparsable, "flows/a.json", "{,}\n"),
    (checks.unparsable, "flows/etl.py", "def\n"),
    (checks.unformatted_python, "flows/etl.py", "a = {'b':1}\n"),
    (checks.python_lint, "flows/etl.py", "import os\n"),
    (checks.yaml_lint, "prefect.yaml", "name: again\n"),
    (checks.unlike_the_editor, "Makefile", "x:\n  true\n"),
    (checks.unlike_the_editor, "prefect.yaml", "a:\n   - b\n"),
    (checks.unlike_the_editor, "flows/etl.py", "if 1:\n\tpass\n"),
    (checks.unfit_deployments, "prefect.yaml", "push: text\n"),
    (checks.unexpected_files, "flows/more.py", ""),
    (checks.untyped, "ops/limits.py", "MORE: int = 'text'\n"),
]


def append(file: Path, text: str) -> None:
    with file.open("a", encoding="utf-8", newline="") as stream:
        stream.write(text)


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    """A copy of the project of all defaults, to break."""
    return shutil.copytree(project, tmp_path / "my-flows")


@pytest.fixture
def template(source: Path, tmp_path: Path) -> Path:
    """A copy of the template, to break."""
    return shutil.copytree(source, tmp_path / "source")


@pytest.mark.parametrize(("check", "file", "text"), TEXT_FAULTS)
def test_check_sees_a_fault_in_a_file(check: Check, file: str, text: str, copy: Path) -> None:
    assert check in checks.CHECKS + checks.OF_UNTOUCHED + checks.OF_PYTHON
    before = set(check(copy))
    append(copy / file, text)
    assert set(check(copy)) - before


def test_check_sees_an_empty_folder_and_a_link(copy: Path) -> None:
    (copy / "empty").mkdir()
    (copy / "link").symlink_to("Makefile")
    assert checks.unfit_paths(copy) == ["empty: is an empty folder", "link: is a symbolic link"]


def test_a_missing_file_is_seen(copy: Path) -> None:
    (copy / "Makefile").unlink()
    assert checks.unexpected_files(copy) == ["Makefile: is missing"]


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("copier.yml", "\nlonely: {type: bool, when: false, default: true}\n", "copier.yml: lonely"),
        ("data/databases.yml", "  lonely: true\n", "data/databases.yml: lonely"),
        ("data/versions.yml", "lonely: '1'\n", "data/versions.yml: lonely"),
        ("data/lonely.yml", "row: {title: Row}\n", "data/lonely.yml"),
        ("includes/lonely.jinja", "text\n", "includes/lonely.jinja"),
    ],
)
def test_unused_sees_what_is_never_read(file: str, text: str, fault: str, source: Path, template: Path) -> None:
    (template / "includes").mkdir(exist_ok=True)
    append(template / file, text)
    assert set(checks.unused(template)) - set(checks.unused(source)) == {fault}


def test_markup_in_a_file_without_the_suffix_is_seen(template: Path, tmp_path: Path) -> None:
    append(template / "template/.gitignore", "# {{ project_slug }}\n")
    copier.run_copy(str(template), tmp_path / "my-flows", defaults=True, quiet=True)
    assert ".gitignore: not rendered: {{ project_slug }}" in checks.template_markup(tmp_path / "my-flows")


def unsafe_workflows(project: Path) -> list[str]:
    try:
        audit(*project.glob(".github/workflows/*"))
    except AssertionError as error:
        return [str(error)]
    return []


TEMPLATE_FAULTS = [
    pytest.param(
        "prefect.yaml.jinja", r"\A", "# {{ '{{' }} project_slug }}\n", checks.template_markup, id="stray markup"
    ),
    pytest.param("prefect.yaml.jinja", r"(?m)^pull: .*", "pull: [", checks.unparsable, id="broken YAML"),
    pytest.param("prefect.yaml.jinja", r"(?m)^name:", "name :", checks.yaml_lint, id="odd YAML"),
    pytest.param("pyproject.toml.jinja", r'name = "', 'name = ""', checks.unparsable, id="broken TOML"),
    pytest.param("ops/settings.py.jinja", r"(?m)^import|^from", "from  ", checks.unformatted_python, id="unformatted"),
    pytest.param("ops/environments.py", r"\Z", "\nimport os\n", checks.python_lint, id="unused import"),
    pytest.param("ops/report.py", r"-> str:", "-> int:", checks.untyped, id="wrong type"),
    pytest.param("prefect.yaml.jinja", r"cron:", "crom:", own_tests, id="misspelt key"),
    pytest.param(
        "ops/automations.py.jinja", r"block_id\(f\"{PROJECT}", 'block_id(f"{PROJECT}s', own_tests, id="block name"
    ),
    pytest.param("ops/automations.py.jinja", r"if has_alerts", "if not has_alerts", own_tests, id="wrong condition"),
    pytest.param(
        ".github/workflows/ci.yml.jinja", r"@[0-9a-f]{40} #.*", "@main", unsafe_workflows, id="unpinned action"
    ),
]


@pytest.mark.parametrize(("file", "old", "new", "check"), TEMPLATE_FAULTS)
def test_a_fault_in_the_template_is_seen(
    file: str, old: str, new: str, check: Check, template: Path, project: Path, tmp_path: Path
) -> None:
    path = template / "template" / file
    text, times = re.subn(old, lambda _: new, path.read_text("utf-8"))
    assert times
    path.write_text(text, "utf-8")
    if check is not own_tests:  # tests/test_choices.py has that
        assert check(project) == []
    copier.run_copy(str(template), tmp_path / "my-flows", defaults=True, quiet=True, settings=copier.Settings())
    assert check(tmp_path / "my-flows")


def test_a_file_that_the_template_lost_is_seen(template: Path, tmp_path: Path) -> None:
    (template / "template/ops/environments.py").unlink()
    copier.run_copy(str(template), tmp_path / "my-flows", defaults=True, quiet=True, settings=copier.Settings())
    assert checks.unexpected_files(tmp_path / "my-flows") == ["ops/environments.py: is missing"]


def test_every_condition_of_a_file_is_seen_when_it_is_wrong() -> None:
    """Turn the conditions of includes/left_out.jinja around, one by one: some pair of choices shows each."""
    lines = (ROOT / "includes/left_out.jinja").read_text("utf-8").splitlines()
    conditions = [number for number, line in enumerate(lines) if re.match(r"{% (el)?if ", line)]
    rows = [completed(row) for row in cover()]
    assert conditions
    assert not any(misplaced("\n".join(lines), row) for row in rows)
    for number in conditions:
        wrong = lines[:]
        wrong[number] = re.sub(r"if (.*) %}", r"if not (\1) %}", lines[number])
        assert any(misplaced("\n".join(wrong), row) for row in rows), lines[number]


def misplaced(left_out: str, answers: Answers) -> set[str]:
    """Return the files that docs/files.md and these patterns place differently."""
    excluded = PathSpec.from_lines("gitignore", rendered(left_out, answers).splitlines())
    return {name for name in checks.ownership() if not excluded.match_file(name)} ^ set(checks.owned(answers))
