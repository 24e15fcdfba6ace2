"""What generated projects take and do, as pages: every setting and every command.

Nothing is listed here: projects that together hold each pair of choices are rendered, and looked at.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bootstrap import UPSTREAM
from configurator.render import Answers, File, Template

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from answers import CHOICES, cover  # noqa: E402 - the tests have the valid answers

SETTING = re.compile(r"(?:# )?([A-Z][A-Z0-9_]+)=(.*)")
GENERATED = "<!-- Written by scripts/inventory.py from rendered projects. -->\n"
COMMANDS = """
import json
import typer.main
from ops.__main__ import app
def tell(commands, group=""):
    for name, command in commands.items():
        if inner := getattr(command, "commands", None):
            tell(inner, f"{group}{name} ")
            continue
        params = [[(p.opts[0] if p.param_type_name == "option" else p.name.upper()), getattr(p, "help", None) or ""]
                  for p in command.params if p.name != "help"]
        print(json.dumps([group + name, command.help or "", params]))
tell(typer.main.get_command(app).commands)
"""


@dataclass
class Found:
    """Something that some projects have.

    Attributes:
        rows: the numbers of those projects
        about: what it says of itself
        default: the value that it has if nothing is done
    """

    rows: set[int] = field(default_factory=set)
    about: str = ""
    default: str = ""


@cache
def projects() -> list[tuple[Answers, dict[str, File]]]:
    """Return the answers and files of projects that together hold every pair of choices, the default first."""
    template = Template(ROOT)
    given = [{name: list(v) if isinstance(v, tuple) else v for name, v in row.items()} for row in [{}, *cover()]]
    asked = [template.ask(answers) for answers in given]
    return [(one.known, template.project(one, UPSTREAM)) for one in asked]


def conditions(rows: set[int]) -> Iterator[tuple[str, set[int]]]:
    """Yield conditions on one answer that the projects `rows` meet, in words, with all that meet each."""
    known = [answers for answers, _ in projects()]
    for name in CHOICES:
        values = {row: answers[name] for row, answers in enumerate(known)}
        if any(isinstance(value, list) for value in values.values()):
            for choice in dict.fromkeys(part for value in values.values() for part in value):
                if rows <= (met := {row for row, value in values.items() if choice in value}):
                    yield f"`{name}` has `{choice}`", met
            if rows <= (met := {row for row, value in values.items() if value}):
                yield f"`{name}` is not empty", met
            continue
        having = {values[row] for row in rows}
        if lacking := {*values.values()} - having:
            fewer, word = min((having, "is"), (lacking, "is not"), key=lambda one: len(one[0]))
            choices = " or ".join(f"`{one}`" for one in sorted(map(str, fewer)))
            yield f"`{name}` {word} {choices}", {row for row, value in values.items() if value in having}


def when(rows: set[int]) -> str:
    """Return in words which answers give what the projects `rows` have."""
    left = set(range(len(projects())))
    if left == rows:
        return "always"
    fitting = list(conditions(rows))
    if exact := next((text for text, met in fitting if met == rows), ""):
        return exact
    words = []
    while left != rows:
        text, met = min(fitting, key=lambda one: len(left & one[1]))
        if not left - met:
            return ", ".join([*words, "and other answers need it"])
        words.append(text)
        left &= met
    return ", ".join(words)


def settings_of(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield each setting of a .env.example: its name, what the comment above says, the value that is shown."""
    comment: list[str] = []
    above = False
    for line in text.splitlines():
        if match := SETTING.fullmatch(line):
            yield match[1], re.sub(r"(?<=[^.:;,]) \n(?=[A-Z])", ". ", " \n".join(comment)).replace(" \n", " "), match[2]
            above = True
        elif line.startswith("# "):
            if above:
                comment, above = [], False
            comment.append(line[2:])
        else:
            comment, above = [], False


def settings_page() -> str:
    found: dict[str, Found] = {}
    for row, (_, files) in enumerate(projects()):
        for name, said, default in settings_of(files[".env.example"].content.decode()):
            one = found.setdefault(name, Found(about=said, default=default))
            one.rows.add(row)
    lines = ["---\nhide: [toc]\n---\n\n# Settings\n\n", GENERATED]  # the table has its place
    lines.append(
        "\nWhat comes from outside of the repository: a variable of the environment wins over the file `.env`, which Git"
        " ignores. `.env.example` of a project has those that its answers need; `make dev` and the tests need none.\n\n"
        "| Setting | Meaning | Shown value | In projects where |\n| --- | --- | --- | --- |\n"
    )
    for name, one in sorted(found.items()):
        value = f"`{one.default}`" if one.default else ""
        lines.append(f"| `{name}` | {one.about.replace('|', chr(92) + '|')} | {value} | {when(one.rows)} |\n")
    return "".join(lines)


@cache
def commands_of(row: int) -> list[list[Any]]:
    """Return the commands of a project's `ops`: name, help, parameters with their help."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, file in projects()[row][1].items():
            path = Path(scratch, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
        done = subprocess.run([sys.executable, "-c", COMMANDS], cwd=scratch, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def commands() -> dict[str, tuple[Found, list[Any]]]:
    """Return the commands of `ops` of all projects by their name, with their parameters."""
    first: dict[bytes, int] = {}  # of projects with the same commands
    found: dict[str, tuple[Found, list[Any]]] = {}
    for row, (_, files) in enumerate(projects()):
        same = files["ops/__main__.py"].content
        for name, text, parameters in commands_of(first.setdefault(same, row)):
            found.setdefault(name, (Found(about=" ".join(text.split())), parameters))[0].rows.add(row)
    return found


def targets() -> dict[str, Found]:
    """Return the targets of `make` of all projects."""
    found: dict[str, Found] = {}
    for row, (_, files) in enumerate(projects()):
        for file in (file for name, file in files.items() if name == "Makefile" or name.endswith(".mk")):
            for name, text in re.findall(r"(?m)^([a-z-]+):.*?## (.*)$", file.content.decode()):
                found.setdefault(name, Found(about=text.replace("|", r"\|"))).rows.add(row)
    return found


def commands_page() -> str:
    lines = ["# Commands\n\n", GENERATED, "\n## make\n\n"]
    lines.append("| Command | What it does | In projects where |\n| --- | --- | --- |\n")
    lines += [f"| `make {name}` | {one.about} | {when(one.rows)} |\n" for name, one in targets().items()]
    lines.append("\n## python -m ops\n\nWith `.venv/bin/python` of the project. `make` calls the same.\n")
    for name, (one, parameters) in commands().items():
        where = when(one.rows)
        lines.append(f"\n### `{name}`\n\n{one.about}{'' if where == 'always' else f' In projects where {where}.'}\n")
        if parameters:
            lines.append("\n| Parameter | Meaning |\n| --- | --- |\n")
            lines += [f"| `{option}` | {' '.join(told.split())} |\n" for option, told in parameters]
    return "".join(lines)


def pages() -> dict[str, str]:
    """Return each page by the name of its file."""
    return {"settings.md": settings_page(), "commands.md": commands_page()}
