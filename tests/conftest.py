"""Rendering for the tests: through Copier's API, from a plain folder, without trust."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import copier
import pytest
from answers import ROOT, Render

# Tests import from projects that others compare file by file: no bytecode in there, nor from what they start.
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


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

    def render(folder: str = "my-flows", **answers: Any) -> Path:
        project = tmp_path_factory.mktemp("render") / folder
        no_prefills = copier.Settings()  # not those of whoever runs the tests
        copier.run_copy(str(source), project, answers, defaults=True, quiet=True, settings=no_prefills)
        return project

    return render


@pytest.fixture(scope="session")
def project(render: Render) -> Path:
    """The project of all defaults; tests only read it."""
    return render()
