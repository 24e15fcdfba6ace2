"""The valid answers, read from copier.yml and data/ themselves: there is no second list of choices."""

import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from jinja2.meta import find_undeclared_variables

Answers = dict[str, Any]
Item = tuple[str, Any]
Pair = frozenset[Item]
Missing = dict[Item, set[Item]]  # the pairs, from both sides
Render = Callable[..., Path]

ROOT = Path(__file__).resolve().parents[1]
CONFIG = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))
QUESTIONS = {name: question for name, question in CONFIG.items() if not name.startswith("_")}
TABLES = {name for name, question in QUESTIONS.items() if "{% include 'data/" in str(question.get("default"))}
JINJA = Environment(  # noqa: S701 - renders no HTML
    loader=FileSystemLoader(ROOT),
    extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"],
    **CONFIG["_envops"] | {"undefined": StrictUndefined},
)
CANARY = "-".join(["canary", "0815"])  # a secret that has to show nowhere, in parts as this file is searched, too
# The names of all settings that the template and its documents know, to be set while a project is made of it.
SETTINGS = {"AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN"}.union(
    *(
        re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", file.read_text("utf-8"))
        for part in ("data", "docs", "includes", "template")
        for file in (ROOT / part).rglob("*")
        if file.suffix in (".md", ".jinja", ".yml", ".py")
    )
)


@cache
def compiled(text: str) -> Template:
    return JINJA.from_string(text)


@cache
def variables(text: str) -> list[str]:
    """Return the answers that a template reads, without the tables of data/, which are always the same."""
    return sorted(name for name in find_undeclared_variables(JINJA.parse(text)) if name not in TABLES)


KNOWN: dict[tuple, str] = {}  # what `rendered` returned: most of it is asked for again and again


def rendered(value: Any, known: Answers) -> str:
    text = str(value)
    key = (text, *(repr(known.get(name)) for name in variables(text)))
    if key not in KNOWN:
        answers = {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}
        KNOWN[key] = compiled(text).render(answers, _folder_name="my-flows")
    return KNOWN[key]


@cache
def parsed(text: str) -> Any:
    """Return what the YAML says; nobody changes it."""
    return yaml.safe_load(text)


def default(question: Answers, known: Answers) -> Any:
    text = rendered(question["default"], known)
    if question.get("multiselect"):
        return tuple(parsed(text))
    return text if question["type"] == "str" else parsed(text)


def completed(given: Answers) -> Answers:
    """Return the answers `given` and the default of every other question."""
    known: Answers = {}
    for name, question in QUESTIONS.items():
        known[name] = given[name] if name in given else default(question, known)
    return known


def offered(question: Answers, known: Answers) -> dict[Any, str]:
    """Return each choice of a question with the reason for which Copier refuses it after the answers `known`."""
    if question["type"] == "bool":
        return {False: "", True: ""}
    found = parsed(rendered(question["choices"], known))
    values = found.values() if isinstance(found, dict) else found
    rows = [value if isinstance(value, dict) else {"value": value, "validator": ""} for value in values]
    return {row["value"]: row["validator"] for row in rows}


def choices(name: str) -> list:
    """Return what a question can be answered with; where several choices may be picked: none, each, all, the default."""
    question = QUESTIONS[name]
    found = list(offered(question, DEFAULTS))
    if not question.get("multiselect"):
        return found
    return list(dict.fromkeys([(), *((choice,) for choice in found), tuple(found), DEFAULTS[name]]))


DEFAULTS = completed({})
CORNERS = [  # combined in every way
    ("prefect_backend", "pool_type", "cloud_provider", "secrets_backend"),
    ("pool_type", "task_runner", "observability"),
]
YES_OR_NO = [name for name, question in QUESTIONS.items() if question["type"] == "bool" and "when" not in question]
CHOICES = {name: choices(name) for name, question in QUESTIONS.items() if "choices" in question or name in YES_OR_NO}


def allowed(name: str, known: Answers) -> list:
    """Return those of the choices of a question that can be made after the answers `known`."""
    reasons = offered(QUESTIONS[name], known)
    picked = {value: value if isinstance(value, tuple) else (value,) for value in CHOICES[name]}
    return [value for value, parts in picked.items() if not any(reasons[part] for part in parts)]


def pairs(answers: Answers) -> set[Pair]:
    return {frozenset(pair) for pair in combinations([item for item in answers.items() if item[0] in CHOICES], 2)}


@cache
def depends(name: str) -> frozenset[str]:
    """Return the questions whose answers decide whether `name` is asked, and what it can be answered with."""
    text = str([QUESTIONS[name].get(part) for part in ("when", "choices", "default")])
    before = list(QUESTIONS)[: list(QUESTIONS).index(name)]
    direct = {other for other in before if re.search(rf"\b{other}\b", text)}
    return frozenset(direct.union(*(depends(other) for other in direct)))


def completions(
    wanted: Answers,
    missing: Missing | None = None,
    names: tuple[str, ...] = tuple(QUESTIONS),
    known: Answers | None = None,
    shown: Answers | None = None,
) -> Iterator[Answers]:
    """Yield the answers to all visible questions that hold `wanted`, the ones with many `missing` pairs first.

    Only what `wanted` depends on is tried in every way: else a pair that does not fit would take minutes to refuse.
    """
    known, shown, missing = known or {}, shown or {}, missing or {}
    if not names:
        yield shown
        return
    name, *rest = names
    question = QUESTIONS[name]

    def gain(value: Any) -> tuple[int, int]:
        others = missing.get((name, value), set())
        return sum(other in others for other in shown.items()), len(others)

    if not parsed(rendered(question.get("when", True), known)):
        if name not in wanted:
            yield from completions(wanted, missing, tuple(rest), known | {name: default(question, known)}, shown)
        return
    options = allowed(name, known) if name in CHOICES else [default(question, known)]
    options = [value for value in sorted(options, key=gain, reverse=True) if wanted.get(name, value) == value]
    matters = any(name in depends(other) for other in wanted)
    for value in options if matters else options[:1]:
        answer = {name: value}
        yield from completions(wanted, missing, tuple(rest), known | answer, shown | answer)


def unfit() -> list[tuple[str, Any, str, Answers]]:
    """Return each choice that an answer rules out: the question, the choice, the other question, fit answers to it."""
    found = []
    for other in CHOICES:
        for answer in CHOICES[other]:
            fit = next(completions({other: answer}))
            for name in (name for name in CHOICES if name != other):
                several = QUESTIONS[name].get("multiselect")
                refused = [one for one, why in offered(QUESTIONS[name], completed(fit)).items() if why]
                for one in refused:
                    if not next(completions({other: answer, name: (one,) if several else one}), None):
                        found.append((name, one, other, fit))
    return found


def all_pairs() -> list[Pair]:
    return [
        frozenset([(one, value), (other, another)])
        for one, other in combinations(CHOICES, 2)
        for value, another in product(CHOICES[one], CHOICES[other])
    ]


def cover() -> list[Answers]:
    """Return few sets of answers that hold every pair of choices which can be made together."""
    rows: list[Answers] = []
    missing: Missing = {}
    for one, other in map(tuple, all_pairs()):
        missing.setdefault(one, set()).add(other)
        missing.setdefault(other, set()).add(one)
    for one, other in map(tuple, all_pairs()):
        if other in missing[one] and (row := next(completions(dict([one, other]), missing), None)):
            rows.append(row)
            for item, another in map(tuple, pairs(row)):
                missing[item].discard(another)
                missing[another].discard(item)
    return rows


def texts(name: str, known: Answers) -> list[str]:
    """Return answers to a question without choices: its default, its placeholder and none, as far as they are valid."""
    question = QUESTIONS[name]
    found = dict.fromkeys([default(question, known), question.get("placeholder", ""), ""])
    return [text for text in found if not rendered(question.get("validator", ""), known | {name: text}).strip()]


def drawn(draw: random.Random, wanted: Answers | None = None) -> Answers | None:
    """Return random answers to all visible questions that hold `wanted`, or None where that does not fit."""
    wanted, known, shown = wanted or {}, Answers(), Answers()
    for name, question in QUESTIONS.items():
        visible = parsed(rendered(question.get("when", True), known))
        if not visible:
            known[name] = default(question, known)
            continue
        options = allowed(name, known) if name in CHOICES else texts(name, known)
        if wanted.get(name, options[0]) not in options:
            return None
        if name in wanted:
            answer = wanted[name]
        elif question.get("multiselect"):
            answer = tuple(part for part in offered(question, known) if (part,) in options and draw.random() < 0.5)
        else:
            answer = draw.choice(options)
        known[name] = shown[name] = answer
    return shown if wanted.items() <= shown.items() else None


def corners() -> list[Answers]:
    """Return every combination of the questions that stand together in CORNERS."""
    return [
        dict(zip(names, values, strict=True))
        for names in CORNERS
        for values in product(*(CHOICES[name] for name in names))
    ]


def matrix(size: int, seed: int) -> list[Answers]:
    """Return `size` sets of answers or more: every pair, every corner that can be, and random ones from a seed."""
    draw = random.Random(seed)
    rows = cover()
    # A draw may begin with an answer that rules the corner out, where another would not.
    rows += [row for corner in corners() if (row := drawn(draw, corner) or next(completions(corner), None))]
    found = {repr(row): row for row in rows}
    while len(found) < size:
        if row := drawn(draw):
            found[repr(row)] = row
    return list(found.values())


def label(row: Answers) -> str:
    """Return what differs from the defaults."""
    told = {name: f"[{','.join(value)}]" if isinstance(value, tuple) else value for name, value in row.items()}
    return " ".join(f"{name}={value}" for name, value in told.items() if row[name] != DEFAULTS[name])
