"""`make flow NAME=my-flow`: a flow to start from, its test and its deployment."""

import builtins
import keyword
import re
from importlib.util import find_spec
from pathlib import Path

import yaml

from ops.settings import PROJECT, ROOT, OpsError

FLOW = '''\
"""What this flow is for."""

from prefect import flow, get_run_logger, task


def total(amounts: list[float]) -> float:
    """Return their sum: logic in a function without a decorator is tested without a server."""
    return sum(amounts)


@task(retries=2, retry_delay_seconds=[1, 10])
def read(count: int) -> list[float]:
    return [float(number) for number in range(count)]


@flow
def {function}(count: int = 3) -> float:
    """Say what it does.

    Args:
        count: how many amounts to read
    """
    result = total(read(count))
    get_run_logger().info("The total of %s amounts is %s", count, result)
    return result


if __name__ == "__main__":
    {function}()
'''

TEST = '''\
"""The plain functions of flows/{function}.py, and one real run."""

import pytest

from flows import {function}


def test_total() -> None:
    assert {function}.total([1, 2.5]) == 3.5


@pytest.mark.server
def test_flow(server: None) -> None:
    assert {function}.{function}(count=3) == 3
'''

DEPLOYMENT = """\
- name: {name}
  description: What this flow is for
  entrypoint: flows.{function}.{function}
  parameters:
    count: 3
  work_pool: {work_pool}
"""


def add(name: str, root: Path = ROOT) -> list[str]:
    """Write a flow, its test and its deployment, formatted as `make lint` wants them.

    Args:
        name: of the deployment; with _ for -, also of the flow, which is then used as the module's
        root: the project

    Returns:
        the files that were written

    Raises:
        OpsError: the name does not do, or something has it already; nothing was written then
    """
    function = name.replace("-", "_")
    taken = {*keyword.kwlist, *dir(builtins), *re.findall(r"\w+", FLOW)}
    fits = re.fullmatch("(?!test)[a-z][a-z0-9]*(-[a-z0-9]+)*", name) and len(name) <= 40
    hides = getattr(find_spec(function), "origin", None) if fits else None  # from a flow that is run by its path
    if not fits or hides or function in taken or yaml.safe_load(name) != name:  # YAML reads some words as true or null
        raise OpsError(
            f"{name!r} cannot be the name of a flow: it takes lowercase letters, digits and single dashes, at most 40,"
            " not test at its start, no word of Python, YAML or the file itself, and no name of an installed module;"
            " right is a name like my-flow: make flow NAME=my-flow"
        )
    flow, test = root / f"flows/{function}.py", root / f"tests/test_{function}.py"
    for file in (flow, test):
        if file.exists():
            raise OpsError(f"{file.relative_to(root)} exists: choose another name, or remove it first")
    file = root / "prefect.yaml"
    deployments = with_deployment(file.read_text("utf-8"), name, function)
    flow.write_text(FLOW.replace("{function}", function), "utf-8")
    test.write_text(TEST.replace("{function}", function), "utf-8")
    file.write_text(deployments, "utf-8")
    return [str(path.relative_to(root)) for path in (flow, test, file)]


def with_deployment(text: str, name: str, function: str) -> str:
    """Return prefect.yaml with one entry more. It is text that is added, so comments and anchors stay."""
    try:
        top = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise OpsError(f"prefect.yaml: {' '.join(str(error).split())}") from None
    keys = {key.value: value for key, value in top.value} if isinstance(top, yaml.MappingNode) else {}
    entries = keys.get("deployments")
    if not isinstance(entries, yaml.SequenceNode) or entries.flow_style or not entries.value:
        raise OpsError(f"prefect.yaml: `deployments:` holds no block list to add {name} to")
    if any(("name", name) == (key.value, value.value) for entry in entries.value for key, value in entry.value):
        raise OpsError(f"prefect.yaml: there is a deployment {name}: choose another name")

    lines = text.splitlines()
    end = entries.end_mark.line if entries.end_mark.column == 0 else len(lines)
    while not lines[end - 1].strip() or lines[end - 1].startswith("#"):  # what stands above the next key stays there
        end -= 1
    anchor = re.search(r"^ +work_pool: (&\w+)$", text, re.MULTILINE)
    work_pool = anchor[1].replace("&", "*") if anchor else '{ name: "' + PROJECT + '" }'
    entry = DEPLOYMENT.format(name=name, function=function, work_pool=work_pool)
    indent = " " * entries.start_mark.column
    added = [indent + line for line in entry.splitlines()]
    return "\n".join([*lines[:end], "", *added, *lines[end:], ""])
