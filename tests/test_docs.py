"""Every command that the documents show as runnable is run: here when it is quick, else by the file that is named."""

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "template/README.md.jinja",
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")),
]
BLOCK = re.compile(r"^( *)```bash\n(.*?)^\1```", re.MULTILINE | re.DOTALL)

# Takes minutes or a server: command -> the file that runs it, and the words by which it does.
ELSEWHERE = {
    "make demo": (".ci/run", "make demo"),
    "make test": (".ci/run", "make test"),
    "make lint": (".ci/run", "make lint"),
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
            assert (file.parent / target).exists(), f"{name} links to {target}"


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, "scripts/reference.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
