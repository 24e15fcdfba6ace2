"""Write docs/questions.md and the table of choices in README.md from copier.yml and data/.

With --check only tell whether they are up to date.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "questions.md"
README = ROOT / "README.md"
CHOICES = re.compile(
    r"(?<=<!-- choices, written by scripts/reference.py -->\n).*?(?=<!-- end of choices -->)", re.DOTALL
)
Answers = dict[str, Any]

INTRO = """\
# Questions

<!-- Written by scripts/reference.py from copier.yml and data/: change those. -->

What `copier copy` asks, in its order. `--data NAME=VALUE` answers one question, `--data-file FILE` several, and
`--defaults` takes the default of the rest. Every answer is checked before the first file is written; a name that is no
question is ignored.

The answers lie in the project's `.copier-answers.yml`, which `copier update` reads and writes. To change one later,
commit first, then for example `copier update --vcs-ref :current: --data ci=none`.
"""


class Form:
    """The questions of copier.yml, rendered with the tables of data/ and with each question's default.

    Attributes:
        questions: those that a person can answer, by name
        computed: those that follow from the answers, by name
        answers: the default answer to each, and the tables
    """

    def __init__(self, root: Path) -> None:
        config = yaml.safe_load((root / "copier.yml").read_text("utf-8"))
        options = config["_envops"] | {"undefined": StrictUndefined}
        filters = ["jinja2_ansible_filters.AnsibleCoreFiltersExtension"]  # what Copier itself loads
        self.jinja = Environment(loader=FileSystemLoader(root), extensions=filters, **options)  # noqa: S701 - no HTML
        self.answers: Answers = {"_folder_name": "my-flows"}
        self.questions: dict[str, Answers] = {}
        self.computed: dict[str, Answers] = {}
        for name, question in config.items():
            if name.startswith("_"):
                continue
            self.answers[name] = self.default(question)
            if question.get("when") is not False:
                self.questions[name] = question
            elif "include" not in question["default"]:  # else it is a table
                self.computed[name] = question

    def render(self, value: Any) -> str:
        return self.jinja.from_string(str(value)).render(self.answers)

    def default(self, question: Answers) -> Any:
        text = self.render(question["default"])
        plain = question["type"] == "str" and not question.get("multiselect")
        return text if plain else yaml.safe_load(text)

    def choices(self, question: Answers) -> list[tuple[str, str]]:
        """Return each choice of a question and what it means."""
        table = re.search(r"in (\w+)\.items\(\)", str(question["choices"]))
        if not table:
            return [(value, "") for value in yaml.safe_load(self.render(question["choices"]))]
        return [(value, describe(row)) for value, row in self.answers[table[1]].items()]


def describe(row: Answers) -> str:
    """Return a row of a table as the cell of a table in Markdown."""
    holds = "minutes are" if "minutes" in row else "address is"
    text = row["title"] + (f"; its {holds} the setting `{row['setting']}`" if "setting" in row else "")
    return text.replace("|", r"\|")


def code(value: Any) -> str:
    if isinstance(value, list):
        return f"`[{', '.join(value)}]`"
    return "empty" if value == "" else f"`{value}`"


def expression(text: str) -> str:
    return f"`{' '.join(text.split()).removeprefix('{{').removesuffix('}}').strip()}`"


def rule(question: Answers) -> str:
    """Return the text with which the validator refuses an answer."""
    return " ".join(re.sub(r"{%.*?%}", "", question.get("validator", ""), flags=re.DOTALL).split())


def section(form: Form, name: str) -> Iterator[str]:
    question = form.questions[name]
    yield f"\n## `{name}`\n\n{question['help']}\n\n"
    if question.get("multiselect"):
        yield f"- Several may be chosen, none too: `--data '{name}={code(form.answers[name]).strip('`')}'`\n"
    yield f"- Default: {code(form.answers[name])}"
    yield ", the name of the folder, as far as it fits\n" if "_folder_name" in str(question["default"]) else "\n"
    if "when" in question:
        yield f"- Asked when {expression(question['when'])}\n"
    if yaml.safe_load(form.render(question.get("ask", True))) is False:
        yield "- Not asked: there is one choice\n"
    if told := rule(question):
        yield f"- Rule: {told}\n"
    if "choices" in question:
        choices = form.choices(question)
        if any(meaning for _, meaning in choices):
            yield "\n| Choice | Meaning |\n| --- | --- |\n"
            yield from (f"| `{value}` | {meaning} |\n" for value, meaning in choices)
        else:
            yield f"- Choices: {', '.join(code(value) for value, _ in choices)}\n"


def page(root: Path) -> str:
    """Return docs/questions.md for the copier.yml in `root`."""
    form = Form(root)
    lines = [INTRO]
    for name in form.questions:
        lines += section(form, name)
    lines.append("\n## Computed answers\n\nThey follow from the others; do not give them.\n\n")
    lines += [f"- `{name}`: {expression(question['default'])}\n" for name, question in form.computed.items()]
    return "".join(lines)


def overview(form: Form) -> str:
    """Return the table of README.md: what can be chosen."""
    lines = ["\n| Question | Choices |\n| --- | --- |\n"]
    for _name, question in form.questions.items():
        choices = form.choices(question) if "choices" in question else []
        if names := [meaning.split(":")[0].split(";")[0] for _, meaning in choices if meaning]:
            lines.append(f"| {question['help']} | {', '.join(names)} |\n")
    return "".join([*lines, "\n"])


def bring_up_to_date(script: str, files: dict[Path, str]) -> None:
    """Write each file whose text is another now; with --check on the command line, tell the difference and exit with 1.

    Args:
        script: path of what is run to write them
        files: what each has to hold
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when one is out of date")
    check = parser.parse_args().check
    stale = []
    for file, wanted in files.items():
        found = file.read_text("utf-8") if file.exists() else ""
        if wanted == found:
            continue
        if not check:
            file.write_text(wanted, "utf-8")
            continue
        stale.append(str(file.relative_to(ROOT)))
        names = (stale[-1], "as copier.yml and data/ say")
        sys.stdout.writelines(difflib.unified_diff(found.splitlines(True), wanted.splitlines(True), *names))
    if stale:
        sys.exit(f"{', '.join(stale)}: out of date: run {Path(script).relative_to(ROOT)}")


def main() -> None:
    table = overview(Form(ROOT))
    readme = README.read_text("utf-8")
    bring_up_to_date(__file__, {PAGE: page(ROOT), README: CHOICES.sub(lambda _: table, readme)})


if __name__ == "__main__":
    main()
