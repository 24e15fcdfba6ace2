"""`make flow` in a project: what it writes, and what it refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checks import contents, faults

BAD = [
    "", "My-Flow", "my_flow", "9-lives", "-a", "a-", "a--b", "a b", "a.b", "../x", "x;y", "ünï", "a\n", "a" * 41,
    "class", "list", "true", "null", "on", "task", "total", "test-x", "json", "logging", "httpx", "pytest", "ops",
]  # fmt: skip
ADD = """
import json, sys
from ops.settings import OpsError
from ops.new_flow import add
told = {}
for name in json.loads(sys.argv[1]):
    try:
        told[name] = add(name)
    except OpsError as error:
        told[name] = list(error.faults)
print(json.dumps(told))
"""


def run(project: Path, code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def add(project: Path, *names: str) -> dict[str, list[str]]:
    return json.loads(run(project, ADD, json.dumps(names)))


@pytest.fixture
def mine(project: Path, tmp_path: Path) -> Path:
    return shutil.copytree(project, tmp_path / "my-flows")


def test_a_flow_its_test_and_its_deployment(mine: Path) -> None:
    before = (mine / "prefect.yaml").read_text("utf-8")
    written = ["flows/my_flow.py", "tests/test_my_flow.py", "prefect.yaml"]
    assert add(mine, "my-flow", "z9", "a" * 40)["my-flow"] == written
    assert faults(mine) == ""
    text = (mine / "prefect.yaml").read_text("utf-8")
    assert text.startswith(before)
    assert text.count("work_pool: *work_pool") == before.count("work_pool: *work_pool") + 3
    its_tests = [written[1], "tests/test_deployments.py", "-k", "total or this_repository"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:kmock", *its_tests]
    done = subprocess.run(command, cwd=mine, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout  # its own test, and the declarations of four environments


def test_what_does_not_do_is_told_in_one_line_and_nothing_is_written(mine: Path) -> None:
    before = contents(mine)
    told = add(mine, *BAD, "etl", "etl-daily")
    for name in BAD:
        (line,) = told[name]
        assert "right is a name like my-flow" in line
        assert "\n" not in line
    assert told["etl"] == ["flows/etl.py exists: choose another name, or remove it first"]
    assert told["etl-daily"] == ["prefect.yaml: there is a deployment etl-daily: choose another name"]
    after = {name: content for name, content in contents(mine).items() if "__pycache__" not in name}
    assert after == before


AROUND = [  # above the entry, below it
    ("deployments:\n- name: a\n  work_pool:\n    name: p\n", ""),
    ("deployments:\n  - name: a\n    entrypoint: x", ""),
    ("deployments:\n  - name: a\n  # - name: b\n", "\n# what follows\npull: []\n"),
    ("# top\ndeployments:\n    - {name: a}\n", "\nname: x # last\n"),
]
UNFIT = ["deployments: []\n", "deployments: [\n", "- a\n", ""]
TEXTS = """
import json, sys
from ops.settings import OpsError
from ops.new_flow import with_deployment
def told(text):
    try:
        return with_deployment(text, "my-flow", "my_flow")
    except OpsError as error:
        return list(error.faults)
print(json.dumps([told(text) for text in json.loads(sys.argv[1])]))
"""


def test_the_entry_goes_to_the_others_whatever_stands_around(project: Path) -> None:
    texts = [above + below for above, below in AROUND] + UNFIT
    found = json.loads(run(project, TEXTS, json.dumps(texts)))
    for (above, below), after in zip(AROUND, found[: len(AROUND)], strict=True):
        assert after.startswith(above)
        assert after.endswith(below or "\n")
        old, new = yaml.safe_load(after)["deployments"]
        assert (old["name"], new["name"]) == ("a", "my-flow")
        assert new["work_pool"] == {"name": "my-flows"}
    for told in found[len(AROUND) :]:
        (line,) = told
        assert line.startswith("prefect.yaml: ")
        assert "\n" not in line
