"""Cookiecutter runs this in the new folder: Copier fills it from template/.

There is one renderer, so both tools write the same bytes, and `copier update` works in a project made with either.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CONTEXT = json.loads(r"""{{ cookiecutter | tojson }}""")  # the filter writes one line without three quotes in a row
PLACEHOLDER = Path("HOOKS-ARE-OFF.md")
IS_ZIP = CONTEXT["_template"].lower().endswith(".zip")
KNOWN_TO_COPIER = re.compile(r"git@|git://|git\+|https://git(hub|lab)\.com/|.*\.git\Z")


def template_folder() -> Path:
    """Return the folder of the template, which Cookiecutter may tell relative to where it was started."""
    for base in (os.environ.get("PWD", ""), CONTEXT["_output_dir"]):
        folder = Path(base, CONTEXT["_repo_dir"]).resolve()
        if (folder / "copier.yml").is_file():
            return folder
    sys.exit(f"There is no template in {CONTEXT['_repo_dir']}: give Cookiecutter the absolute path")


def address(folder: Path) -> str:
    """Return the template's address as Copier spells it, for Copier keeps it and updates from there."""
    typed = CONTEXT["_template"]
    if typed.startswith(("gh:", "gl:")):
        return typed
    if IS_ZIP or typed == CONTEXT["_repo_dir"]:
        return str(folder)
    command = ["git", "-C", str(folder), "config", "--get", "remote.origin.url"]
    url = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return url if KNOWN_TO_COPIER.match(url) else f"git+{url}"


def options() -> list[str]:
    """Return the version, if one is asked for, and the answers. A blank one is left to Copier's default."""
    version = [f"--vcs-ref={CONTEXT['_checkout']}"] if CONTEXT["_checkout"] else []
    no_answers = {"project_slug", *(name for name in CONTEXT if name.startswith("_"))}  # Copier computes its own slug
    answers = {name: value for name, value in CONTEXT.items() if name not in no_answers and value != ""}
    return [*version, *(f"--data={name}={value}" for name, value in answers.items())]


def copier() -> list[str]:
    if importlib.util.find_spec("copier"):
        return [sys.executable, "-m", "copier"]
    return ["copier"] if shutil.which("copier") else ["uvx", "copier"]


def keep_public_address(folder: Path) -> None:
    """Name the template's public address in the answers file: the unpacked zip will be gone."""
    sys.path.insert(0, str(folder))
    from bootstrap import UPSTREAM

    file = Path(".copier-answers.yml")
    file.write_text(re.sub(r"(?m)^_src_path: .*$", f"_src_path: {UPSTREAM}", file.read_text("utf-8")), "utf-8")


def main() -> None:
    folder = template_folder()
    PLACEHOLDER.unlink()
    command = [*copier(), "copy", "--defaults", "--overwrite", *options(), address(folder), str(Path.cwd())]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip().rpartition("\n")[2])  # the reason, without Copier's traceback
    if IS_ZIP:
        keep_public_address(folder)
    print(*re.findall(r"(?ms)^[^\n]* is ready\. Next:$.*", done.stderr), end="")  # without the list of files before


if __name__ == "__main__":
    main()
