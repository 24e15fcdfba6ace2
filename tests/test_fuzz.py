"""Answers that nobody would give: each is refused with a line and nothing is written, or makes a clean project."""

import os
import random
import tempfile
from pathlib import Path
from typing import Any

import copier
import hypothesis.strategies as st
import yaml
from answers import CHOICES, JINJA, QUESTIONS, Answers, drawn
from checks import faults, stored, unexpected_files
from hypothesis import HealthCheck, Phase, example, given, settings
from jinja2 import nodes

ASKED = [name for name, question in QUESTIONS.items() if question.get("when") is not False]
RANDOM = int(os.environ.get("FUZZ_EXAMPLES", "0"))  # `make nightly`: so many, others each time
FAMILIAR = list("aZ09 _-./:@'\"`$\\{}%#&!?*|<>[]()=,;+~\t\n\r\0\x1b\u2028\u202e\ufeff\ud800\u00e9")
WORDS = [
    "{{ 7*7 }}",
    "{% raw %}",
    "{#",
    "null",
    "yes",
    "~",
    "- a",
    "a: b",
    "*a",
    "&a",
    "!!python",
    "$(id)",
    "../x",
    "-r",
]


def patterns(name: str) -> list[str]:
    """Return the regular expressions that the validator of a question applies."""
    tree = JINJA.parse(QUESTIONS[name].get("validator", ""))
    return [found.args[0].value for found in tree.find_all(nodes.Filter) if found.name == "regex_search"]


def values(name: str) -> st.SearchStrategy[Any]:
    """Return a strategy of answers to a question: nearly right, hostile, or of another type."""
    text = st.text(st.one_of(st.sampled_from(FAMILIAR), st.characters(exclude_categories=[])), max_size=60)
    other = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.lists(text, max_size=2), st.just({}))
    likely = [st.from_regex(pattern) for pattern in patterns(name)]
    if name in CHOICES:
        likely.append(st.sampled_from(CHOICES[name]).map(lambda one: list(one) if isinstance(one, tuple) else one))
    return st.one_of(*likely, text, st.sampled_from(WORDS), other)


@st.composite
def answers(draw: st.DrawFn) -> Answers:
    """Return valid answers, but for up to three of them."""
    found = drawn(random.Random(draw(st.integers(0, 2**32))))
    assert found
    for name in draw(st.lists(st.sampled_from(ASKED), max_size=3, unique=True)):
        found[name] = draw(values(name))
    return found


@settings(
    max_examples=RANDOM or 40,
    derandomize=not RANDOM,
    database=None,
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate],  # a smaller example says little more, and takes minutes to find
    suppress_health_check=list(HealthCheck),
)
@given(answers())
@example({"project_name": "{{ 7*7 }}"})
@example({"alert_channels": [["webhook"]]})
@example({"sla_minutes": float("nan")})
def test_whatever_is_answered_is_refused_or_clean(source: Path, given: Answers) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "my-flows")
        if refusal := refused(source, project, given):
            # Copier converts an answer before it knows of which question, and says only what is wrong with its type.
            said = str(refusal)
            about_its_type = isinstance(refusal, (TypeError, yaml.YAMLError)) or said.startswith("Could not convert")
            assert about_its_type or any(name in said for name in given), said
            assert not project.exists()
            return
        assert faults(project) == ""
        assert unexpected_files(project) == []
        for name, kept in stored(project).items():
            if name in given and QUESTIONS[name].get("multiselect"):
                assert set(kept) == set(given[name])
            elif name in given and QUESTIONS[name]["type"] == "str":
                assert kept == str(given[name])


def refused(source: Path, project: Path, answers: Answers) -> Exception | None:
    try:
        copier.run_copy(str(source), project, answers, defaults=True, quiet=True, settings=copier.Settings())
    except (TypeError, ValueError, yaml.YAMLError) as error:
        return error
    return None
