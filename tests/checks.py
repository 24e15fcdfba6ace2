"""Static checks. Each takes the folder of a rendered project and returns its faults, one line each."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import yaml
from answers import ROOT, Answers
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
    "*/*deployments.py": r"\{\{ (\$[A-Z_]+|imge\.image) \}\}",
    "ops/automations.py": r"\{\{[^{}]*\b(flow|flow_run|deployment)\b[^{}]*\}\}",
    "prefect.yaml": r"\{\{ (\$IMAGE_TAG|image\.[a-z_]+|clone\.directory|prefect\.blocks\.[a-z.-]+) \}\}",
    ".github/workflows/*": r"\$\{\{[^{}]*\b(env|github|inputs|matrix|needs|runner|secrets|steps|vars)\b[^{}]*\}\}",
}
YAMLLINT = YamlLintConfig(file=str(ROOT / ".yamllint.yaml"))


def files(project: Path) -> list[str]:
    return sorted(path.relative_to(project).as_posix() for path in project.rglob("*") if not path.is_dir())


def contents(project: Path) -> dict[str, bytes]:
    return {name: (project / name).read_bytes() for name in files(project)}


def stored(project: Path) -> Answers:
    return yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))


def texts(project: Path) -> Iterator[tuple[str, str]]:
    return ((name, content.decode()) for name, content in contents(project).items())


def template_markup(project: Path) -> list[str]:
    """Jinja of the template that was not rendered."""
    faults = []
    for name, text in texts(project):
        for pattern, markup in FOREIGN_MARKUP.items():
            if fnmatch(name, pattern):
                text = re.sub(markup, "", text)
        faults += [f"{name}: not rendered: {found}" for found in re.findall(r"\{[{%#].*", text)]
    return faults


def untidy_text(project: Path) -> list[str]:
    untidy = {
        "is empty": r"\A\Z",
        "does not end with one newline": r"[^\n]\Z|\n\n\Z",
        "has a run of blank lines": r"\n{4}",
        "has trailing whitespace": r"(?m)[ \t\r]$",
        "has a conflict marker": r"(?m)^(<{7}|={7}|>{7})( |$)",
    }
    return [
        f"{name} {fault}"
        for name, text in texts(project)
        for fault, pattern in untidy.items()
        if re.search(pattern, text) and not (name.endswith("__init__.py") and not text)
    ]


def unfit_paths(project: Path) -> list[str]:
    paths = {path.relative_to(project).as_posix(): path for path in project.rglob("*")}
    return [
        *(f"{name}: is no path on every system" for name in paths if re.search(r'["|:*?<>\\]|[ .]$', name)),
        *(f"{name}: is too long" for name in paths if len(name) >= 120),
        *(f"{name}: is an empty folder" for name, path in paths.items() if path.is_dir() and not any(path.iterdir())),
        *(f"{name}: is a symbolic link" for name, path in paths.items() if path.is_symlink()),
    ]


def unparsable(project: Path) -> list[str]:
    faults = []
    for name, text in texts(project):
        try:
            PARSERS.get(Path(name).suffix, str)(text)
        except (SyntaxError, ValueError, yaml.YAMLError) as error:
            faults.append(f"{name}: {error}")
    return faults


def unformatted_python(project: Path) -> list[str]:
    return ruff("format", "--check", project=project)


def python_lint(project: Path) -> list[str]:
    return ruff("check", "--output-format", "concise", project=project)


def ruff(*arguments: str, project: Path) -> list[str]:
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "--quiet", "."]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


def yaml_lint(project: Path) -> list[str]:
    return [
        f"{name}:{fault}"
        for name, text in texts(project)
        if name.endswith((".yaml", ".yml")) and name != ".copier-answers.yml"  # Copier writes that one
        for fault in yaml_faults(text)
    ]


@cache  # most combinations hold the same files
def yaml_faults(text: str) -> list[str]:
    return [f"{fault.line}: {fault.message}" for fault in linter.run(text, YAMLLINT)]


CHECKS = [
    template_markup,
    untidy_text,
    unfit_paths,
    unparsable,
    unformatted_python,
    python_lint,
    yaml_lint,
]


def faults(project: Path) -> str:
    return "\n".join(fault for check in CHECKS for fault in check(project))


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
