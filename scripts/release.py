"""Make a release of what is on this branch: check, bump, date the changelog, commit, tag.

A release is a dated heading in CHANGELOG.md; its commit is the one that wrote the heading. So the versions can be found
in any clone that has the history, also where the tags are missing.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADING = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", re.MULTILINE)


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip())
    return done.stdout.strip()


def versions(root: Path = ROOT) -> list[str]:
    """Return the released versions, the newest first."""
    return HEADING.findall((root / "CHANGELOG.md").read_text("utf-8"))


def has_history(root: Path = ROOT) -> bool:
    """Tell whether all commits are here: a shallow clone, or an unpacked archive, has not the released ones."""
    command = ["git", "rev-parse", "--is-shallow-repository"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True).stdout.strip() == "false"


def commits(root: Path = ROOT) -> dict[str, str]:
    """Return the commit of each released version."""
    text = (root / "CHANGELOG.md").read_text("utf-8")
    found = {}
    for heading in HEADING.finditer(text):
        wrote = git(root, "log", "--reverse", "--format=%H", f"-S{heading[0]}", "--", "CHANGELOG.md")
        if wrote:  # else it is not committed yet
            found[heading[1]] = wrote.splitlines()[0]
    return found


def notes(version: str, root: Path = ROOT) -> str:
    """Return what the changelog says about a version."""
    text = (root / "CHANGELOG.md").read_text("utf-8")
    found = re.search(rf"^## \[{re.escape(version)}\].*\n(?P<notes>(?:(?!## \[).*\n)*)", text, re.MULTILINE)
    return found["notes"].strip() if found else ""


def parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def obstacle(version: str, root: Path = ROOT) -> str:
    """Return why `version` cannot be released, if it cannot."""
    known = versions(root)
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        return f"{version!r} is not a version like 0.2.0: make release VERSION=0.2.0"
    if known and parts(version) <= parts(known[0]):
        return f"{version} is not newer than {known[0]}, the last release"
    if git(root, "status", "--porcelain"):
        return "There are changes that are not committed: commit or remove them first"
    if (branch := git(root, "rev-parse", "--abbrev-ref", "HEAD")) != "main":
        return f"Releases are made on main, and this is {branch}"
    if git(root, "tag", "--list", f"v{version}"):
        return f"The tag v{version} exists"
    if not notes("Unreleased", root):
        return "CHANGELOG.md says nothing under [Unreleased]"
    return ""


def release(version: str, root: Path = ROOT) -> None:
    """Write the version into its files, commit and tag."""
    edits = {
        "CHANGELOG.md": (r"(?m)^## \[Unreleased\]$", f"## [Unreleased]\n\n## [{version}] - {date.today()}"),
        "UPGRADING.md": (r"(?m)^## Unreleased$", f"## {version}"),
        "pyproject.toml": (r'(?m)^version = ".*"$', f'version = "{version}"'),
    }
    for name, (old, new) in edits.items():
        text = (root / name).read_text("utf-8")
        (root / name).write_text(re.sub(old, new, text, count=1), "utf-8")
    git(root, "commit", "--quiet", "--message", f"Release {version}", *edits)
    git(root, "tag", "--annotate", f"v{version}", "--message", f"Release {version}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="like 0.2.0")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--check", action="store_true", help="only tell whether it can be released")
    only.add_argument("--notes", action="store_true", help="print what the changelog says about a released version")
    options = parser.parse_args()
    version = options.version.removeprefix("v")
    if options.notes:
        package = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        if not versions()[0] == package["version"] == version:
            sys.exit(f"CHANGELOG.md and pyproject.toml do not say that {version} is the last release")
        print(notes(version))
    elif reason := obstacle(version):
        sys.exit(reason)
    elif not options.check:
        release(version)
        print(f"Committed and tagged. To publish it: git push --atomic origin main v{version}")


if __name__ == "__main__":
    main()
