"""`make release`: what it checks, what it writes; how released versions are found without tags."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from answers import ROOT

from scripts import release

LAST = release.versions()[0]
NEXT = f"{int(LAST.split('.')[0]) + 1}.0.0"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with what a release writes, and with something to release."""
    (tmp_path / ".gitconfig").write_text("[user]\nname = Me\nemail = me@example.com\n", "utf-8")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / ".gitconfig"))
    folder = tmp_path / "copier-prefect"
    (folder / "scripts").mkdir(parents=True)
    for name in ("CHANGELOG.md", "UPGRADING.md", "pyproject.toml", "scripts/release.py"):
        shutil.copy(ROOT / name, folder / name)
    for name, heading in (("CHANGELOG.md", "## [Unreleased]\n"), ("UPGRADING.md", "## Unreleased\n")):
        text = (folder / name).read_text("utf-8").replace(heading, "")
        top, first, rest = text.partition("\n## ")
        (folder / name).write_text(f"{top}\n{heading}\n- Something new.\n{first}{rest}", "utf-8")
    release.git(folder, "init", "--quiet", "--initial-branch", "main")
    release.git(folder, "add", "--all")
    release.git(folder, "commit", "--quiet", "--message", "Something new")
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", "scripts/release.py", *arguments], cwd=folder, capture_output=True, text=True
    )


def test_a_release_is_one_commit_and_its_tag(repository: Path) -> None:
    assert run(repository, NEXT, "--check").returncode == 0
    assert release.git(repository, "tag") == ""
    done = run(repository, NEXT)
    assert done.returncode == 0, done.stderr
    assert f"git push --atomic origin main v{NEXT}" in done.stdout
    assert release.git(repository, "status", "--porcelain") == ""
    assert release.git(repository, "describe") == f"v{NEXT}"
    assert release.versions(repository)[:2] == [NEXT, LAST]
    assert release.commits(repository)[NEXT] == release.git(repository, "rev-parse", "HEAD")
    assert tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]["version"] == NEXT
    assert f"\n## {NEXT}\n" in (repository / "UPGRADING.md").read_text("utf-8")
    assert release.notes("Unreleased", repository) == ""
    assert run(repository, f"v{NEXT}", "--notes").stdout.startswith("- Something new.\n")
    assert run(repository, f"v{LAST}", "--notes").returncode == 1

    assert run(repository, f"{NEXT[:-1]}1").stderr == "CHANGELOG.md says nothing under [Unreleased]\n"


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("", "is not a version like 0.2.0"),
        ("1.0", "is not a version like 0.2.0"),
        ("1.0.0rc1", "is not a version like 0.2.0"),
        (LAST, f"is not newer than {LAST}"),
        ("0.0.1", f"is not newer than {LAST}"),
    ],
)
def test_a_version_that_cannot_be(version: str, reason: str, repository: Path) -> None:
    done = run(repository, version)
    assert done.returncode == 1
    assert reason in done.stderr


def test_a_state_that_is_not_released(repository: Path) -> None:
    head = release.git(repository, "rev-parse", "HEAD")
    (repository / "notes.txt").touch()
    assert "not committed" in run(repository, NEXT).stderr
    (repository / "notes.txt").unlink()
    release.git(repository, "switch", "--quiet", "--create", "other")
    assert run(repository, NEXT).stderr == "Releases are made on main, and this is other\n"
    release.git(repository, "switch", "--quiet", "main")
    release.git(repository, "tag", f"v{NEXT}")
    assert run(repository, NEXT).stderr == f"The tag v{NEXT} exists\n"
    assert release.git(repository, "rev-parse", "HEAD") == head


@pytest.mark.skipif(not release.has_history(), reason="this clone has no history: git fetch --unshallow")
def test_every_released_version_has_its_commit() -> None:
    assert set(release.commits()) == set(release.versions())
    package = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert package["version"] == LAST
