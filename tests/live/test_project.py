"""Generated projects, each with a flow more from `make flow`, pass their own checks: lint, types, tests, server tests."""

import subprocess
from pathlib import Path

import pytest

from demo import render

pytestmark = pytest.mark.live

ANSWERS = {
    "default": [],
    "everything": [
        "prefect_backend=cloud",
        "database=postgresql",
        "alert_channels=[webhook, slack]",
        "alert_on=[failure, success, sla]",
        "sla_minutes=1",
    ],
    "nothing": ["alert_channels=[]", "ci=none"],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_project_passes_its_own_checks(name: str, env: dict[str, str], tmp_path: Path) -> None:
    project = tmp_path / name
    render(project, f"project_name={name}", *ANSWERS[name])
    done = subprocess.run(
        ["make", "--silent", "flow", "lint", "test", "test-server", "NAME=my-flow"],
        cwd=project,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
