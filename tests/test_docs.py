"""Every command that the documents show as runnable is run: here when it is quick, else by the file that is named."""

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from scripts.docs import CONFIGURATOR, MADE, lost, relinked, unprompted

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "UPGRADING.md",
    "CHANGELOG.md",
    "template/README.md.jinja",
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")),
]
BLOCK = re.compile(r"^( *)```bash\n(.*?)^\1```", re.MULTILINE | re.DOTALL)

# Takes minutes or a server: command -> the file that runs it, and the words by which it does.
ELSEWHERE = {
    "make demo": (".ci/run", "make demo"),
    "make test": (".ci/run", "make test"),
    "make lint": (".ci/run", "make lint"),
    "make docs": (".ci/run", "make docs"),
    "make dev": ("demo.py", '["make", "--silent", "dev"]'),
    "make run": ("demo.py", '["make", "--silent", "run"'),
}


def blocks() -> list[tuple[str, str]]:
    texts = {name: (ROOT / name).read_text("utf-8") for name in DOCUMENTS}
    return [(name, dedent(found[2])) for name, text in texts.items() for found in BLOCK.finditer(text)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the repository with the environment of this one, as the documents assume."""
    folder = tmp_path_factory.mktemp("docs") / "copier-prefect"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


@pytest.mark.parametrize(("document", "block"), blocks())
def test_a_block_runs(document: str, block: str, clone: Path) -> None:
    here = []
    for command in block.splitlines():
        if command in ELSEWHERE:
            file, words = ELSEWHERE[command]
            assert words in (ROOT / file).read_text("utf-8")
        else:
            here.append(command)
    done = subprocess.run(["bash", "-euc", "\n".join(here)], cwd=clone, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{document}: {block}\n{done.stdout}{done.stderr}"


def test_links_lead_somewhere() -> None:
    for name in [name for name in DOCUMENTS if not name.startswith("template/")]:
        file = ROOT / name
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text("utf-8")):
            made = target.split("../")[-1] in {*MADE, CONFIGURATOR}
            assert made or (file.parent / target).exists(), f"{name} links to {target}"


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, "scripts/reference.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_page_is_in_the_menu() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    assert lost(nav) == set(), "put it into the menu in mkdocs.yml"
    assert lost([entry for entry in nav if "Tutorial" not in entry]) == {"tutorial.md"}


def test_links_out_of_the_site_lead_to_the_repository() -> None:
    text = "[a](../CONTRIBUTING.md#rules) [b](../copier.yml) [c](how-to/docker.md) [d](https://example.com/x)"
    assert relinked("docs/architecture.md", text, "https://host/o/r") == (
        "[a](CONTRIBUTING.md#rules) [b](https://host/o/r/blob/main/copier.yml) [c](how-to/docker.md) [d](https://example.com/x)"
    )
    assert relinked("docs/how-to/docker.md", "[a](../alerts.md#x)", "") == "[a](../alerts.md#x)"
    assert relinked("UPGRADING.md", "[a](docs/how-to/adopt.md)", "") == "[a](how-to/adopt.md)"
    with pytest.raises(SystemExit, match="which does not exist"):
        relinked("docs/index.md", "![a](gone.webp)", "")


def test_what_is_typed_is_copied_without_prompts() -> None:
    assert unprompted("```console\n$ a \\\n    b\n$ c\n```\n") == "```bash\na \\\n    b\nc\n```\n"
    shown = "```console\n$ a\nanswer\n```\n"
    assert unprompted(shown) == shown


@pytest.mark.parametrize("link", ["gone.md", "other.md#gone"])
def test_a_broken_link_stops_the_site(link: str, tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    config |= {"docs_dir": "docs", "site_dir": "site", "nav": ["index.md", "other.md"]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config), "utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/other.md").write_text("# Other\n", "utf-8")

    def build(text: str) -> int:
        (tmp_path / "docs/index.md").write_text(f"# Home\n\n{text}\n", "utf-8")
        command = [
            Path(sys.executable).with_name("zensical"),
            "build",
            "--strict",
            "--config-file",
            tmp_path / "mkdocs.yml",
        ]
        return subprocess.run(command, capture_output=True).returncode

    assert build("[right](other.md#other)") == 0
    assert build(f"[wrong]({link})") != 0
