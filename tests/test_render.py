"""What is rendered: which files, and that they are clean for every pair of choices."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from answers import CHOICES, CONFIG, QUESTIONS, ROOT, Answers, Render, all_pairs, cover, pairs, unfit
from checks import contents, faults, files, stored, unused

FILES = [
    ".copier-answers.yml",
    ".env.example",
    ".github/workflows/ci.yml",
    ".github/workflows/template-update.yml",
    ".gitignore",
    ".pre-commit-config.yaml",
    "Makefile",
    "README.md",
    "flows/__init__.py",
    "flows/etl.py",
    "flows/ml_training.py",
    "flows/orders.csv",
    "flows/storage.py",
    "ops/__init__.py",
    "ops/__main__.py",
    "ops/api.py",
    "ops/automations.py",
    "ops/blocks.py",
    "ops/declared.py",
    "ops/deployments.py",
    "ops/dev.py",
    "ops/doctor.py",
    "ops/environments.py",
    "ops/flow.py",
    "ops/kinds.py",
    "ops/limits.py",
    "ops/reconcile.py",
    "ops/report.py",
    "ops/settings.py",
    "ops/variables.py",
    "ops/work_pools.py",
    "prefect.yaml",
    "pyproject.toml",
    "runtime/__init__.py",
    "runtime/secrets.py",
    "tests/conftest.py",
    "tests/test_deployments.py",
    "tests/test_etl.py",
    "tests/test_ml_training.py",
    "tests/test_ops.py",
    "tests/test_secrets.py",
    "tests/test_settings.py",
]

COVER = cover()
VERSIONS = yaml.safe_load((ROOT / "data/versions.yml").read_text("utf-8"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def label(row: Answers) -> str:
    return "-".join(
        "+".join(row[name]) if isinstance(row[name], tuple) else row[name] for name in CHOICES if name in row
    )


def test_default_project_holds_exactly_these_files(project: Path) -> None:
    assert files(project) == FILES
    assert len(FILES) <= 45


def test_no_workflow_without_github(render: Render) -> None:
    assert not (render(ci="none") / ".github").exists()


def test_cover_misses_only_what_does_not_fit_and_alerts_that_go_nowhere() -> None:
    missed = set(all_pairs()) - set().union(*map(pairs, COVER))
    nowhere = {frozenset([("alert_channels", ()), ("alert_on", value)]) for value in CHOICES["alert_on"]}
    assert missed == nowhere | {frozenset([(name, value), (other, fit[other])]) for name, value, other, fit in unfit()}


@pytest.mark.parametrize("row", COVER, ids=label)
def test_every_combination_is_clean(row: Answers, source: Path, render: Render) -> None:
    project = render(**row)
    assert faults(project) == ""
    asked = {name: list(answer) if isinstance(answer, tuple) else answer for name, answer in row.items()}
    assert stored(project) == {"_src_path": str(source)} | asked


def test_answers_file_holds_no_computed_answer_and_no_secret(project: Path) -> None:
    assert not {name for name, question in QUESTIONS.items() if question.get("secret")}
    assert not set(stored(project)) & {name for name, question in QUESTIONS.items() if question.get("when") is False}


def test_answer_to_a_hidden_question_changes_nothing(render: Render) -> None:
    hidden = {"alert_on": ["success", "sla"], "sla_minutes": 5}
    assert contents(render(alert_channels=[], **hidden)) == contents(render(alert_channels=[]))
    assert contents(render(alert_on=["success"], sla_minutes=5)) == contents(render(alert_on=["success"]))


def test_copy_asks_for_no_trust(source: Path, project: Path, tmp_path: Path) -> None:
    assert not {"_tasks", "_migrations", "_jinja_extensions"} & set(CONFIG)
    command = [sys.executable, "-m", "copier", "copy", "--defaults", str(source), str(tmp_path / "my-flows")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "my-flows is ready" in done.stderr
    assert contents(tmp_path / "my-flows") == contents(project)


def test_same_answers_give_the_same_bytes(project: Path, render: Render) -> None:
    assert contents(render()) == contents(project)


def test_versions_are_those_the_template_is_tested_with() -> None:
    assert PYPROJECT["tool"]["uv"]["exclude-newer"] == f"{VERSIONS['tested_on']}T00:00:00Z"
    assert f"prefect=={VERSIONS['prefect']}" in PYPROJECT["dependency-groups"]["dev"]


def test_nothing_is_stated_and_never_read(source: Path) -> None:
    assert unused(source) == []
