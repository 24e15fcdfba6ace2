"""Generated projects, each with a flow more from `make flow`, pass their own checks: lint, types, tests, server tests."""

import re
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
    "nothing": ["alert_channels=[]", "ci=none", "secrets_backend=vault"],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_project_passes_its_own_checks(name: str, env: dict[str, str], tmp_path: Path) -> None:
    project = tmp_path / name
    render(project, f"project_name={name}", *ANSWERS[name])
    make(project, env, "flow", "NAME=my-flow")
    if name == "nothing":
        remove_examples(project)
        assert make(project, env, "--dry-run", "run").split()[-2:] == ["my-flow/my-flow", "--watch"]
        step = (
            '- prefect.deployments.steps.set_working_directory: { directory: "{{ prefect.variables.made_by_hand }}" }'
        )
        file = project / "prefect.yaml"  # refers to what the real server has, and the temporary one has not
        file.write_text(file.read_text("utf-8").replace("pull: []", f"pull:\n  {step}"), "utf-8")
        assert "made_by_hand" in file.read_text("utf-8")
    make(project, env, "lint", "test", "test-server")


def make(project: Path, env: dict[str, str], *arguments: str) -> str:
    command = ["make", "--silent", *arguments]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def remove_examples(project: Path) -> None:
    """Do what the project's README says of them."""
    readme, file = (project / "README.md").read_text("utf-8"), project / "prefect.yaml"
    for name in re.findall(r"^\$ git rm (.*)$", readme, re.MULTILINE)[0].split():
        (project / name).unlink()
    left = {path.stem for folder in ("flows", "tests") for path in (project / folder).glob("*.*")}
    assert not {name for name in left if re.search("etl|ml_training|orders", name)}
    text = file.read_text("utf-8")
    file.write_text(re.sub(r"  - name: etl-daily.*(?=  - name: my-flow)", "", text, flags=re.DOTALL), "utf-8")
    (default,) = re.findall(r"^\$ (echo .*)$", readme, re.MULTILINE)
    subprocess.run(["bash", "-c", default], cwd=project, check=True)
