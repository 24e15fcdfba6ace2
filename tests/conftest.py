"""Rendering for the tests: through Copier's API, from a plain folder, without trust."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import copier
import pytest
import yaml
from answers import ROOT, Render
from copier._jinja_ext import SandboxedEnvironment
from copier._main import Worker

# Tests import from projects that others compare file by file: no bytecode in there, nor from what they start.
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


COMPILED: dict[tuple, CodeType] = {}


@pytest.fixture(scope="session", autouse=True)
def fast_copier() -> Iterator[None]:
    """Let Copier render many projects in this process in a tenth of the time, to the same bytes.

    It compiles every template and every part of a path anew for each project; here, what was compiled is kept. It reads
    YAML, also each answer, in Python; libyaml does so in a tenth of the time. And it asks Git about each file, for file
    systems without executable bits. Copier as its users have it runs in the tests that start it as a program.
    """
    compile_anew = SandboxedEnvironment.compile

    def compiled(self: SandboxedEnvironment, source: str, *where: Any, **options: Any) -> CodeType:
        key = (source, where, tuple(options.items()))
        if key not in COMPILED:
            COMPILED[key] = compile_anew(self, source, *where, **options)
        return COMPILED[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SandboxedEnvironment, "compile", compiled)
        patch.setattr(yaml, "SafeLoader", yaml.CSafeLoader)
        patch.setattr(yaml, "FullLoader", yaml.CFullLoader)
        patch.setattr(Worker, "_sync_git_index_executable_bit", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template without its git history: Copier would clone that for each render."""
    folder = tmp_path_factory.mktemp("source")
    for part in ("copier.yml", "UPGRADING.md"):
        shutil.copy(ROOT / part, folder)
    for part in ("data", "includes", "template"):
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part)
    return folder


@pytest.fixture(scope="session")
def render(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Render a new project: `render(database="postgresql")`."""

    def render(folder: str = "my-flows", into: Path | None = None, **answers: Any) -> Path:
        project = (into or tmp_path_factory.mktemp("render")) / folder
        copier.run_copy(str(source), project, answers, defaults=True, quiet=True, settings=no_prefills)
        return project

    no_prefills = copier.Settings()  # not those of whoever runs the tests
    return render


@pytest.fixture(scope="session")
def project(render: Render) -> Path:
    """The project of all defaults; tests only read it."""
    return render()
