"""The checks see the faults they are there for: each fault is planted in a clean copy."""

import shutil
from collections.abc import Callable
from pathlib import Path

import checks
import copier
import pytest

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
