"""The deployments of prefect.yaml fit their flows and work pools; in other files, what does not fit is found."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.actions import WorkPoolCreate

from ops import declared
from ops.declared import Declared
from ops.deployments import load
from ops.environments import ENVIRONMENTS
from ops.settings import PROJECT_TAG, OpsError, Settings
from ops.work_pools import with_defaults

POOL = WorkPoolCreate(
    name="main-pool",
    type="process",
    base_job_template={
        "job_configuration": {},
        "variables": {
            "type": "object",
            "properties": {
                "image": {"type": "string"},
                "memory": {"type": "integer"},
                "working_dir": {"type": "string"},
            },
        },
    },
)

# --- this repository ---------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_this_repository_declares_nothing_wrong(settings: Settings, environment: str) -> None:
    preview = "pr-12" if ENVIRONMENTS[environment].preview else None
    mine = Declared(settings.model_copy(update={"prefect_env": environment, "preview": preview}))
    mine.add_automations({})
    if mine.faults:
        pytest.fail("\n".join(mine.faults), pytrace=False)
    deployments = mine.objects["deployment"].values()
    assert deployments
    mark = f"{PROJECT_TAG}.pr-12" if preview else PROJECT_TAG  # alerts watch it
    assert all(mark in deployment["tags"] for deployment in deployments)
    active = [schedule for deployment in deployments for schedule in deployment["schedules"] if schedule["active"]]
    assert not active or ENVIRONMENTS[environment].schedules


def test_a_default_in_a_job_template_that_does_not_fit(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OpsError, match="unknown job variable memroy, did you mean memory"):
        with_defaults(POOL.base_job_template, memroy=512)
    much = with_defaults(POOL.base_job_template, memory="much")
    wrong = POOL.model_copy(update={"base_job_template": much})
    monkeypatch.setattr(declared, "work_pools", lambda _: [wrong])
    fault = "work pool main-pool: default of job variable memory: 'much' is not of type 'integer'"
    assert fault in Declared(settings).faults


# --- files with faults -------------------------------------------------------------------------------

FLOW = """
from prefect import flow

@flow
def sample(region: str = "eu", batch_size: int = 10):
    pass
"""

Fields = dict[str, Any]
Check = Callable[..., list[str]]


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fields:
    """A deployment without a fault, of a flow in a file of its own, `jobs/sample.py` from where the test runs."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "jobs" / "sample.py"
    file.parent.mkdir()
    file.write_text(FLOW, "utf-8")
    return {
        "name": "nightly",
        "entrypoint": f"{file}:sample",
        "parameters": {"region": "us"},
        "schedules": [{"slug": "night", "cron": "0 2 * * *", "timezone": "Europe/Oslo"}],
        "work_pool": {"name": "main-pool", "job_variables": {"memory": 512}},
    }


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Write a prefect.yaml with some entries and return the faults found in it."""

    def check(*entries: Fields, text: str = "", **top: Any) -> list[str]:
        file = tmp_path / "prefect.yaml"
        file.write_text(text or yaml.safe_dump({"pull": [], "deployments": list(entries), **top}), "utf-8")
        *_, faults = load(ENVIRONMENTS["prod"], [POOL], file)
        return faults

    return check


def test_the_sample_has_no_fault(check: Check, sample: Fields) -> None:
    assert check(sample, {**sample, "name": "other"}) == []


def test_a_key_without_a_value_is_not_given(check: Check, sample: Fields) -> None:
    empty = dict.fromkeys(["version", "tags", "schedules", "concurrency_limit", "enforce_parameter_schema", "build"])
    assert check(sample | empty | {"work_pool": sample["work_pool"] | {"work_queue_name": None}}) == []


def test_an_image_that_is_built_and_not_used(check: Check, sample: Fields) -> None:
    """Job variables of a deployment's own take the place of all that YAML's anchor had."""
    build = [{"build_docker_image": {"id": "image", "image_name": "sample", "tag": "1"}}]
    (line,) = check(sample, build=build)
    assert "in job_variables, set image to that of the step image" in line
    assert check(sample | {"pull": [{"git_clone": {"repository": "https://example.com"}}]}, build=build) == []
    pool = {"name": "main-pool", "job_variables": {"image": "{{ image.image }}"}}
    assert check(sample | {"work_pool": pool}, build=build) == []


FAULTS: list[tuple[str, Fields]] = [
    ("unknown key schedulez, did you mean schedules?", {"schedulez": []}),
    ("entrypoint: Field required", {"entrypoint": None}),
    ("entrypoint: String should match", {"entrypoint": "flows"}),  # it names no flow
    ("as entrypoint, write jobs.sample.sample", {"entrypoint": "./jobs/sample.py:sample"}),
    ("say where workers find the code with `pull:`", {"pull": None}),
    ("environment variable NO_SUCH_NAME is not set", {"version": "{{ $NO_SUCH_NAME }}"}),
    ("unknown parameter batchsize, did you mean batch_size?", {"parameters": {"batchsize": 5}}),
    ("parameter batch_size: 'many' is not of type 'integer'", {"parameters": {"batch_size": "many"}}),
    ("concurrency_limit", {"concurrency_limit": 0}),
    ("concurrency_limit", {"concurrency_limit": {"limit": 0}}),
    ('Invalid cron string: "61 * * * *"', {"schedules": [{"cron": "61 * * * *"}]}),
    ("cron has five fields", {"schedules": [{"cron": "0 0 2 * * *"}]}),
    ('Invalid timezone: "Mars/X"', {"schedules": [{"cron": "0 2 * * *", "timezone": "Mars/X"}]}),
    ("interval needs an anchor_date", {"schedules": [{"interval": 3600}]}),
    ("needs exactly one of cron, interval and rrule", {"schedules": [{"interval": 60, "cron": "0 2 * * *"}]}),
    ("needs exactly one of cron, interval and rrule", {"schedules": ["daily"]}),
    ("unknown key schedules.0.activ, did you mean active?", {"schedules": [{"cron": "0 2 * * *", "activ": True}]}),
    ("unknown key schedules.0.day_or", {"schedules": [{"rrule": "FREQ=DAILY", "day_or": False}]}),
    (
        "schedule slug twice is used twice",
        {"schedules": [{"slug": "twice", "cron": "0 2 * * *"}, {"slug": "twice", "cron": "0 3 * * *"}]},
    ),
    (
        "unknown parameter regio of schedule night, did you mean region?",
        {"schedules": [{"slug": "night", "cron": "0 2 * * *", "parameters": {"regio": "us"}}]},
    ),
    ("trigger 1: unknown key expects, did you mean expect?", {"triggers": [{"expects": ["order.arrived"]}]}),
    ("did you mean main-pool?", {"work_pool": {"name": "main-pol"}}),
    (
        "unknown key work_pool.job_variabels, did you mean job_variables?",
        {"work_pool": {"name": "main-pool", "job_variabels": {}}},
    ),
    (
        "{{ imge.image }} is no output of a step under build",
        {"work_pool": {"name": "main-pool", "job_variables": {"image": "{{ imge.image }}"}}},
    ),
    (
        "unknown job variable imag, did you mean image?",
        {"work_pool": {"name": "main-pool", "job_variables": {"imag": "x"}}},
    ),
    (
        "job variable memory: 'much' is not of type 'integer'",
        {"work_pool": {"name": "main-pool", "job_variables": {"memory": "much"}}},
    ),
]


@pytest.mark.parametrize(("fault", "change"), FAULTS, ids=[fault for fault, _ in FAULTS])
def test_a_fault_is_one_clear_line(check: Check, sample: Fields, fault: str, change: Fields) -> None:
    (line,) = check(sample | change, **{key: None for key in change if key == "pull"})
    assert line.startswith("deployment nightly: ")
    assert fault in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (FLOW.replace("sample(", "simple("), "sample"),
        ("import no_such_package\n" + FLOW, "no_such_package"),
        ("def sample(:\n", "SyntaxError"),
        ("def sample():\n    pass\n", "is not a flow"),
        (None, "sample.py"),
    ],
    ids=["no such flow", "import error", "syntax error", "not a flow", "no such file"],
)
def test_a_flow_that_cannot_be_imported(check: Check, sample: Fields, code: str | None, fault: str) -> None:
    file = Path(sample["entrypoint"].rpartition(":")[0])
    file.write_text(code, "utf-8") if code else file.unlink()
    (line,) = check(sample)
    assert line.startswith("deployment nightly: cannot import ")
    assert fault in line
    assert "\n" not in line


def test_one_name_twice(check: Check, sample: Fields) -> None:
    assert check(sample, sample) == ["deployment nightly: sample/nightly is declared twice"]


def test_an_entry_without_a_name_is_counted(check: Check, sample: Fields) -> None:
    assert check({**sample, "name": None})[0].startswith("deployment number 1: name: ")
    assert check({**sample, "name": ["nightly"]})[0].startswith("deployment ['nightly']: name: ")


def test_what_an_import_prints_is_no_part_of_a_plan(
    check: Check, sample: Fields, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(sample["entrypoint"].rpartition(":")[0]).write_text(f"{FLOW}\nprint('hello')\n", "utf-8")
    assert check(sample) == []
    assert capsys.readouterr() == ("", "hello\n")


def test_a_date_needs_no_quotes(check: Check, sample: Fields) -> None:
    assert check(sample | {"schedules": [{"interval": 3600, "anchor_date": date(2026, 1, 1)}]}) == []


UNREADABLE = ["deployments: [", "deployments: 5", "deployments: [x]", "deployment: []", "- a list"]
NO_JSON = ["deployments: [{parameters: {rate: .nan}}]", "deployments: [{parameters: {2026-01-01: 1}}]"]


@pytest.mark.parametrize("text", [*UNREADABLE, *NO_JSON])
def test_a_file_that_cannot_be_read(check: Check, text: str) -> None:
    (line,) = check(text=text)
    assert line.startswith("prefect.yaml: ")
    assert "\n" not in line


def test_all_faults_are_found_at_once(check: Check, sample: Fields) -> None:
    faults = check(
        sample | {"name": "a", "schedulez": []},
        sample | {"name": "b", "parameters": {"batch_size": "many"}, "work_pool": {"name": "main-pol"}},
        sample | {"name": "c", "entrypoint": "flows.no_such_module.sample"},
        sample,
    )
    assert [fault.partition(":")[0] for fault in faults] == [
        "deployment a",
        "deployment b",
        "deployment b",
        "deployment c",
    ]
