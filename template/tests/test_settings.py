"""The settings of ops/settings.py, and the file that explains them."""

import re

import pytest
from pydantic import SecretStr, ValidationError

from ops.settings import ROOT, MissingSetting, Settings

EXAMPLE = ROOT / ".env.example"
SECRETS = [name for name, field in Settings.model_fields.items() if field.annotation == SecretStr | None]


def test_example_lists_every_setting() -> None:
    listed = re.findall(r"^(?:# ?)?([A-Z][A-Z0-9_]*)=", EXAMPLE.read_text("utf-8"), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert {name for name in listed if not name.startswith("PREFECT_API_")} == {
        name.upper() for name in Settings.model_fields
    }


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
