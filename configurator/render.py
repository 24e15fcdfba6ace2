"""The template rendered without Copier, for the configurator: its page runs this file in the browser.

It reads copier.yml, data/, includes/ and template/ themselves and does what Copier does with them: that part of it
which this template uses. A test holds it to Copier, byte for byte and message for message. Needed are Jinja2, its
Ansible filters, PyYAML and pathspec; Copier itself brings ten more packages, and twice the wait.
"""

import difflib
import io
import shlex
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment
from pathspec import PathSpec

Answers = dict[str, Any]
ANSWERS_FILE = ".copier-answers.yml"


def truth(value: Any) -> bool:
    """Return what Copier takes an answer to a yes-no question for."""
    with suppress(TypeError, ValueError):
        return bool(float(value))
    if isinstance(value, str):
        return value.strip().lower() not in {"", "n", "no", "f", "false", "off", "~", "null", "none"}
    return bool(value)


CASTS = {"str": str, "bool": truth, "yaml": lambda value: yaml.safe_load(value) if isinstance(value, str) else value}


class Refused(ValueError):
    """An answer that Copier refuses: the text is Copier's, `reason` the part that its prompt shows."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class File:
    content: bytes
    executable: bool


@dataclass
class Asked:
    """The answers to all questions.

    Attributes:
        known: by name, those that follow from others too
        stored: those that Copier writes into the answers file
        changed: those of them that are not the default
        form: a dictionary for each question that a person can answer, in order, as the page shows it
        refusals: what Copier says about answers that it refuses, in order; it stops at the first
    """

    known: Answers
    stored: Answers = field(default_factory=dict)
    changed: Answers = field(default_factory=dict)
    form: list[Answers] = field(default_factory=list)
    refusals: list[Refused] = field(default_factory=list)


class Template:
    """The template in the folder `root`."""

    def __init__(self, root: Path) -> None:
        config = yaml.safe_load((root / "copier.yml").read_text("utf-8"))
        self.root = root
        self.questions = {name: question for name, question in config.items() if not name.startswith("_")}
        self.exclude: list[str] = config["_exclude"]
        self.suffix: str = config["_templates_suffix"]
        self.top = root / config["_subdirectory"]
        self.jinja = SandboxedEnvironment(
            loader=FileSystemLoader(root),
            extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"],
            **config["_envops"] | {"undefined": StrictUndefined},
        )
        self.compiled = cache(self.jinja.from_string)

    def render(self, value: Any, known: Answers) -> str:
        return self.compiled(str(value)).render(known)

    def choices(self, question: Answers, known: Answers) -> list[Answers]:
        """Return the choices of a question: the value, its label, and why it cannot be made, if so."""
        if question["type"] == "bool":
            return [{"value": value, "label": label, "reason": ""} for label, value in (("No", False), ("Yes", True))]
        found = yaml.safe_load(self.render(question.get("choices", "[]"), known))
        pairs = found.items() if isinstance(found, dict) else [(str(value), value) for value in found]
        rows = [(label, value if isinstance(value, dict) else {"value": value}) for label, value in pairs]
        return [{"value": row["value"], "label": label, "reason": row.get("validator", "")} for label, row in rows]

    def parsed(self, name: str, answer: Any, choices: list[Answers]) -> Any:
        """Return an answer as its question's type, or raise Refused."""
        question = self.questions[name]
        if question.get("multiselect"):
            if isinstance(answer, str) and not isinstance(answer := yaml.safe_load(text := answer), list):
                raise Refused(f"Not a YAML list: {text!r}", f"Not a YAML list: {text!r}")
            picked = [self.one(name, part, choices) for part in answer]
            return [choice["value"] for choice in choices if choice["value"] in picked]
        return self.one(name, answer, choices)

    def one(self, name: str, answer: Any, choices: list[Answers]) -> Any:
        value = CASTS[self.questions[name]["type"]](answer)
        offered = [choice["value"] for choice in choices if not choice["reason"]]
        if not choices or value in offered:
            return value
        why = next((choice["reason"] for choice in choices if choice["value"] == value), "")
        why = why or f"{value!r} is not in {offered}"
        raise Refused(f"Invalid choice for '{name}': {why}", why)

    def check(self, name: str, value: Any, known: Answers) -> None:
        if why := self.render(self.questions[name].get("validator", ""), known | {name: value}).strip():
            raise Refused(f"Validation error for question '{name}': {why}", why)

    def ask(self, given: Answers, folder: str = "my-flows") -> Asked:
        """Answer all questions: with `given`, else by default. `folder` is the name of the project's folder."""
        conf = {"answers_file": ANSWERS_FILE, "dst_path": folder, "data": given}
        asked = Asked({"_folder_name": folder, "_copier_conf": conf})
        known = asked.known
        for name, question in self.questions.items():
            shown = yaml.safe_load(self.render(question.get("when", True), known))
            choices = self.choices(question, known)
            default = self.parsed(name, self.render(question["default"], known), choices if shown else [])
            known[name], refusal = default, None
            if name in given:
                try:
                    known[name] = value = self.parsed(name, given[name], choices)
                    self.check(name, value, known)
                except Refused as error:
                    asked.refusals.append(refusal := error)
                    known[name] = default  # so that the questions below can still be asked
            if shown:
                asked.stored[name] = known[name]
                if known[name] != default:
                    asked.changed[name] = known[name]
            if question.get("when") is not False:
                asked.form.append(
                    {
                        "name": name,
                        "help": question["help"],
                        "placeholder": question.get("placeholder", ""),
                        "multiselect": question.get("multiselect", False),
                        "shown": shown
                        and (name in given or yaml.safe_load(self.render(question.get("ask", True), known))),
                        "choices": choices,
                        "value": given[name] if refusal else known[name],
                        "error": refusal.reason if refusal else "",
                    }
                )
        return asked

    def left_out(self, known: Answers, operation: str) -> Callable[[str], bool]:
        """Return a function that tells which paths are left out by `operation`, copy or update."""
        known = known | {"_copier_operation": operation}
        lines = [line for entry in self.exclude for line in self.render(entry, known).splitlines()]
        return PathSpec.from_lines("gitignore", lines).match_file

    def project(self, asked: Asked, source: str, commit: str = "") -> dict[str, File]:
        """Return the files of the project by path, as Copier writes them from the address `source`, version `commit`.

        Raises:
            Refused: one of the answers is.
        """
        if asked.refusals:
            raise asked.refusals[0]
        remembered = {"_commit": commit} if commit else {}
        remembered |= {"_src_path": source, **asked.stored}
        known = asked.known | {"_copier_answers": remembered}
        excluded = self.left_out(known, "copy")
        files = {}
        for path in sorted(self.top.rglob("*")):
            if path.is_dir():
                continue
            is_template = path.name.endswith(self.suffix)
            name = path.relative_to(self.top).as_posix()
            if is_template:
                name = self.render(name.removesuffix(self.suffix), known)
            if excluded(name):
                continue
            content = path.read_bytes()
            if is_template:
                content = self.jinja.get_template(path.relative_to(self.root).as_posix()).render(known).encode()
            files[name] = File(content, bool(path.stat().st_mode & stat.S_IXUSR))
        return files


def commands(template: Template, asked: Asked, source: str) -> dict[str, str]:
    """Return the commands that make the same project, with the answers that are not the default."""
    folder = asked.known["project_slug"]

    def words(answers: Answers) -> Iterator[str]:
        for name, value in answers.items():
            text = f"[{', '.join(value)}]" if isinstance(value, list) else value
            yield f"{name}={str(text).lower() if isinstance(value, bool) else text}"

    given = [word for pair in words(asked.changed) for word in ("--data", pair)]
    named = asked.changed | ({"project_name": asked.known["project_name"]} if folder != "my-flows" else {})
    return {
        "copier": shlex.join(["uvx", "copier", "copy", "--defaults", *given, source, folder]),
        "cookiecutter": shlex.join(
            ["uvx", "--with", "copier", "cookiecutter", "--no-input", source, f"project_slug={folder}", *words(named)]
        ),
    }


def folder_of(template: Template, given: Answers) -> str:
    """Return the folder that fits the project's name: the default of the name is the folder's."""
    return template.ask(given).known["project_slug"] or "my-flows"


def archive(files: dict[str, File], folder: str) -> bytes:
    """Return a zip file with the project in `folder`; the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, file in files.items():
            info = zipfile.ZipInfo(f"{folder}/{name}", (2020, 1, 1, 0, 0, 0))
            info.compress_type, info.create_system = zipfile.ZIP_DEFLATED, 3  # Unix, for the permissions
            info.external_attr = (stat.S_IFREG | (0o755 if file.executable else 0o644)) << 16
            out.writestr(info, file.content)
    return buffer.getvalue()


def compared(before: str, now: str) -> Answers:
    """Return what a text changed: the numbers of the lines that are new, from 0, and how many are gone."""
    old, new = before.splitlines(), now.splitlines()
    added: list[int] = []
    removed = 0
    for what, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what != "equal":
            added += range(c, d)
            removed += b - a
    return {"added": added, "removed": removed}


class Session:
    """What the page asks for, with the project that it showed before."""

    def __init__(self, root: Path, source: str, commit: str) -> None:
        self.template, self.source, self.commit = Template(root), source, commit
        self.folder = ""
        self.files: dict[str, File] = {}

    def applying(self, given: Answers) -> Answers:
        """Return those answers whose questions are asked: Copier uses the others as well, but does not store them."""
        given = {name: value for name, value in given.items() if name in self.template.questions}
        while dropped := [name for name in given if name not in self.template.ask(given).stored]:
            given = {name: value for name, value in given.items() if name != dropped[0]}
        return given

    def show(self, given: Answers) -> Answers:
        """Return the form and, unless an answer is refused, the project and what changed in it."""
        given = self.applying(given)
        folder = folder_of(self.template, given)
        asked = self.template.ask(given, folder)
        shown: Answers = {"form": asked.form, "changed": asked.changed, "refusal": ""}
        if asked.refusals:
            return shown | {"refusal": str(asked.refusals[0])}
        before, self.files = self.files, self.template.project(asked, self.source, self.commit)
        self.folder = folder
        files = []
        for name, file in self.files.items():
            text = file.content.decode()
            row = {"name": name, "text": text, "executable": file.executable, "added": [], "removed": 0, "state": ""}
            if name in before and before[name].content != file.content:
                row |= {"state": "changed", **compared(before[name].content.decode(), text)}
            elif before and name not in before:
                row["state"] = "new"
            files.append(row)
        gone = [name for name in before if name not in self.files]
        return shown | {
            "folder": folder,
            "files": files,
            "gone": gone,
            "commands": commands(self.template, asked, self.source),
        }

    def archive(self) -> bytes:
        """Return the project that is shown as a zip file."""
        return archive(self.files, self.folder)
