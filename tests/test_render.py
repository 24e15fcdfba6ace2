"""What is rendered: which files, and that they are clean for every pair of choices."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from answers import (
    CANARY,
    CHOICES,
    CONFIG,
    DEFAULTS,
    QUESTIONS,
    ROOT,
    SETTINGS,
    Answers,
    Render,
    all_pairs,
    completions,
    corners,
    label,
    matrix,
    pairs,
    rendered,
    unfit,
)
from checks import all_faults, contents, files, owned, ownership, stored, unused
from pathspec import PathSpec

# `make nightly`: many more, and others each time.
SIZE, SEED = int(os.environ.get("MATRIX_SIZE", "500")), int(os.environ.get("MATRIX_SEED", "0"))
MATRIX = matrix(SIZE, SEED)
VERSIONS = yaml.safe_load((ROOT / "data/versions.yml").read_text("utf-8"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def batches() -> list[Any]:
    """Return the matrix in parts, by pool type."""
    by_pool = {pool: [row for row in MATRIX if row["pool_type"] == pool] for pool in CHOICES["pool_type"]}
    return [
        pytest.param(rows[start : start + 30], id=f"{pool}-{start}")
        for pool, rows in by_pool.items()
        for start in range(0, len(rows), 30)
    ]


def test_default_project_holds_exactly_its_files_and_is_small(project: Path) -> None:
    assert files(project) == sorted(owned(DEFAULTS))
    assert len(files(project)) <= 48


def test_files_that_are_yours_are_those_that_an_update_leaves_alone() -> None:
    def kept(operation: str) -> set[str]:
        lines = [rendered(part, DEFAULTS | {"_copier_operation": operation}) for part in CONFIG["_exclude"]]
        excluded = PathSpec.from_lines("gitignore", "\n".join(lines).splitlines())
        return {name for name in ownership() if not excluded.match_file(name)}

    assert kept("copy") - kept("update") == set(owned(DEFAULTS, "you"))
    assert {name for name, (owner, _) in ownership().items() if owner == "you"} == set(owned(DEFAULTS, "you"))


@pytest.mark.parametrize(
    "answers",
    [
        {"pool_type": "kubernetes", "cloud_provider": "gcp", "observability": ["prometheus"]},
        {"pool_type": "ecs"},
        {"pool_type": "ecs", "image_registry": ""},
        {"pool_type": "docker", "image_registry": "acme.azurecr.io"},
    ],
    ids=str,
)
def test_the_readme_says_what_each_folder_is(answers: dict[str, Any], render: Render) -> None:
    project = render(**answers)
    table = (project / "README.md").read_text("utf-8").partition("## What lies where\n")[2].partition("\n## ")[0]
    folders = {each.name for each in project.iterdir() if each.is_dir() and not each.name.startswith(".")}
    assert {folder for folder in folders if f"| `{folder}/`" not in table} == set()
    assert "|  |" not in table


def test_no_workflow_without_github(render: Render) -> None:
    assert not (render(ci="none") / ".github").exists()


def test_matrix_misses_only_what_does_not_fit_and_alerts_that_go_nowhere() -> None:
    missed = set(all_pairs()) - set().union(*map(pairs, MATRIX))
    nowhere = {frozenset([("alert_channels", ()), ("alert_on", value)]) for value in CHOICES["alert_on"]}
    assert missed == nowhere | {
        frozenset([(name, choice), (other, fit[other])])
        for name, value, other, fit in unfit()
        for choice in CHOICES[name]
        if choice == value or (isinstance(choice, tuple) and value in choice)
    }


def test_matrix_holds_every_corner_that_can_be_chosen() -> None:
    missed = [corner for corner in corners() if not any(corner.items() <= row.items() for row in MATRIX)]
    assert len(missed) < len(corners())
    assert [next(completions(corner), None) for corner in missed] == [None] * len(missed)


@pytest.mark.parametrize("rows", batches())
def test_every_combination_is_clean(
    rows: list[Answers],
    source: Path,
    render: Render,
    tmp_path: Path,
    record_property: Callable[[str, int], None],
) -> None:
    for number, row in enumerate(rows):
        with pytest.MonkeyPatch.context() as environment:
            for name in SETTINGS:
                environment.setenv(name, CANARY)
            project = render(f"row-{number}", into=tmp_path, **row)
        assert [name for name, content in contents(project).items() if CANARY.encode() in content] == []
        asked = {name: list(answer) if isinstance(answer, tuple) else answer for name, answer in row.items()}
        assert stored(project) == {"_src_path": str(source)} | asked
    faults = all_faults(tmp_path)
    assert not faults, "\n".join(
        re.sub(r"row-(\d+)/", lambda found: f"with {label(rows[int(found[1])])}: ", fault) for fault in faults
    )
    record_property("combinations", len(rows))  # `make report` adds them up
    record_property("files", sum(path.is_file() for path in tmp_path.rglob("*")))
    shutil.rmtree(tmp_path)


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


def test_what_a_copy_tells_to_type_is_right_for_a_folder_with_a_space(source: Path, tmp_path: Path) -> None:
    folder = str(tmp_path / "My flows")
    command = [sys.executable, "-m", "copier", "copy", "--defaults", str(source), folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = re.findall("^ *(cd .*)", done.stderr, re.MULTILINE)
    assert shlex.split(line) == ["cd", folder]


def test_what_a_copy_tells_to_type_gives_the_branch_that_is_delivered(tmp_path: Path) -> None:
    """Git's own default is master, and deploy.yml delivers main."""
    (line,) = re.findall("git init.*", CONFIG["_message_after_copy"])
    begin = line.partition(" && ")[0].split()
    subprocess.run(begin, cwd=tmp_path, env=os.environ | {"GIT_CONFIG_GLOBAL": os.devnull}, check=True)
    assert (tmp_path / ".git/HEAD").read_text("utf-8").strip() == "ref: refs/heads/main"
    for file in (ROOT / "README.md", ROOT / "configurator/page.js", *ROOT.glob("docs/**/*.md")):
        assert not re.search("git init(?! -b main) &&", file.read_text("utf-8")), file


def test_same_answers_give_the_same_bytes(project: Path, render: Render) -> None:
    assert contents(render()) == contents(project)


def test_versions_are_those_the_template_is_tested_with() -> None:
    assert PYPROJECT["tool"]["uv"]["exclude-newer"] == f"{VERSIONS['tested_on']}T00:00:00Z"
    assert f"prefect=={VERSIONS['prefect']}" in PYPROJECT["dependency-groups"]["dev"]


def test_no_python_is_taken_that_packages_have_no_wheels_for(project: Path) -> None:
    """Else uv, where it finds none that fits, takes the newest, and builds orjson, for which it finds no Rust."""
    given = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]["requires-python"]
    assert given == f">={DEFAULTS['python_version']},<{VERSIONS['python_below']}"
    assert f"< ({VERSIONS['python_below'].replace('.', ', ')})" in (ROOT / "Makefile").read_text("utf-8")


def test_versions_agree_wherever_they_stand() -> None:
    oldest = VERSIONS["python"][0]
    said = {
        "Makefile": r"Python (\S+) or newer",
        "CONTRIBUTING.md": r"Python (\S+) or newer",
        "README.md": r"Python (\S+) or newer",
        "pyproject.toml": r'requires-python = ">=(.+)"',
        "bootstrap.py": r'requires-python = ">=(.+)"',
        "docs/architecture.md": r"\*\*Prefect (\S+), exactly",
    }
    found = {name: set(re.findall(pattern, (ROOT / name).read_text("utf-8"))) for name, pattern in said.items()}
    assert found == {name: {oldest} for name in said} | {"docs/architecture.md": {VERSIONS["prefect"]}}
    workflows = "".join(file.read_text("utf-8") for file in ROOT.glob(".github/workflows/*.yml"))
    assert set(re.findall(r'(?:python-version|PYTHON_VERSION): "(.+)"', workflows)) <= set(VERSIONS["python"])
    assert set(VERSIONS["python_images"]) == set(VERSIONS["python"])


def test_nothing_is_stated_and_never_read(source: Path) -> None:
    assert unused(source) == []
