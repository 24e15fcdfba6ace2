"""Build the site in build/site: docs/, the documents of the top level, reference pages, the configurator.

A link that leads nowhere is an error, as is every other warning.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from bootstrap import UPSTREAM  # noqa: E402
from configurator import build  # noqa: E402
from scripts import inventory  # noqa: E402

CONFIG = ROOT / "mkdocs.yml"
BUILD = ROOT / "build"
DOCS = BUILD / "docs"
CONSOLE = re.compile(r"^( *)```console\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)]*)?\))")
MADE = ["settings.md", "commands.md"]  # by this script
CONFIGURATOR = "configurator/index.html"
TOP = ["CONTRIBUTING.md", "UPGRADING.md", "CHANGELOG.md"]  # of the top level, pages of the site too


def place(document: str) -> str | None:
    """Return where a file of the repository is in the site, if it is there."""
    if document.startswith("docs/"):
        return document.removeprefix("docs/")
    return document if document in TOP else None


def relinked(document: str, text: str, repository: str) -> str:
    """Return the text of a document with its links as the site needs them; out of it, they lead to the repository."""
    here = os.path.dirname(place(document) or "")

    def link(match: re.Match[str]) -> str:
        target = os.path.normpath(os.path.join(os.path.dirname(document), match[2]))
        found = place(target)
        if found not in {*MADE, CONFIGURATOR} and not (ROOT / target).exists():
            sys.exit(f"{document} links to {target}, which does not exist")
        if found is not None:
            return match[1] + os.path.relpath(found, here or ".") + match[3]
        return f"{match[1]}{repository}/blob/main/{target}{match[3]}"

    return LINK.sub(link, text)


def unprompted(text: str) -> str:
    """Return a document with what is to be typed without prompts, as the copy button of the site takes it."""

    def block(match: re.Match[str]) -> str:
        lines = match[2].splitlines()
        typed = [
            line.startswith("$ ") or before.endswith("\\") for before, line in zip(["", *lines], lines, strict=False)
        ]
        if not all(typed):  # it shows an answer, too
            return match[0]
        return f"{match[1]}```bash\n" + "".join(f"{line.removeprefix('$ ')}\n" for line in lines) + f"{match[1]}```"

    return CONSOLE.sub(block, text)


def menu(nav: list[Any]) -> Iterator[Any]:
    """Yield the menu; a folder in it stands for its pages."""
    for entry in nav:
        for title, value in entry.items() if isinstance(entry, dict) else []:
            if isinstance(value, str) and value.endswith("/"):
                yield {title: [page.relative_to(DOCS).as_posix() for page in sorted((DOCS / value).glob("*.md"))]}
            else:
                yield {title: list(menu(value)) if isinstance(value, list) else value}
        if isinstance(entry, str):
            yield entry


def lost(nav: list[Any]) -> set[str]:
    """Return the pages that are not in the menu, and those of the menu that are not there."""
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    named = listed(nav)
    pages = {page for page in pages if f"{os.path.dirname(page)}/" not in named}
    return (pages | {*TOP, *MADE}) ^ {page for page in named if not page.endswith("/")} - {CONFIGURATOR}


def listed(nav: list[Any]) -> set[str]:
    values = [next(iter(entry.values())) if isinstance(entry, dict) else entry for entry in nav]
    return {page for value in values for page in (listed(value) if isinstance(value, list) else [value])}


def main() -> None:
    config = yaml.safe_load(CONFIG.read_text("utf-8"))
    shutil.rmtree(BUILD, ignore_errors=True)
    shutil.copytree(ROOT / "docs", DOCS)
    documents = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))] + TOP
    repository = config["extra"]["social"][0]["link"]
    for document in documents:
        text = (ROOT / document).read_text("utf-8")
        (DOCS / str(place(document))).write_text(unprompted(relinked(document, text, repository)), "utf-8")
    for name, text in inventory.pages().items():
        (DOCS / name).write_text(text, "utf-8")
    if wrong := lost(config["nav"]):
        sys.exit(f"{', '.join(sorted(wrong))}: in docs/ or in the menu of {CONFIG.name}, but not in both")
    config["nav"] = list(menu(config["nav"]))
    config["docs_dir"], config["site_dir"] = "docs", "site"
    file = BUILD / CONFIG.name
    file.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "utf-8")
    build.build(DOCS / "configurator", UPSTREAM, build.version())
    zensical = Path(sys.executable).with_name("zensical")
    sys.exit(subprocess.run([zensical, "build", "--strict", "--config-file", file]).returncode)


if __name__ == "__main__":
    main()
