"""Bad answers are refused with what is right, before anything is written; unusual good ones come through whole."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from answers import CHOICES, DEFAULTS, QUESTIONS, YES_OR_NO, Answers, Render, completed, offered, unfit
from checks import faults, stored

RULES = {  # how each message goes on behind the name of the question
    "project_name": "must start with a letter",
    "project_description": "must be one line of at most 200 letters, digits, spaces",
    "user_name": "must be one line of at most 80 letters, digits, spaces",
    "user_email": "must be empty or an address like flows@example.com",
    "image_registry": "must be empty or a registry like ghcr.io/owner",
    "github_user": "must be empty, a login of GitHub or a team like org/team",
    "sla_minutes": "must be a whole number of minutes from 1 to 10080",
}
SNEAKY = {
    "quote": 'a"b',
    "newline": "a\nb",
    "newline at the end": "ab\n",
    "space at the end": "ab ",
    "line separator": "a\u2028b",
    "backslash": "a\\b",
    "braces": "{{ 7*7 }}",
    "tag": "{% raw %}",
    "dollar": "a$(b)",
    "backtick": "a`b`",
    "angles": "<b>",
    "control": "a\x07b",
    "escape": "a\x1b[31mb",
    "null": "a\x00b",
    "bidi": "a\u202eb",
    "isolate": "a\u2066b",
    "zero width": "a\u200bb",
    "long": "a" * 300,
    "long domain": f"a@b.{'c' * 300}",
}
BAD_NAMES = [
    "",
    "'a'",
    "a.b",
    "a/b",
    "../x",
    "/abs",
    "naïve",
    "9lives",
    "-a",
    " a",
    "a" * 51,
    "prefect",
    "Prefect demo",
]
BAD_EMAILS = ["@", "a@b", "a@..com", "ä@b.example", "a@b.example\n", "a@b.example ", "a@b.example, c@d.example"]
BAD_REGISTRIES = ["https://ghcr.io/a", "ghcr.io/", "/a", "a//b", "Ghcr.io/a", "a b", "a:b", "a;b", "-a", "a@sha256:1"]
BAD_TEXTS = [
    *product(("project_name", "project_description", "user_name", "user_email"), SNEAKY.values()),
    *product(["project_name"], BAD_NAMES),
    *product(["project_description", "user_name"], ["", " a", "'a'"]),
    *product(["user_email"], BAD_EMAILS),
    *product(["image_registry"], [*SNEAKY.values(), *BAD_REGISTRIES]),
    *product(
        ["github_user"], [*SNEAKY.values(), "@me", "a/", "/a", "a/b/c", "-a", "a--b", "a b", "a@b.example", "a" * 40]
    ),
    *product(["sla_minutes"], [0, -1, 1.5, 10081, 10**9, "text", ""]),
]

Refuse = Callable[[Answers, str], None]


@pytest.fixture
def refuse(source: Path, tmp_path: Path) -> Refuse:
    """Fail unless Copier refuses the answers with that message and writes nothing."""

    def refuse(answers: Answers, message: str) -> None:
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            copier.run_copy(str(source), tmp_path / "my-flows", answers, defaults=True, quiet=True)
        assert not list(tmp_path.iterdir())

    return refuse


@pytest.mark.parametrize(("question", "answer"), BAD_TEXTS, ids=lambda value: ascii(value)[:30])
def test_bad_text_is_refused(question: str, answer: Any, refuse: Refuse) -> None:
    asked = {"pool_type": "docker"} if question == "image_registry" else {}
    refuse({**asked, question: answer}, f"'{question}': {question} {RULES[question]}")


@pytest.mark.parametrize("registry", ["europe-docker.pkg.dev", "europe-docker.pkg.dev/acme"])
def test_a_registry_of_google_without_its_repository_is_refused(registry: str, refuse: Refuse) -> None:
    refuse(
        {"pool_type": "docker", "image_registry": registry},
        "image_registry must name project and repository of Artifact",
    )


@pytest.mark.parametrize("question", CHOICES)
def test_unknown_choice_is_refused(question: str, refuse: Refuse) -> None:
    fit = [value for value, reason in offered(QUESTIONS[question], DEFAULTS).items() if not reason]
    answer = ["nonsense"] if QUESTIONS[question].get("multiselect") else "nonsense"
    told = f"Invalid choice for '{question}': 'nonsense' is not in {fit}"
    refuse({question: answer}, f"'{question}': {question} must be yes or no" if question in YES_OR_NO else told)


@pytest.mark.parametrize("question", [name for name in CHOICES if QUESTIONS[name].get("multiselect")])
def test_one_choice_in_place_of_a_list_is_refused(question: str, refuse: Refuse) -> None:
    refuse({question: "slack"}, "Not a YAML list: 'slack'")  # Copier's words: it reads the list before any validator


UNFIT = [(name, value, {key: fit[key] for key in fit if key != name}) for name, value, _, fit in unfit()]


@pytest.mark.parametrize(("question", "answer", "fit"), UNFIT, ids=lambda value: str(value)[:30])
def test_choice_that_does_not_fit_is_refused(question: str, answer: str, fit: Answers, refuse: Refuse) -> None:
    reason = offered(QUESTIONS[question], completed(fit))[answer]
    several = QUESTIONS[question].get("multiselect")
    refuse(fit | {question: [answer] if several else answer}, f"Invalid choice for '{question}': {reason}")


def test_computed_slug_cannot_be_set(refuse: Refuse) -> None:
    refuse({"project_slug": "evil"}, "'project_slug': project_slug is computed from project_name: do not set it")


def test_command_line_ends_with_the_reason(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "my-flows"
    command = [sys.executable, "-m", "copier", "copy", "--defaults", "--data", "project_name=../x", source, target]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    reason = f"ValueError: Validation error for question 'project_name': project_name {RULES['project_name']}"
    assert done.stderr.splitlines()[-1].startswith(reason)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "answers",
    [
        {"project_name": "a" * 50, "user_email": "first.last+flows@mail.example.co.uk"},
        {"project_name": "My Flows - v_2", "user_name": "Zoë O'Hara-Müller, R&D (Köln)"},
        {"project_name": "x", "project_description": "Lädt O'Briens Aufträge \u2013 täglich: 100% & mehr (#1)!"},
        {"project_name": "null", "project_description": "d" * 200, "user_name": "n" * 80},  # a word of YAML
        {"project_name": "No", "database": "postgresql"},
    ],
    ids=lambda answers: answers["project_name"],
)
def test_unusual_answers_come_through_whole(answers: Answers, render: Render) -> None:
    project = render(**answers)
    assert faults(project) == ""
    package = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    deployments = yaml.safe_load((project / "prefect.yaml").read_text("utf-8"))
    slug = re.sub(r"[ _-]+", "-", answers["project_name"].lower())
    assert [package["name"], deployments["name"], deployments["definitions"]["work_pool"]["name"]] == [slug] * 3
    assert package["description"] == answers.get("project_description", package["description"])
    author = {"name": answers.get("user_name"), "email": answers.get("user_email")}
    assert package["authors"][0].items() >= {field: value for field, value in author.items() if value}.items()


@pytest.mark.parametrize(
    "folder", ["9 lives", "Ünï", "a'b", "....", "{{ 7*7 }}", "my flows ", "x" * 51, "prefect"], ids=ascii
)
def test_default_name_fits_any_folder(folder: str, source: Path, render: Render, tmp_path: Path) -> None:
    name = stored(render(folder))["project_name"]
    copier.run_copy(str(source), tmp_path / "given", {"project_name": name}, defaults=True, quiet=True)  # is validated
