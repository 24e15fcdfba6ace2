# /// script
# requires-python = ">=3.11"
# dependencies = ["copier>=9.19"]
# ///
"""Turn a repository made with GitHub's "Use this template" into your project.

    uv run bootstrap.py             asks the questions
    uv run bootstrap.py --defaults  takes the default of each

The files of the template are replaced by those of the project. Nothing is committed: until you do,
`git reset --hard` takes it back. `copier update` later brings what the template has learnt.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# The public address of the template. It is stated here and in the documents, and a test compares them.
UPSTREAM = "gh:OWNER/copier-prefect"
ROOT = Path(__file__).resolve().parent


def git(*arguments: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(["git", *arguments], cwd=cwd or ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip())
    return done.stdout


def place(address: str) -> list[str]:
    """Return the last two parts of an address, as a rule owner and repository: each host and protocol spells the rest."""
    return re.split("[/:]", address.rstrip("/").removesuffix(".git"))[-2:]


def obstacle() -> str:
    """Return why this repository has to be left alone, if it has."""
    if not all((ROOT / name).exists() for name in ("copier.yml", "cookiecutter.json", "template")):
        if (ROOT / ".copier-answers.yml").exists():  # a project, and this file, which goes last, is still there
            return "An earlier run was cut short. Take it back, then start again: git reset --hard && git clean -fd"
        return "This is not a copy of the template: there is nothing to do."
    if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != ROOT:
        return "This is not the top of a Git repository: there is nothing to do."
    origin = git("config", "--default", "", "--get", "remote.origin.url").strip()
    if place(origin.lower()) == place(UPSTREAM.lower()):
        return f"This is the template itself ({UPSTREAM}), not a repository made from it."
    if git("status", "--porcelain"):
        return "Commit or remove your changes first: every file is replaced."
    return ""


def render(project: Path, options: argparse.Namespace) -> None:
    """Render the project into an empty folder, from the public address so that it can be updated from there."""
    import copier  # not above: the other doors read UPSTREAM from here

    try:
        copier.run_copy(
            UPSTREAM, project, dict(options.data), defaults=options.defaults, vcs_ref=options.vcs_ref, quiet=True
        )
    except KeyboardInterrupt:
        sys.exit("Stopped. Nothing was changed.")
    except Exception as error:
        sys.exit(f"{error}\nNothing was changed.")


def swap(project: Path) -> None:
    """Replace the files of this repository by those of `project`.

    The index comes first, so Git knows each file before it is written and `git reset --hard` undoes a part, too.
    """
    before = tracked()
    repository = git("rev-parse", "--absolute-git-dir").strip()
    git(f"--git-dir={repository}", f"--work-tree={project}", "add", "--all", "--force", cwd=project)
    git("checkout-index", "--all", "--force")
    # This file goes last: as long as it is there, not all is done, and it says so when it is started again.
    for name in sorted(before - tracked(), key=lambda name: name == Path(__file__).name):
        (ROOT / name).unlink()
        for folder in Path(name).parents[:-1]:
            if any((ROOT / folder).iterdir()):
                break
            (ROOT / folder).rmdir()


def tracked() -> set[str]:
    return set(git("ls-files", "-z").split("\0")) - {""}


def answer(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--defaults", action="store_true", help="ask nothing")
    parser.add_argument(
        "--data", action="append", default=[], type=answer, metavar="NAME=VALUE", help="answer a question"
    )
    parser.add_argument("--vcs-ref", metavar="REF", help="version of the template (default: the newest)")
    options = parser.parse_args()
    if reason := obstacle():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch, ROOT.name)  # the folder's name is the default of the project's
        render(project, options)
        print("Replacing the template by the project. If this is cut short: git reset --hard", flush=True)
        swap(project)
    print('Done, and staged. Look: git status. Keep it: git commit -m "Create the project"')


if __name__ == "__main__":
    main()
