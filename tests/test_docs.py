"""Every command that the documents show is run: here when it is quick, else by the file that is named, or it is told why not.

Blocks marked `bash` are run as they stand. Those marked `console` are typed where a project, a server or an account is:
of these, each command is tried as far as it goes without.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from answers import Render

import bootstrap
import demo
from scripts.docs import CONFIGURATOR, CONSOLE, MADE, lost, relinked, unprompted

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "UPGRADING.md",
    "CHANGELOG.md",
    "template/README.md.jinja",
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")),
]
OF_THE_TEMPLATE = ("CONTRIBUTING.md", "docs/how-to/configurator.md")  # commands for this repository, not for a project
BLOCK = re.compile(r"^( *)```bash\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
COPIER = Path(sys.executable).with_name("copier")

# Takes minutes or a server: command -> the file that runs it, and the words by which it does.
ELSEWHERE = {
    "make demo": (".ci/run", "make demo"),
    "make test": (".ci/run", "make test"),
    "make lint": (".ci/run", "make lint"),
    "make docs": (".ci/run", "make docs"),
    "make dev": ("demo.py", '["make", "--silent", "dev"]'),
    "make run": ("demo.py", '["make", "--silent", "run"'),
}


# Commands in `console` blocks that are not tried here: how they begin -> the file that runs them, or why nothing does.
NOT_HERE = {
    "airflow": "tests/data/airflow was exported by it",
    "aws": "needs an account",
    "az": "needs an account",
    "cd": "",
    "docker compose": "needs Docker; tests/live/test_self_host.py runs the same of PostgreSQL",
    "echo": "",
    "gcloud": "needs an account",
    "git": "",
    "helm install": "needs a cluster",
    "uv run bootstrap.py": "tests/test_doors.py",
    "uvx --with copier cookiecutter": "tests/test_doors.py",
    "vault": "needs a Vault",
    ".venv/bin/prefect": "Prefect's own, against a server",
    "for day in": "Prefect's own, against a server",
    ".venv/bin/python observability/exporter.py": "tests/live/test_observability.py",
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


def typed(text: str) -> Iterator[str]:
    """Yield each command of the `console` blocks of a document."""
    for block in CONSOLE.finditer(text):
        for line in re.findall(r"^ *\$ (.*)", block[2].replace("\\\n", ""), re.MULTILINE):
            yield from re.sub(r"\s{2,}# .*", "", line).split(" && ")


@pytest.fixture(scope="module")
def made(render: Render) -> Path:
    """A project that has every file that the documents speak of, with the environment of this repository."""
    folder = render(pool_type="docker", database="postgresql", observability=["prometheus"], from_airflow=True)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_command_that_is_shown_is_right(document: str, clone: Path, made: Path, tmp_path: Path) -> None:
    file = made / "README.md" if document.startswith("template/") else ROOT / document
    for number, command in enumerate(typed(file.read_text("utf-8"))):
        words = re.sub(r"^([A-Z_]+=\S+ )*", "", command)  # without settings
        folder = clone if document in OF_THE_TEMPLATE else made
        if words.startswith("make "):
            words = f"make --dry-run {words.removeprefix('make ')}"
        elif words.startswith(".venv/bin/python -m ops "):
            words += " --help"
        elif found := re.fullmatch(r"(?:uvx )?copier copy (?:--defaults )?(.*)", words):
            words = f"{COPIER} copy --defaults --vcs-ref HEAD {found[1].replace(bootstrap.UPSTREAM, str(clone))}"
            folder = tmp_path / str(number)
            folder.mkdir()
        else:
            assert words.startswith(tuple(NOT_HERE)), f"{document}: {command}: run it, or tell why not"
            continue
        done = subprocess.run(["bash", "-euc", words], cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{document}: {words}\n{done.stdout}{done.stderr}"


def code() -> list[tuple[str, str]]:
    texts = {name: (ROOT / name).read_text("utf-8") for name in DOCUMENTS}
    return [(name, dedent(found[2])) for name, text in texts.items() for found in PYTHON.finditer(text)]


@pytest.mark.parametrize(("document", "block"), code())
def test_python_that_is_shown_is_right(document: str, block: str, made: Path) -> None:
    """It compiles, and what it imports is there; most of it needs a server to do anything."""
    tree = ast.parse(re.sub(r'^(".*),$', r"{\1}", block, flags=re.MULTILINE))  # a row of a dictionary stands alone, too
    imports = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    done = subprocess.run([sys.executable, "-c", "\n".join(imports)], cwd=made, capture_output=True, text=True)
    assert done.returncode == 0, f"{document}: {done.stderr}"


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


def test_a_demo_that_was_cut_short_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = tmp_path / "demo/.copier-answers.yml"
    earlier.parent.mkdir()
    earlier.touch()
    monkeypatch.setattr(demo, "DEMO", earlier.parent)
    monkeypatch.setattr(demo, "RUNNING", tmp_path / "demo.pid")

    def render(folder: Path, *_: str) -> None:
        folder.mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "render", render)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            demo.main()
    assert earlier.exists()
