"""Write what repeats the questions of copier.yml: cookiecutter.json and the inputs of the web form.

With --check only tell whether they are up to date.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml
from jinja2 import UndefinedError
from reference import ROOT, Answers, Form, bring_up_to_date

JSON = ROOT / "cookiecutter.json"
WORKFLOW = ROOT / ".github" / "workflows" / "create-project.yml"
INPUTS = re.compile(r"(?<=^    inputs:\n).*?(?=^\S)", re.MULTILINE | re.DOTALL)
FOLDER = {"_folder_name": "my-flows"}


def default(form: Form, name: str, known: Answers) -> Any:
    """Return the default answer, blank when it follows from what is not `known`: Copier gives a blank one its default."""
    question = form.questions[name]
    try:
        text = form.jinja.from_string(str(question["default"])).render(known)
    except UndefinedError:
        return ""
    if question.get("multiselect"):  # a string, for neither front end knows lists
        return f"[{', '.join(yaml.safe_load(text))}]"
    return yaml.safe_load(text) if question["type"] == "bool" else text


def choices(form: Form, name: str) -> dict[str, str]:
    """Return the choices of a question, each with its title."""
    found = yaml.safe_load(form.render(form.questions[name]["choices"]))
    titles = found if isinstance(found, dict) else {value: value for value in found}
    return {value["value"] if isinstance(value, dict) else value: title for title, value in titles.items()}


def tables(form: Form) -> Answers:
    """Return what is known before the first question: the tables of data/."""
    asked = {*form.questions, *form.computed, *FOLDER}
    return {name: value for name, value in form.answers.items() if name not in asked}


def listed(form: Form, name: str) -> str:
    """Return the help of a question; where several choices may be picked, with the choices."""
    question = form.questions[name]
    several = f" Any of: {', '.join(choices(form, name))}" if question.get("multiselect") else ""
    return question["help"] + several


def cookiecutter_json(form: Form) -> str:
    out: Answers = {}
    prompts: Answers = {}
    for name, question in form.questions.items():
        out[name] = default(form, name, tables(form) | FOLDER)
        prompts[name] = listed(form, name)
        if "choices" in question and not question.get("multiselect"):
            titles = choices(form, name)
            prompts[name] = {"__prompt__": question["help"], **titles}
            if out[name] == "":
                prompts[name][""] = "What fits the other answers"
            out[name] = list(dict.fromkeys([out[name], *titles]))
        if name == "project_name":
            out["project_slug"] = "{{ cookiecutter.project_name | slugify or 'my-flows' }}"
            prompts["project_slug"] = "What is the name of its folder?"
    return json.dumps({**out, "__prompts__": prompts}, indent=2, ensure_ascii=False) + "\n"


def workflow_inputs(form: Form) -> Iterator[str]:
    for name, question in form.questions.items():
        field = {"description": listed(form, name), "default": default(form, name, tables(form))}
        if isinstance(field["default"], bool):
            field["type"] = "boolean"
        elif "choices" in question and not question.get("multiselect"):
            field |= {"type": "choice", "options": list(dict.fromkeys([field["default"], *choices(form, name)]))}
        yield f"      {name}:\n"
        for key, value in field.items():
            lines = [f"\n          - {json.dumps(one)}" for one in value] if isinstance(value, list) else []
            yield f"        {key}:{''.join(lines) or ' ' + json.dumps(value, ensure_ascii=False)}\n"
    yield "\n"


def main() -> None:
    form = Form(ROOT)
    inputs = "".join(workflow_inputs(form))
    workflow = INPUTS.sub(lambda _: inputs, WORKFLOW.read_text("utf-8"))
    bring_up_to_date(__file__, {JSON: cookiecutter_json(form), WORKFLOW: workflow})


if __name__ == "__main__":
    main()
