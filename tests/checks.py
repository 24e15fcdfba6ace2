"""Static checks. Each takes the folder of a rendered project and returns its faults, one line each."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import cache, wraps
from itertools import pairwise
from pathlib import Path

import editorconfig
import yaml
from answers import JINJA, ROOT, Answers, completed
from yamllint import linter
from yamllint.config import YamlLintConfig

PARSERS = {
    ".json": json.loads,
    ".py": ast.parse,
    ".toml": tomllib.loads,
    ".yaml": lambda text: list(yaml.safe_load_all(text)),
    ".yml": lambda text: list(yaml.safe_load_all(text)),
}
# Markup that somebody else renders: Prefect when an alert fires or a deployment is read, GitHub when a workflow runs.
FOREIGN_MARKUP = {
    "tests/conftest.py": r"\{\{ env \}\}",
    "*/*deployments.py": r"\{\{ (\$[A-Z_]+|ima?ge\.image) \}\}",
    "ops/automations.py": r"\{\{ \}\}|\{%-? (for|if|set text|end\w+)\b.*?%\}|\{\{ \", \" if not loop\.last \}\}"
    r"|\{\{[^{}]*\b(flow|flow_run|deployment|event|name|value|text|work_pool)\b[^{}]*\}\}",
    "observability/*": r"\{\{ ?[$a-z_.| A-Z]+ ?\}\}",
    "prefect.yaml": r"\{\{ (\$IMAGE_TAG|image\.[a-z_]+|clone\.directory|prefect\.blocks\.[a-z.-]+) \}\}",
    "azure-pipelines.yml": r"\$\{\{ if eq\(variables\.PREVIEWS, 'true'\) \}\}",
    "renovate.json": r"\{\{(\{\w+\}|#if \w+|/if)\}\}",
    ".github/workflows/*": r"\$\{\{[^{}]*\b(cancelled|env|github|inputs|matrix|needs|runner|secrets|steps|vars)\b[^{}]*\}\}",
}
Check = Callable[[Path], list[str]]
OWNERS = ("you", "both", "template")
PACKAGES = {one.metadata["Name"].lower().replace("_", "-") for one in importlib.metadata.distributions()}
TYPED: set[tuple[str, str, str]] = set()
YAMLLINT = YamlLintConfig(file=str(ROOT / ".yamllint.yaml"))


def files(project: Path) -> list[str]:
    return sorted(path.relative_to(project).as_posix() for path in project.rglob("*") if not path.is_dir())


def contents(project: Path) -> dict[str, bytes]:
    return {name: (project / name).read_bytes() for name in files(project)}


def stored(project: Path) -> Answers:
    return yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))


def texts(project: Path) -> Iterator[tuple[str, str]]:
    return ((name, content.decode()) for name, content in contents(project).items())


def of_each_file(check: Callable[[str, str], list[str]]) -> Check:
    """Make a check of a file's name and text one of a project; most projects hold the same files, so it remembers."""
    known = cache(check)

    @wraps(check)
    def of_project(project: Path) -> list[str]:
        return [fault for name, text in texts(project) for fault in known(name, text)]

    return of_project


@of_each_file
def template_markup(name: str, text: str) -> list[str]:
    """Jinja of the template that was not rendered."""
    for pattern, markup in FOREIGN_MARKUP.items():
        if fnmatch(name, pattern):
            text = re.sub(markup, "", text)
    return [f"{name}: not rendered: {found}" for found in re.findall(r"\{[{%#].*", text)]


@of_each_file
def untidy_text(name: str, text: str) -> list[str]:
    untidy = {
        "is empty": r"\A\Z",
        "does not end with one newline": r"[^\n]\Z|\n\n\Z",
        "has a run of blank lines": r"\n{4}",
        "has trailing whitespace": r"(?m)[ \t\r]$",
        "has a conflict marker": r"(?m)^(<{7}|={7}|>{7})( |$)",
    }
    if name.endswith("__init__.py") and not text:
        return []
    return [f"{name} {fault}" for fault, pattern in untidy.items() if re.search(pattern, text)]


def unfit_paths(project: Path) -> list[str]:
    paths = {path.relative_to(project).as_posix(): path for path in project.rglob("*")}
    return [
        *(f"{name}: is no path on every system" for name in paths if re.search(r'["|:*?<>\\]|[ .]$', name)),
        *(f"{name}: is too long" for name in paths if len(name) >= 120),
        *(f"{name}: is an empty folder" for name, path in paths.items() if path.is_dir() and not any(path.iterdir())),
        *(f"{name}: is a symbolic link" for name, path in paths.items() if path.is_symlink()),
    ]


@of_each_file
def unparsable(name: str, text: str) -> list[str]:
    try:
        PARSERS.get(Path(name).suffix, str)(text)
    except (SyntaxError, ValueError, yaml.YAMLError) as error:
        return [f"{name}: {error}"]
    return []


@of_each_file
def yaml_lint(name: str, text: str) -> list[str]:
    if not name.endswith((".yaml", ".yml")) or name == ".copier-answers.yml":  # Copier writes that one
        return []
    return [f"{name}:{fault.line}: {fault.message}" for fault in linter.run(text, YAMLLINT)]


@of_each_file
def unlike_the_editor(name: str, text: str) -> list[str]:
    """What an editor that follows .editorconfig would write otherwise."""
    wants = editorconfig.get_properties(str(ROOT / "template" / name))
    style = wants["indent_style"]
    wrong = "\t" if style == "space" else " "
    indents = {line: line[: -len(line.lstrip())] for line in text.splitlines() if line[:1] in ("\t", " ")}
    faults = {line: f"is not indented by {style}s" for line, indent in indents.items() if indent[0] == wrong}
    if name.endswith((".json", ".yaml", ".yml", ".toml")):
        size = int(wants["indent_size"])
        faults |= {line: f"is not indented by {size}" for line, indent in indents.items() if len(indent) % size}
    return [f"{name}: {fault}: {line.strip()}" for line, fault in faults.items()]


@of_each_file
def unfit_deployments(name: str, text: str) -> list[str]:
    """What Prefect's own reading of prefect.yaml refuses. No release of Prefect promises its place: it is tested."""
    if name != "prefect.yaml":
        return []
    from prefect.cli.deploy._models import PrefectYamlModel  # not above: it takes a second

    try:
        PrefectYamlModel.model_validate(PARSERS[".yaml"](text)[0])
    except (ValueError, IndexError) as error:
        return [f"{name}: {error}"]
    return []


def unexpected_files(project: Path) -> list[str]:
    """What is there and should not be, and what is missing, by docs/files.md."""
    expected, found = set(owned(completed(stored(project)))), set(files(project))
    return [
        *(f"{name}: is missing" for name in sorted(expected - found)),
        *(f"{name}: is not in docs/files.md for these answers" for name in sorted(found - expected)),
    ]


def unformatted_python(folder: Path) -> list[str]:
    return ruff("format", "--check", folder=folder)


def python_lint(folder: Path) -> list[str]:
    return ruff("check", "--output-format", "concise", folder=folder)


def ruff(*arguments: str, folder: Path) -> list[str]:
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "--quiet", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


def untyped(project: Path) -> list[str]:
    """What the type checker says of projects in which two lines of Python meet that did not in one before.

    Files are put together from the same parts, so that others would tell nothing new. Ruff reads them all.
    """
    python = ((name, text.splitlines()) for name, text in texts(project) if name.endswith(".py"))
    new = {(name, *two) for name, lines in python for two in pairwise(lines)} - TYPED
    if not new or not installed(tomllib.loads((project / "pyproject.toml").read_text("utf-8"))):
        return []
    TYPED.update(new)
    return ty(project)


def ty(project: Path) -> list[str]:
    command = [sys.executable, "-m", "ty", "check", "--quiet", "--output-format", "concise", "--python", sys.prefix]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


def installed(pyproject: Answers) -> bool:
    """Tell whether the tests' own environment has what the project imports: without, its types are unknown."""
    groups = pyproject["dependency-groups"]
    needed = [*pyproject["project"]["dependencies"], *groups.get("worker", []), *groups["ops"]]
    names = {re.match(r"[\w.-]+", one)[0] for one in needed if isinstance(one, str)}
    return names <= PACKAGES


CHECKS: list[Check] = [
    template_markup,
    untidy_text,
    unfit_paths,
    unparsable,
    yaml_lint,
    unlike_the_editor,
    unfit_deployments,
]
OF_UNTOUCHED = [unexpected_files, untyped]  # what holds before anybody edits, or takes longer
OF_PYTHON = [unformatted_python, python_lint]  # Ruff reads many projects at once, each with its own settings


def faults(project: Path) -> str:
    return "\n".join(fault for check in CHECKS + OF_PYTHON for fault in check(project))


def all_faults(folder: Path) -> list[str]:
    """Return every fault of the untouched projects in `folder`, each with the name of its project in front."""
    return [
        *(
            f"{project.name}/{fault}"
            for project in sorted(folder.iterdir())
            for check in CHECKS + OF_UNTOUCHED
            for fault in check(project)
        ),
        *(fault for check in OF_PYTHON for fault in check(folder)),
    ]


@cache
def ownership() -> dict[str, tuple[str, str]]:
    """Return who owns each file and when it is there, from the table in docs/files.md."""
    rows = re.findall(r"(?m)^\| `(.+?)` \| (\w+) \| (.+?) \|", (ROOT / "docs/files.md").read_text("utf-8"))
    return {name: (owner, when.strip("`")) for name, owner, when in rows}


def owned(answers: Answers, *owners: str) -> list[str]:
    """Return the files of a project with these answers, all or those of some owners."""
    return [
        name
        for name, (owner, when) in ownership().items()
        if owner in (owners or OWNERS)
        and (when == "always" or JINJA.compile_expression(when, undefined_to_none=False)(answers))
    ]


def unused(source: Path) -> list[str]:
    """Answers, fields of data rows and includes that the template in `source` states and never reads."""
    config = yaml.safe_load((source / "copier.yml").read_text("utf-8"))
    tables = {file.name: yaml.safe_load(file.read_text("utf-8")) for file in source.glob("data/*")}
    fields = {
        (name, field)
        for name, table in tables.items()
        for row in (table.values() if all(isinstance(row, dict) for row in table.values()) else [table])
        for field in row
    }
    includes = [file.name for file in source.glob("includes/*")]
    rendered = [file for file in source.rglob("*") if file.suffix == ".jinja" or file.parent.name == "includes"]
    template = "".join(f"{file.name}\n{file.read_text('utf-8')}" for file in rendered)

    def reads(pattern: str, *, but: str = "") -> bool:
        """Tell whether any Jinja holds the pattern, leaving out the entry `but` of copier.yml."""
        text = template + "".join(str(entry) for name, entry in config.items() if name != but)
        return any(re.search(pattern, markup) for markup in re.findall(r"(?s)\{[{%].*?[%}]\}", text))

    return [
        *(f"copier.yml: {name}" for name in config if name[0] != "_" and not reads(rf"\b{name}\b", but=name)),
        *(f"data/{name}: {field}" for name, field in sorted(fields) if not reads(rf"\.{field}\b")),
        *(f"data/{name}" for name in tables if not reads(rf"data/{re.escape(name)}")),
        *(f"includes/{name}" for name in includes if not reads(rf"includes/{re.escape(name)}")),
    ]
