"""Each choice: a project that has it passes its own tests and its linter, in the environment of these tests."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from answers import CHOICES, JINJA, Answers, Item, Render, completed, completions, label, matrix
from checks import contents, installed

ALL = "MATRIX_SIZE" in os.environ  # `make nightly`
TOML = JINJA.get_template("template/pyproject.toml.jinja")


def each_choice() -> list[Answers]:
    """Return sets of answers whose packages are installed here: every night all, else few that hold each choice."""
    fit = [row for row in matrix(0, 0) if installed(tomllib.loads(TOML.render(completed(row))))]
    if ALL:
        return fit
    few, missing = [], set().union(*map(choices, fit))
    while missing:
        few.append(max(fit, key=lambda row: len(choices(row) & missing)))
        missing -= choices(few[-1])
    return few


def choices(row: Answers) -> set[Item]:
    return {(name, value) for name, value in row.items() if value in CHOICES.get(name, ())}


def own_tests(project: Path) -> list[str]:
    """Return what a project's own tests complain of, run in this environment without Prefect settings."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not server", "-p", "no:kmock", "-p", "no:cacheprovider"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTEST_"))}
    env["PREFECT_HOME"] = str(project.parent / "home")
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


@pytest.mark.parametrize("row", each_choice(), ids=label)
def test_a_project_with_this_choice_passes_its_own_tests(row: Answers, render: Render) -> None:
    assert own_tests(render(**row)) == []


@pytest.mark.parametrize("database", CHOICES["database"])
@pytest.mark.parametrize("store", CHOICES["secrets_backend"])
def test_each_database_with_each_store_passes_its_own_tests_in_each_cloud(
    store: str, database: str, render: Render
) -> None:
    """What one cloud has byte for byte as another, but for the line in the answers file, is run once."""
    different = {}
    for cloud in CHOICES["cloud_provider"]:
        wanted = {"database": database, "secrets_backend": store, "cloud_provider": cloud}
        if row := next(completions(wanted), None):
            project = render(**row)
            different[repr(contents(project) | {".copier-answers.yml": b""})] = project
    assert [fault for project in different.values() for fault in own_tests(project)] == []


def test_own_tests_tell_every_fault_of_prefect_yaml(render: Render) -> None:
    project = render()
    file = project / "prefect.yaml"
    file.write_text(file.read_text("utf-8").replace("timezone:", "timezon:"), "utf-8")
    faults = [f"deployment {name}: unknown key schedules.0.timezon" for name in ("etl-daily", "ml-training")]
    told = own_tests(project)
    assert all(any(line.startswith(fault) for line in told) for fault in faults)
