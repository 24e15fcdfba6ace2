"""The settings of ops/settings.py, the file that explains them, and that no value of them is committed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr, ValidationError

from ops.settings import ROOT, MissingSetting, Settings

EXAMPLE = ROOT / ".env.example"
SECRETS = [name for name, field in Settings.model_fields.items() if field.annotation == SecretStr | None]


def test_example_lists_every_setting() -> None:
    listed = re.findall(r"^(?:# ?)?([A-Z][A-Z0-9_]*)=", EXAMPLE.read_text("utf-8"), re.MULTILINE)
    assert len(listed) == len(set(listed))
    others = ("PREFECT_API_", "PREFECT_SERVER_", "PREFECT_UI_", "POSTGRES_")  # Prefect's, and those of compose.yaml
    assert {name for name in listed if not name.startswith(others)} == {name.upper() for name in Settings.model_fields}


def test_example_can_be_used_as_it_is() -> None:
    Settings(_env_file=EXAMPLE)


@pytest.mark.parametrize("name", SECRETS)
def test_a_missing_secret_is_named(name: str) -> None:
    with pytest.raises(MissingSetting, match=rf"^{name.upper()} is not set: .+ Set it in \.env") as caught:
        Settings().require(name)
    assert caught.value.names == [name.upper()]


@pytest.mark.parametrize("name", SECRETS)
def test_an_empty_secret_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name.upper(), "")
    with pytest.raises(MissingSetting):
        Settings().require(name)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_does_not_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name.upper(), "hush-hush")
    settings = Settings()
    assert settings.require(name).get_secret_value() == "hush-hush"
    assert "hush-hush" not in f"{settings} {settings!r}"


@pytest.mark.parametrize(("environment", "preview"), [("preview", ""), ("preview", "PR 12"), ("prod", "pr-12")])
def test_a_preview_has_a_name_and_nothing_else_has(
    environment: str, preview: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_ENV", environment)
    monkeypatch.setenv("PREVIEW", preview)
    with pytest.raises(ValidationError, match="preview"):
        Settings()


def test_an_unknown_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_ENV", "production")
    with pytest.raises(ValidationError, match="prefect_env"):
        Settings()


def found_in(*files: str | Path) -> str:
    """Return what the hook in .pre-commit-config.yaml says of files, such as what looks like a secret."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
    hook = next(hook for hook in hooks if hook["id"] == "secrets")
    options = [*hook["entry"].split()[1:], *hook["args"]]
    command = [sys.executable, "-m", "detect_secrets.pre_commit_hook", *options, *map(str, files)]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def test_no_secret_is_committed() -> None:
    command = ["git", "grep", "--no-index", "--exclude-standard", "-Il", "", "--", ".", ":!uv.lock"]
    committed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "pyproject.toml" in committed
    assert found_in(*committed) == ""


@pytest.mark.parametrize(
    "line",
    [
        'key = "AKIA' + "Q7" * 8 + '"',
        'key = "xoxb-' + "1234567890-" * 2 + "a1b2c3d4" * 3 + '"',
        'url = "postgresql://flows:' + "hush-hush" + '@db.example.com/sales"',
        "pass" + 'word = "hush-hush"',
    ],
)
def test_a_secret_in_a_file_is_found(line: str, tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(f"{line}\n", "utf-8")
    assert "sample.py" in found_in(file)
