"""Each choice: a project that has it passes its own tests and its linter, in the environment of these tests."""

import os
import subprocess
import sys
import tomllib
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from answers import CHOICES, JINJA, Answers, Render, completed, completions, label, matrix
from checks import installed

ALL = "MATRIX_SIZE" in os.environ  # `make nightly`
DATA = ("cloud_provider", "database", "secrets_backend")  # combined in every way, then
TOML = JINJA.get_template("template/pyproject.toml.jinja")


def each_choice() -> list[Answers]:
    """Return sets of answers whose packages are installed here: every night all, else few that hold each choice."""
    combined = [dict(zip(DATA, values, strict=True)) for values in product(*(CHOICES[name] for name in DATA)) if ALL]
    rows = [row for answers in combined if (row := next(completions(answers), None))]
    fit = [row for row in [*rows, *matrix(0, 0)] if installed(tomllib.loads(TOML.render(completed(row))))]
    if ALL:
        return fit
    few, missing = [], set().union(*map(choices, fit))
    while missing:
        few.append(max(fit, key=lambda row: len(choices(row) & missing)))
        missing -= choices(few[-1])
    return few


def choices(row: Answers) -> set[tuple[Any, ...]]:
    """Return the choices in a set of answers, and which database stands with which secret store."""
    made = {(name, value) for name, value in row.items() if value in CHOICES.get(name, ())}
    return made | {(row["database"], row["secrets_backend"])}


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
