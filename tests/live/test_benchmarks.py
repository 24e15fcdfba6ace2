"""Each benchmark, in its smallest size, comes to its end: what it measures is still there, and is what it says."""

import importlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

import engine
import pytest
import stack
from answers import ROOT

from scripts.browser import executable

pytestmark = pytest.mark.live
sys.path.append(str(ROOT / "benchmarks"))

SMALLEST: dict[str, dict[str, Any]] = {
    "copier_copy": {"rounds": 1},
    "first_preview": {"rounds": 1},
    "first_run": {"rounds": 1},
    "image": {"rounds": 1},
    "ops_apply": {"deployments": 20, "servers": ("SQLite",)},
    "project_check": {"rounds": 1},
    "server_load": {"rates": (60,), "seconds": 5},
    "task_runners": {"rounds": 1, "work": {"little": 20}},
}
NEEDS = {
    "first_preview": lambda: "" if executable() else "no Chromium: install the package chromium",
    "image": engine.missing,
    "server_load": stack.missing,
}
QUICK = ("copier_copy", "ops_apply", "project_check")


@pytest.fixture
def background() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C, and so does all that it starts."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(file.stem, marks=[pytest.mark.slow] * (file.stem not in QUICK))
        for file in sorted((ROOT / "benchmarks").glob("*.py"))
    ],
)
@pytest.mark.usefixtures("background")
def test_it_comes_to_its_end(name: str, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    if lacks := NEEDS.get(name, str)():
        pytest.skip(lacks)
    for setting, value in env.items():
        monkeypatch.setenv(setting, value)
    importlib.import_module(name).main(**SMALLEST[name])
