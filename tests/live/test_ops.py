"""What `python -m ops` does to a real server: all that is declared, once, and nothing to anything else."""

import json
import random
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ops_server import AUTH, SECRET, SETTINGS, Answer, Forks, Project, Server

pytestmark = pytest.mark.live

SAMPLE_FLOW = """\
from prefect import flow


@flow
def sample(region: str = "eu", batch_size: int = 10, tables: list[str] | None = None) -> None:
    pass
"""
LIMITS = 'GLOBAL_CONCURRENCY_LIMITS = GLOBAL_CONCURRENCY_LIMITS[:1]\nTAG_LIMITS = {"warehouse": 3}'
VARIABLES = 'VARIABLES = [VariableCreate(name="threshold", value={"eu": 5})]'
QUEUES = 'WORK_QUEUES = {PROJECT: [WorkQueueCreate(name="urgent", concurrency_limit=2)]}'
NIGHTLY = {
    "name": "nightly",
    "entrypoint": "flows.sample.sample",
    "description": "Every night",
    "parameters": {"region": "eu", "tables": ["z", "a"]},
    "schedules": [
        {"slug": "night", "cron": "0 2 * * *"},
        {"slug": "noon", "cron": "0 12 * * *", "parameters": {"batch_size": 5}},
        {"slug": "often", "interval": 900, "anchor_date": "2026-01-01"},
        {"slug": "weekdays", "rrule": "FREQ=WEEKLY;BYDAY=MO,TU", "timezone": "Europe/Oslo"},
    ],
    "concurrency_limit": 2,
    "work_pool": {"name": "my-flows"},
}
ORDERS = {
    "name": "orders",
    "entrypoint": "flows.sample.sample",
    "work_pool": {"name": "my-flows", "job_variables": {"env": {"T": "{{ prefect.blocks.secret.etl-source-token }}"}}},
    "triggers": [
        {
            "match": {"prefect.resource.id": "shop.*"},
            "expect": ["order.arrived"],
            "parameters": {"tables": ["z", "a", "{{ event.resource.id }}"]},
        }
    ],
}
EVERY_KIND = {
    "work pool",
    "work queue",
    "global concurrency limit",
    "tag limit",
    "variable",
    "block",
    "deployment",
    "automation",
}
DECLARED = 16  # objects of the fixture `ops`, of which 5 are blocks
MANY = [
    {**NIGHTLY, "name": f"nightly-{number:02}", "schedules": [{"slug": "night", "cron": f"{number} 2 * * *"}]}
    for number in range(60)
]


@pytest.fixture(scope="module")
def forks(project: Path, env: dict[str, str], server: Server) -> Iterator[Forks]:
    forks = Forks(project / ".venv/bin/python", env | {"PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": AUTH})
    yield forks
    forks.stop()


@pytest.fixture
def ops(project: Path, env: dict[str, str], server: Server, forks: Forks, tmp_path: Path) -> Iterator[Project]:
    """A project that declares at least one object of each kind; afterwards, the server has none of it."""
    here = env | {"PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": AUTH}
    ops = Project(project, forks, here).copy(tmp_path / "my-flows", "my-flows")
    (ops.folder / "flows/sample.py").write_text(SAMPLE_FLOW)
    declare_each_kind(ops)
    yield ops
    declare_each_kind(ops)
    succeeds(ops("destroy", "--yes"))


def declare_each_kind(ops: Project) -> None:
    ops.declare("limits", LIMITS)
    ops.declare("variables", VARIABLES)
    ops.declare("work_pools", QUEUES)
    ops.declare("blocks", "")
    ops.deploy(NIGHTLY, ORDERS)


@pytest.fixture
def other(ops: Project, tmp_path: Path) -> Iterator[Project]:
    """A second project on the same server, whose name begins with that of the first."""
    other = ops.copy(tmp_path / "my-flows-2", "my-flows-2")
    other.declare("limits", 'GLOBAL_CONCURRENCY_LIMITS = []\nTAG_LIMITS = {"warehouse-2": 3}')
    other.declare("variables", 'VARIABLES = [VariableCreate(name="threshold_2", value=5)]')
    other.declare("blocks", 'BLOCKS["their-token"] = BLOCKS.pop("etl-source-token")')
    other.deploy({**NIGHTLY, "name": "nightly-2", "work_pool": {"name": "my-flows-2"}})
    yield other
    other("destroy", "--yes")


@pytest.fixture
def applied(ops: Project) -> Project:
    succeeds(ops("apply", "--yes"))
    return ops


def succeeds(answer: Answer) -> Answer:
    assert answer.code == 0, answer.out + answer.err
    return answer


def is_clear(answer: Answer, code: int) -> list[str]:
    """Return the lines of an error, which is told without a traceback."""
    assert answer.code == code, answer.out + answer.err
    assert "Traceback" not in answer.err
    return answer.err.splitlines()


def tells(answer: Answer, *lines: str) -> None:
    missing = [line for line in lines if line not in answer.lines]
    assert not missing, f"{missing} not in\n{answer.out}{answer.err}"


def plan_is_empty(ops: Project, **env: str) -> bool:
    plan = ops("plan", **env)
    assert plan.code == 0, plan.out + plan.err
    assert not plan.writes
    return "0 to create, 0 to update" in plan.out and "0 not declared any more" in plan.out


def find(server: Server, path: str, **fields: Any) -> dict[str, Any]:
    """Return the one object of a collection that has `fields`."""
    (found,) = [one for one in server("POST", f"{path}/filter", {}) if fields.items() <= one.items()]
    return found


def everything(server: Server) -> dict[str, list[str]]:
    """Return the names of all that the server holds."""
    paths = ("work_pools", "v2/concurrency_limits", "concurrency_limits", "variables", "block_documents", "deployments")
    return {
        path: sorted(
            one.get("tag") or "/".join(filter(None, [one.get("work_pool_name"), one["name"]]))
            for one in server("POST", f"/{path}/filter", {})
        )
        for path in (*paths, "automations", "work_queues")
    }


# --- apply, twice ------------------------------------------------------------------------------------


def test_the_second_apply_writes_nothing_and_asks_little(ops: Project) -> None:
    ops.deploy(*MANY, ORDERS)
    planned = ops("plan")
    assert planned.code == 2
    assert not planned.writes
    first = succeeds(ops("apply", "--yes"))
    created = [re.match(r"\+ (.*)", line) for line in first.lines]
    assert {kind for kind in EVERY_KIND if any(line and line[1].startswith(kind) for line in created)} == EVERY_KIND
    assert plan_is_empty(ops)
    second = succeeds(ops("apply", "--yes"))
    assert second.writes == []
    assert re.search(r"^0 written, \d\d unchanged$", second.out, re.M)
    assert len(second.requests) <= 15, second.requests


def test_what_is_changed_by_hand_is_shown_and_taken_back(applied: Project, server: Server) -> None:
    webhook = find(server, "/block_documents", name="my-flows-webhook")
    deployment = server("GET", "/deployments/name/sample/nightly")
    night = next(schedule for schedule in deployment["schedules"] if schedule["slug"] == "night")
    sla = find(server, "/automations", name="my-flows: sla")
    trigger = sla["trigger"] | {"within": 77}
    kept = ("name", "enabled", "actions", "actions_on_trigger", "actions_on_resolve", "tags")
    server("PATCH", "/work_pools/my-flows", {"concurrency_limit": 99})
    server("PATCH", "/work_pools/my-flows/queues/urgent", {"concurrency_limit": 9})
    server(
        "PATCH",
        f"/v2/concurrency_limits/{find(server, '/v2/concurrency_limits', name='etl-load')['id']}",
        {"limit": 50},
    )
    server("POST", "/concurrency_limits/", {"tag": "warehouse", "concurrency_limit": 30})
    server("PATCH", f"/variables/{find(server, '/variables', name='threshold')['id']}", {"value": {"eu": 6}})
    server("PATCH", f"/block_documents/{webhook['id']}", {"data": {"url": "http://127.0.0.1:9/by-hand"}})
    server(
        "PATCH",
        f"/deployments/{deployment['id']}",
        {"description": "by hand", "parameters": {"region": "us", "tables": ["a", "z"]}, "concurrency_limit": 5},
    )
    server(
        "PATCH",
        f"/deployments/{deployment['id']}/schedules/{night['id']}",
        {"schedule": {"cron": "5 5 * * *", "timezone": "UTC"}},
    )
    body = {name: sla[name] for name in kept} | {"trigger": trigger, "description": "by hand"}
    server("PUT", f"/automations/{sla['id']}", body)

    check = applied("check")
    assert check.code == 2
    assert not check.writes
    tells(
        check,
        "~ work pool my-flows",
        "concurrency_limit: 99 -> 10",
        "~ work queue my-flows/urgent",
        "concurrency_limit: 9 -> 2",
        "~ global concurrency limit etl-load",
        "limit: 50 -> 2",
        "~ tag limit warehouse",
        "concurrency_limit: 30 -> 3",
        "~ variable threshold",
        "value.eu: 6 -> 5",
        "~ block webhook/my-flows-webhook",
        "data.url changes",
        "~ deployment sample/nightly",
        "description: by hand -> Every night",
        "parameters.region: us -> eu",
        "parameters.tables: ['a', 'z'] -> ['z', 'a']",
        "concurrency_limit: 5 -> 2",
        "schedules.night.schedule.cron: 5 5 * * * -> 0 2 * * *",
        "~ automation my-flows: sla",
        "trigger.within: 77.0 -> 12.0",
        f"0 to create, 8 to update, {DECLARED - 8} unchanged, 0 not declared any more",
    )
    writes = succeeds(applied("apply", "--yes")).writes
    assert len(set(writes)) == 10, writes  # one each, a second for the block, one for the schedule
    assert plan_is_empty(applied)
    assert server("GET", "/deployments/name/sample/nightly")["parameters"] == NIGHTLY["parameters"]


# --- whose it is -------------------------------------------------------------------------------------


def test_only_what_this_project_no_longer_declares_is_pruned(
    applied: Project, other: Project, server: Server, request: pytest.FixtureRequest
) -> None:
    succeeds(other("apply", "--yes"))
    theirs = {"tags": ["project:another"]}
    server("POST", "/variables/", {"name": "threshold_3", "value": 1, **theirs})
    request.addfinalizer(lambda: server("DELETE", "/variables/name/threshold_3"))
    both = everything(server)

    applied.declare("limits", "GLOBAL_CONCURRENCY_LIMITS, TAG_LIMITS = [], {}")
    applied.declare("variables", "")
    applied.declare("work_pools", "")
    applied.declare("blocks", 'del BLOCKS["etl-source-token"]')
    applied.deploy(NIGHTLY)
    gone = (
        "- work queue my-flows/urgent",
        "- global concurrency limit etl-load",
        "- tag limit warehouse",
        "- variable threshold",
        "- block secret/etl-source-token",
        "- deployment sample/orders",
        "- automation sample/orders__automation_1",
    )
    plan = applied("plan")
    assert plan.code == 2
    tells(plan, *gone, f"0 to create, 0 to update, {DECLARED - len(gone)} unchanged, {len(gone)} not declared any more")
    assert not applied("apply", "--yes").writes
    asked = applied("prune")
    tells(asked, *gone)
    assert asked.code == 2
    assert not asked.writes
    succeeds(applied("prune", "--yes"))
    assert plan_is_empty(applied)
    assert plan_is_empty(other)
    after = everything(server)
    lost = {path: sorted(set(names) - set(after[path])) for path, names in both.items()}
    assert {path: names for path, names in lost.items() if names} == {
        "v2/concurrency_limits": ["etl-load", "tag:warehouse"],
        "concurrency_limits": ["warehouse"],
        "variables": ["threshold"],
        "block_documents": ["etl-source-token"],
        "deployments": ["my-flows/orders"],
        "automations": ["sample/orders__automation_1"],
        "work_queues": ["my-flows/urgent"],
    }

    succeeds(applied("destroy", "--yes"))
    left = everything(server)
    assert not [name for names in left.values() for name in names if name.endswith(("my-flows", "nightly"))]
    assert "ops-registry-my-flows-2" in left["variables"]
    assert "threshold_3" in left["variables"]
    assert plan_is_empty(other)
    succeeds(other("destroy", "--yes"))
    assert everything(server)["variables"] == ["threshold_3"]


def test_what_belongs_to_another_project_is_a_fault(applied: Project, other: Project) -> None:
    declare_each_kind(other)
    other.deploy({**NIGHTLY, "work_pool": {"name": "my-flows-2"}})
    refused = other("apply", "--yes")
    faults = is_clear(refused, 1)
    assert len(faults) == 5
    for name in (
        "global concurrency limit etl-load",
        "tag limit warehouse",
        "variable threshold",
        "block secret/etl-source-token",
        "deployment sample/nightly",
    ):
        assert f"{name} belongs to the project my-flows on this server: choose another name" in faults
    assert not refused.writes
    assert plan_is_empty(applied)


def test_a_queue_or_an_automation_of_somebody_else_is_not_touched(applied: Project, server: Server) -> None:
    """Names of automations are not unique, and everybody may add queues to a pool."""
    mine = find(server, "/automations", name="my-flows: sla")
    core = {name: mine[name] for name in ("name", "trigger", "actions")}
    theirs = server("POST", "/automations/", core | {"description": "theirs"})
    server("POST", "/work_pools/my-flows/queues", {"name": "by-hand"})
    assert plan_is_empty(applied)
    succeeds(applied("destroy", "--yes"))
    assert [one["id"] for one in server("POST", "/automations/filter", {})] == [theirs["id"]]
    server("DELETE", f"/automations/{theirs['id']}")


# --- what operators do by hand -----------------------------------------------------------------------


def test_a_limit_that_deployments_share_is_not_theirs(applied: Project, server: Server) -> None:
    def give_shared() -> None:
        for name in ("nightly", "orders"):
            url = f"/deployments/{find(server, '/deployments', name=name)['id']}"
            server("PATCH", url, {"concurrency_limit": None})
            server("PATCH", url, {"global_concurrency_limit_id": shared["id"]})

    shared = server("POST", "/v2/concurrency_limits/", {"name": "heavy", "limit": 7})
    give_shared()
    tells(
        applied("plan"),
        "concurrency_limit: nothing -> 2",
        "0 to create, 1 to update, 15 unchanged, 0 not declared any more",
    )
    succeeds(applied("apply", "--yes"))
    assert plan_is_empty(applied)
    assert find(server, "/v2/concurrency_limits", name="heavy")["limit"] == 7
    assert find(server, "/deployments", name="nightly")["global_concurrency_limit"]["limit"] == 2
    assert find(server, "/deployments", name="orders")["global_concurrency_limit"]["name"] == "heavy"
    applied.deploy()
    succeeds(applied("prune", "--yes"))
    assert find(server, "/v2/concurrency_limits", name="heavy")["limit"] == 7
    server("DELETE", f"/v2/concurrency_limits/{shared['id']}")


def test_what_was_paused_by_hand_stays_paused(applied: Project, server: Server) -> None:
    before = server("GET", "/deployments/name/sample/nightly")
    ids = {schedule["slug"]: schedule["id"] for schedule in before["schedules"]}
    server("PATCH", f"/deployments/{before['id']}/schedules/{ids['night']}", {"active": False})
    sla = find(server, "/automations", name="my-flows: sla")
    server("PATCH", f"/automations/{sla['id']}", {"enabled": False})
    changed = [{"slug": "night", "cron": "30 2 * * *"}, {"slug": "new", "cron": "0 5 * * *"}]
    applied.deploy({**NIGHTLY, "description": "Changed", "schedules": [*changed, *NIGHTLY["schedules"][2:]]}, ORDERS)
    longer = {"SLA_MINUTES": "9"}

    plan = applied("plan", **longer)
    tells(
        plan,
        "! deployment sample/nightly: schedule night is paused on the server and stays so, until resumed",
        "! automation my-flows: sla is paused on the server and stays so, until resumed",
        "schedules.night.schedule.cron: 0 2 * * * -> 30 2 * * *",
        "description: Every night -> Changed",
        "trigger.within: 12.0 -> 540.0",
    )
    assert not [line for line in plan.lines if "often" in line or "weekdays" in line]
    succeeds(applied("apply", "--yes", **longer))
    after = server("GET", "/deployments/name/sample/nightly")
    schedules = {schedule["slug"]: schedule for schedule in after["schedules"]}
    assert set(schedules) == {"night", "new", "often", "weekdays"}
    assert not schedules["night"]["active"]
    assert schedules["night"]["id"] == ids["night"]
    assert schedules["night"]["schedule"]["cron"] == "30 2 * * *"
    assert schedules["new"]["active"]
    assert schedules["often"]["updated"] == next(
        schedule["updated"] for schedule in before["schedules"] if schedule["slug"] == "often"
    )
    again = server("GET", f"/automations/{sla['id']}")
    assert not again["enabled"]
    assert again["trigger"]["within"] == 540
    assert plan_is_empty(applied, **longer)

    applied.deploy({**NIGHTLY, "schedules": []}, ORDERS)
    succeeds(applied("apply", "--yes", **longer))
    assert server("GET", "/deployments/name/sample/nightly")["schedules"] == []


BUSY = """
import httpx
from ops import kinds

send, busy = kinds.send, [httpx.Response(503)]

async def busy_once(client, method, path, body=None):
    if method == "POST" and path.endswith("/schedules") and busy:
        raise httpx.HTTPStatusError("busy", request=httpx.Request(method, path), response=busy.pop())
    return await send(client, method, path, body)

kinds.send = busy_once
"""


def test_a_change_of_schedules_in_the_middle_of_which_the_server_is_busy(applied: Project, server: Server) -> None:
    """One is gone then, and the update is tried once more."""
    applied.declare("limits", LIMITS + BUSY)
    applied.deploy({**NIGHTLY, "schedules": [{"slug": "new", "cron": "0 5 * * *"}]}, ORDERS)
    succeeds(applied("apply", "--yes"))
    (schedule,) = server("GET", "/deployments/name/sample/nightly")["schedules"]
    assert schedule["slug"] == "new"


def test_tag_limits_behind_many_others(applied: Project, server: Server, request: pytest.FixtureRequest) -> None:
    """As many limits as a page has, of deployments for one: their own filter no longer finds those of tags."""
    for number in range(200):
        name = f"another-{number:03}"
        server("POST", "/v2/concurrency_limits/", {"name": name, "limit": 1})
        request.addfinalizer(lambda name=name: server("DELETE", f"/v2/concurrency_limits/{name}"))
    assert server("POST", "/concurrency_limits/filter", {}) == []
    assert plan_is_empty(applied)
    succeeds(applied("destroy", "--yes"))
    names = [one["name"] for one in server("POST", "/v2/concurrency_limits/filter", {"limit": 200, "offset": 199})]
    assert not [name for name in names if name.startswith("tag:")]


def test_more_marks_than_a_variable_holds(ops: Project, server: Server) -> None:
    names = [f"a-tag-with-a-rather-long-name-{number:03}" for number in range(140)]
    ops.declare("limits", f"TAG_LIMITS = dict.fromkeys({names}, 1)")
    succeeds(ops("apply", "--yes"))
    assert plan_is_empty(ops)
    registry = {"ops-registry-my-flows", "ops-registry-my-flows__1"}
    assert registry < {*everything(server)["variables"]}
    ops.declare("limits", f"TAG_LIMITS = dict.fromkeys({names[100:]}, 1)")
    assert "100 deleted" in succeeds(ops("prune", "--yes")).out
    assert plan_is_empty(ops)
    succeeds(ops("destroy", "--yes"))
    assert not registry & {*everything(server)["variables"]}


@pytest.mark.parametrize(
    "rubbish", ["by hand", None, ["block"], {"work pool": 5, "block": {"a": 1}, "tag limit": [{}]}]
)
def test_marks_that_somebody_has_edited(
    rubbish: Any, applied: Project, server: Server, request: pytest.FixtureRequest
) -> None:
    """Another project's must not stop this one; its own are written anew with what is created next."""
    theirs = server("POST", "/variables/", {"name": "ops-registry-theirs", "value": rubbish})
    request.addfinalizer(lambda: server("DELETE", f"/variables/{theirs['id']}"))
    assert plan_is_empty(applied)
    ours = "/variables/name/ops-registry-my-flows"
    marks = server("GET", ours)["value"]
    server("PATCH", ours, {"value": rubbish})
    assert plan_is_empty(applied)
    tells(applied("plan"), "! variable ops-registry-my-flows was changed by hand: prune does not know what it listed")
    applied.declare("limits", f'{LIMITS}\nTAG_LIMITS["another"] = 1')
    succeeds(applied("apply", "--yes"))
    assert server("GET", ours)["value"] == {"tag limit": ["another"]}
    server("PATCH", ours, {"value": marks | {"tag limit": ["another", "warehouse"]}})  # so that all of it can go


def test_queues_get_the_priorities_that_are_declared(ops: Project, server: Server) -> None:
    """The server moves those behind a queue that is written, so they are written in that order."""
    queues = [f'WorkQueueCreate(name="{name}", priority={priority})' for name, priority in (("low", 2), ("high", 1))]
    ops.declare("work_pools", f"WORK_QUEUES = {{PROJECT: [{', '.join(queues)}]}}")
    succeeds(ops("apply", "--yes"))
    assert plan_is_empty(ops)
    assert find(server, "/work_pools/my-flows/queues", name="high")["priority"] == 1
    ops.declare("work_pools", f"WORK_QUEUES = {{PROJECT: [{', '.join(queues).replace('2', '1')}]}}")
    assert is_clear(ops("plan"), 1) == ["work queues of my-flows: two have the priority 1"]


def test_a_value_that_an_older_type_of_block_had_is_no_difference(applied: Project, server: Server) -> None:
    block = find(server, "/block_documents", name="etl-source-token")
    server("PATCH", f"/block_documents/{block['id']}", {"data": {"left": "over"}})
    assert plan_is_empty(applied)


def test_an_empty_parameter_of_a_schedule_is_one(applied: Project) -> None:
    night, noon, *others = NIGHTLY["schedules"]
    applied.deploy(
        {**NIGHTLY, "schedules": [night, {**noon, "parameters": {"batch_size": 5, "tables": []}}, *others]}, ORDERS
    )
    assert "1 to update" in applied("plan").out


@pytest.mark.parametrize("name", ["nightly", "orders"])  # with schedules of its own, and without
def test_each_schedule_that_somebody_added_shows(name: str, applied: Project, server: Server) -> None:
    crons = ("5 5 * * *", "6 6 * * *")  # without a slug, as the UI makes them
    deployment = find(server, "/deployments", name=name)["id"]
    server("POST", f"/deployments/{deployment}/schedules", [{"schedule": {"cron": cron}} for cron in crons])
    plan = applied("plan")
    assert all(f"'cron': '{cron}'" in plan.out for cron in crons), plan.out


# --- faults ------------------------------------------------------------------------------------------


def test_all_faults_are_told_and_nothing_is_written(ops: Project) -> None:
    ten = [{**NIGHTLY, "name": f"nightly-{number}"} for number in range(10)]
    ten[7] |= {"parameters": {"regio": "eu"}}
    ops.deploy(*ten)
    ops.declare("limits", "GLOBAL_CONCURRENCY_LIMITS = GLOBAL_CONCURRENCY_LIMITS[:1] * 2")
    refused = ops("apply", "--yes", SLACK_WEBHOOK_URL="", ALERT_WEBHOOK_URL="")
    assert is_clear(refused, 1) == [
        "global concurrency limit etl-load is declared twice",
        "deployment nightly-7: unknown parameter regio, did you mean region?",
        "automations need block my-flows-slack-failure: SLACK_WEBHOOK_URL is not set: Slack > your app > Incoming Webhooks >"
        " Add New Webhook. Set it in .env or in the environment",
        "automations need block my-flows-webhook: ALERT_WEBHOOK_URL is not set: HTTP endpoint that receives each alert as JSON."
        " Set it in .env or in the environment",
    ]
    assert not refused.writes


@pytest.mark.parametrize(
    ("module", "text", "told"),
    [
        ("blocks", 'BLOCKS["Bad_Name"] = BLOCKS.pop("etl-source-token")', "block Bad_Name: "),
        (
            "work_pools",
            'WORK_QUEUES = {"no-such-pool": [WorkQueueCreate(name="urgent")]}',
            "work queues of no-such-pool: that work pool is not declared",
        ),
        (
            "work_pools",
            "of = work_pools\nwork_pools = lambda settings: [of(settings)[0].model_copy(update={'type': 'proces'})]",
            "work pool my-flows: unknown type proces, did you mean process?",
        ),
        (
            "work_pools",
            "of = work_pools\nwork_pools = lambda settings: [*of(settings), of(settings)[0].model_copy(update={'name': 'Prefect-2'})]",
            "work pool Prefect-2: Prefect keeps names that begin with prefect for itself",
        ),
        (
            "limits",
            "GlobalConcurrencyLimitCreate(name='x', limit=-1)",
            "GlobalConcurrencyLimitCreate: limit: Input should be greater than or equal to 0",
        ),
        (
            "environments",
            "ENVIRONMENTS['prod'].parameters['nightli'] = {'region': 'us'}",
            "ops/environments.py: there is no deployment nightli, did you mean nightly?",
        ),
    ],
    ids=[
        "a name that is refused",
        "a queue of a pool that is not declared",
        "a type that is misspelt",
        "a pool with a name that Prefect keeps for itself",
        "a limit below nothing",
        "parameters of no deployment",
    ],
)
def test_a_declaration_that_the_server_would_refuse(ops: Project, module: str, text: str, told: str) -> None:
    ops.deploy(NIGHTLY)
    ops.declare(module, text)
    refused = ops("apply", "--yes")
    (line,) = is_clear(refused, 1)
    assert told in line
    assert not refused.writes


def test_an_address_that_nothing_can_be_sent_to(ops: Project) -> None:
    wrong = dict.fromkeys(("ALERT_WEBHOOK_URL", "SLACK_WEBHOOK_URL"), f"hooks.example.com/{SECRET}")
    told = is_clear(ops("plan", **wrong), 1)
    for name in ("webhook", "slack-failure"):
        assert f"block my-flows-{name}: nothing can be sent to that address. Correct its settings in .env" in told
    assert SECRET not in str(told)
    for nowhere in ("https://", f"https://exa mple.com/{SECRET}", "https://example.com:99999/x"):
        told = is_clear(ops("plan", **wrong | {"ALERT_WEBHOOK_URL": nowhere}), 1)
        assert "block my-flows-webhook: nothing can be sent to that address. Correct its settings in .env" in told


def test_what_has_become_wrong_can_be_destroyed(applied: Project, server: Server) -> None:
    """Such as a preview of a change that no longer imports, by somebody who has none of its secrets."""
    (applied.folder / "flows/sample.py").write_text("import no_such_package")
    assert any("cannot import flows.sample.sample" in line for line in is_clear(applied("plan"), 1))
    succeeds(applied("destroy", "--yes", SLACK_WEBHOOK_URL="", ALERT_WEBHOOK_URL="", ETL_SOURCE_TOKEN=""))
    assert not any(name.startswith("sample/") for name in everything(server)["deployments"])
    assert everything(server)["automations"] == everything(server)["variables"] == []
    (applied.folder / "flows/sample.py").write_text(SAMPLE_FLOW)


def test_what_another_project_has_marked_is_not_taken(ops: Project, other: Project, server: Server) -> None:
    """Also when it is not there, for that project will create it again, or prune it."""
    other.declare("limits", 'TAG_LIMITS = {"shared": 3}')
    succeeds(other("apply", "--yes"))
    server("DELETE", "/concurrency_limits/tag/shared")
    ops.declare("limits", 'TAG_LIMITS = {"shared": 4}')
    told = is_clear(ops("apply", "--yes"), 1)
    assert "tag limit shared belongs to the project my-flows-2 on this server: choose another name" in told


def test_a_preview_is_not_the_project_of_a_like_name(ops: Project, other: Project) -> None:
    succeeds(other("apply", "--yes"))
    assert "Nothing to delete" in succeeds(ops("destroy", "--yes", PREFECT_ENV="preview", PREVIEW="2")).out
    assert plan_is_empty(other)


REFERRED = {
    **NIGHTLY,
    "work_pool": {
        "name": "my-flows",
        "job_variables": {
            "env": {"A": "{{ prefect.blocks.secret.etl-sorce-token }}", "B": "{{ prefect.variables.treshold }}"}
        },
    },
    "pull": [{"prefect.deployments.steps.git_clone": {"access_token": "{{ prefect.blocks.secret.git.value }}"}}],
}
PREVIEW = {"PREFECT_ENV": "preview", "PREVIEW": "pr-12"}


def test_a_preview_is_a_guest(ops: Project) -> None:
    ops.deploy(NIGHTLY)
    refused = ops("apply", "--yes", **PREVIEW)
    (line,) = is_clear(refused, 1)
    assert line.startswith("work pool my-flows is not on this server: a preview is a guest")
    assert not refused.writes
    succeeds(ops("apply", "--yes"))
    (line,) = is_clear(ops("worker", **PREVIEW), 1)
    assert line == "The environment preview has no work pool of its own, so it needs no worker"
    (line,) = is_clear(ops("alerts", "test", **PREVIEW), 1)
    assert line == "The environment preview declares no automation that sends something"


def test_references_that_no_worker_could_resolve(ops: Project) -> None:
    """What a worker looks up is in the repository, or the command that would deploy it says that it is nowhere."""
    ops.deploy(REFERRED, ORDERS)
    refused = ops("apply", "--yes")
    assert is_clear(refused, 1) == [
        f"deployment sample/nightly refers to the {missing}, which is neither declared nor on the server"
        for missing in ("block secret/etl-sorce-token", "block secret/git", "variable treshold")
    ]
    assert not refused.writes


def test_references_to_what_the_server_alone_has(ops: Project) -> None:
    """Also a preview's, which declares neither blocks nor variables."""
    ops.deploy(REFERRED, ORDERS)
    ops.declare("variables", VARIABLES.replace("threshold", "treshold"))
    ops.declare("blocks", 'BLOCKS["git"] = BLOCKS["etl-sorce-token"] = BLOCKS["etl-source-token"]')
    succeeds(ops("apply", "--yes"))
    declare_each_kind(ops)
    ops.deploy(REFERRED, ORDERS)
    assert "3 not declared any more" in succeeds(ops("apply", "--yes")).out
    assert "2 written" in succeeds(ops("apply", "--yes", **PREVIEW)).out
    succeeds(ops("destroy", "--yes", **PREVIEW))


def test_references_to_a_block_whose_setting_is_missing(ops: Project) -> None:
    """That it is left out is told, and stops nothing; a variable that is called like it is another thing."""
    ops.deploy(ORDERS)
    assert "block etl-source-token is left out" in succeeds(ops("apply", "--yes", ETL_SOURCE_TOKEN="")).out
    ops.deploy({**NIGHTLY, "pull": [{"git_clone": {"branch": "{{ prefect.variables.etl-source-token }}"}}]})
    (line,) = is_clear(ops("plan", ETL_SOURCE_TOKEN=""), 1)
    assert "refers to the variable etl-source-token, which is neither" in line


def test_a_plan_needs_no_secret_of_the_alerts_that_are_there(applied: Project) -> None:
    """The blocks that have them are on the server: whoever only looks, as a job of CI does, need not have them."""
    plan = succeeds(applied("plan", SLACK_WEBHOOK_URL="", ALERT_WEBHOOK_URL=""))
    assert sum("is left out" in line for line in plan.lines) == 4
    assert "0 to create, 0 to update" in plan.out


def test_what_prefect_yaml_says_of_triggers_and_of_the_environment(ops: Project, server: Server) -> None:
    filled = {**NIGHTLY, "version": "{{ $BUILD }}", "tags": ["{{ HOME }}"], "schedules": []}
    ops.deploy(filled, ORDERS)
    assert is_clear(ops("apply", "--yes"), 1) == ["deployment nightly: environment variable BUILD is not set"]
    succeeds(ops("apply", "--yes", BUILD="b17"))
    deployment = server("GET", "/deployments/name/sample/nightly")
    assert deployment["version"] == "b17"
    assert set(deployment["tags"]) == {
        "project:my-flows",
        "sla:default",
        "{{ HOME }}",
    }  # not a variable of the environment

    before = find(server, "/automations", name="sample/orders__automation_1")
    assert before["actions"][0]["parameters"] == ORDERS["triggers"][0]["parameters"]
    (trigger,) = ORDERS["triggers"]
    ops.deploy(filled, {**ORDERS, "triggers": [trigger | {"expect": ["order.paid"]}]})
    succeeds(ops("apply", "--yes", BUILD="b17"))
    after = find(server, "/automations", name="sample/orders__automation_1")
    assert after["id"] == before["id"]
    assert after["trigger"]["expect"] == ["order.paid"]
    assert plan_is_empty(ops, BUILD="b17")

    inner = {"match": trigger["match"], "expect": ["a"], "mach": {"a": "b"}}
    nested = {"type": "compound", "require": "all", "triggers": [inner]}
    for wrong, told in ((trigger | {"expects": ["x"]}, "expects"), (nested, "mach")):
        ops.deploy(filled, {**ORDERS, "triggers": [wrong]})
        (line,) = is_clear(ops("plan", BUILD="b17"), 1)
        assert line.startswith(f"deployment orders: trigger 1: unknown key {told}, did you mean ")


# --- a server that dies, stops, or is in use -----------------------------------------------------------


def begin(ops: Project, deployments: int) -> subprocess.Popen[str]:
    """Start an apply of many deployments and return it when so many are written."""
    process = ops.start("apply", "--yes")
    assert process.stdout
    while deployments:
        line = process.stdout.readline()
        assert line, process.communicate()
        deployments -= line.startswith("+ deployment")
    return process


def test_a_server_killed_in_the_middle(ops: Project, server: Server) -> None:
    ops.deploy(*MANY)
    declared = len(MANY) + DECLARED - 3  # without two deployments and an automation
    process = begin(ops, 10)
    server.kill()
    out, err = process.communicate(timeout=60)
    server.start()
    lines = is_clear(Answer(process.returncode, out, err), 1)
    assert len(lines) <= 17
    assert all(line.startswith("deployment sample/nightly-") and "does not answer" in line for line in lines[:-1])
    assert re.fullmatch(
        rf"\d+ of {declared} objects are done, the rest is not: run the command again to finish", lines[-1]
    )
    written = int(lines[-1].split()[0])
    second = succeeds(ops("apply", "--yes"))
    counts = re.search(r"^(\d+) written, (\d+) unchanged$", second.out, re.M)
    assert counts
    assert written <= int(counts[2]) + 1
    assert int(counts[1]) + int(counts[2]) == declared
    assert plan_is_empty(ops)


def test_ctrl_c_in_the_middle(ops: Project) -> None:
    ops.deploy(*MANY)
    process = begin(ops, 5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    (line,) = is_clear(Answer(process.returncode, out, err), 130)
    assert line == "Stopped. What was done stays: run the command again to finish"
    plan = ops("plan")
    assert plan.code == 2
    assert 0 < plan.out.count("+ deployment") < 60
    succeeds(ops("apply", "--yes"))
    assert plan_is_empty(ops)


@pytest.mark.parametrize("seed", range(2))
def test_a_kill_in_the_middle(seed: int, ops: Project) -> None:
    ops.deploy(*MANY)
    process = begin(ops, random.Random(seed).randrange(len(MANY)))
    process.kill()
    process.communicate()
    plan = ops("plan")
    assert plan.code == 2  # what is half done does not pass for whole
    assert "+ deployment" in plan.out
    succeeds(ops("apply", "--yes"))
    assert plan_is_empty(ops)


def test_two_applies_at_once(ops: Project, server: Server) -> None:
    ops.deploy(*MANY[:20], ORDERS)
    processes = [ops.start("apply", "--yes") for _ in range(2)]
    answers = [Answer(process.wait(), *process.communicate()) for process in processes]
    for answer in answers:
        assert answer.code in (0, 1), answer
        assert "Traceback" not in answer.out + answer.err
    succeeds(ops("apply", "--yes"))
    assert plan_is_empty(ops)
    names = [automation["name"] for automation in server("POST", "/automations/filter", {})]
    assert sorted(names) == ["my-flows: failure", "my-flows: sla", "my-flows: success", "sample/orders__automation_1"]


def test_automations_made_twice_are_pruned(applied: Project, server: Server) -> None:
    mine = find(server, "/automations", name="my-flows: sla")
    server("POST", "/automations/", {name: mine[name] for name in ("name", "trigger", "actions", "tags")})
    plan = applied("plan")
    tells(
        plan, "- automation my-flows: sla", f"0 to create, 0 to update, {DECLARED} unchanged, 1 not declared any more"
    )
    succeeds(applied("prune", "--yes"))
    assert find(server, "/automations", name="my-flows: sla")["id"] == mine["id"]
    assert plan_is_empty(applied)


@pytest.fixture
def proxy(request: pytest.FixtureRequest, server: Server) -> Iterator[str]:
    """The address of the server behind a proxy that tells the version in the test's parameter and asks for no password."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/api/admin/version":
                status, body = 200, json.dumps(request.param).encode()
            else:
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {"Content-Type": "application/json"}
                answer = server.client.request(self.command, server.url + self.path[4:], content=sent, headers=headers)
                status, body = answer.status_code, answer.content
            self.send_response_only(status)  # without a Date
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.2", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    yield f"http://127.0.0.2:{proxy.server_port}/api"
    proxy.shutdown()


@pytest.mark.parametrize(
    ("proxy", "code", "told"),
    [
        ("3.8.1", 2, "! the server runs Prefect 3.8.1, this project"),
        ("2.20.3", 1, "the server runs Prefect 2.20.3, this project"),
    ],
    indirect=["proxy"],
)
def test_a_server_of_another_version(proxy: str, code: int, told: str, ops: Project) -> None:
    plan = ops.run("plan", PREFECT_API_URL=proxy)
    assert plan.code == code, plan.out + plan.err
    (line,) = [line for line in plan.lines if "the server runs" in line]
    assert line.startswith(told)
    assert "Traceback" not in plan.err


def test_a_key_that_is_refused(ops: Project) -> None:
    (line,) = is_clear(ops.run("plan", PREFECT_API_AUTH_STRING="admin:wrong"), 1)
    assert "refuses the key: check PREFECT_API_KEY or PREFECT_API_AUTH_STRING in .env" in line
    assert ops.run("plan").code == 2


# --- secrets -----------------------------------------------------------------------------------------


def test_a_rotated_secret_changes_its_block_and_nothing_else(applied: Project, server: Server) -> None:
    rotated = {"ETL_SOURCE_TOKEN": "canary4712"}
    paths = ("work_pools", "v2/concurrency_limits", "variables", "block_documents", "deployments", "automations")
    before = {one["id"]: one for path in paths for one in server("POST", f"/{path}/filter", {})}
    block = find(server, "/block_documents", name="etl-source-token")
    plan = applied("plan", **rotated)
    tells(
        plan,
        "~ block secret/etl-source-token",
        "data.value changes",
        f"0 to create, 1 to update, {DECLARED - 1} unchanged, 0 not declared any more",
    )
    assert succeeds(applied("apply", "--yes", **rotated)).writes == [
        "POST /api/block_documents/",  # Prefect asks whether it is new
        f"PATCH /api/block_documents/{block['id']}",
    ]
    after = {one["id"]: one for path in paths for one in server("POST", f"/{path}/filter", {})}
    assert {id for id in before | after if before.get(id) != after.get(id)} == {block["id"]}
    found = server("GET", f"/block_documents/{block['id']}?include_secrets=true")
    assert found["data"] == {"value": "canary4712"}


def test_secrets_never_show(applied: Project, server: Server) -> None:
    rotated = {name: value.replace(SECRET, "canary4712") for name, value in SETTINGS.items() if SECRET in value}
    answers = [applied(*command, **rotated) for command in (["plan"], ["plan", "--json"], ["plan", "--markdown"])]
    plan, as_json, _ = answers
    assert [line for line in plan.lines if line.endswith(" changes")] == [
        "data.value changes",
        *["data.url changes"] * 4,
    ]
    assert {change["action"] for change in json.loads(as_json.out)["changes"]} == {"update", "unchanged"}
    answers += [applied("apply", "--yes", **rotated), applied("doctor", **rotated), applied("check", **rotated)]
    invalid = applied("plan", SLACK_WEBHOOK_URL=f"canary4712{' ' * 3}")
    answers.append(invalid)
    assert plan_is_empty(applied, **rotated)
    shown = "".join(answer.out + answer.err for answer in answers) + server.log.read_text()
    assert "canary" not in shown
    reference = server("GET", "/deployments/name/sample/orders")["job_variables"]["env"]["T"]
    assert reference == "{{ prefect.blocks.secret.etl-source-token }}"


def test_a_secret_that_the_server_has_in_plain_text_does_not_show(applied: Project, server: Server) -> None:
    """As `prefect deploy` leaves it, where the repository has a reference to a block."""
    deployment = server("GET", "/deployments/name/sample/orders")
    server("PATCH", f"/deployments/{deployment['id']}", {"job_variables": {"env": {"T": "canary4713"}}})
    forms = [applied("plan"), applied("plan", "--json"), applied("plan", "--markdown")]
    tells(forms[0], "job_variables.env.T changes")
    assert not [form for form in forms if "canary" in form.out + form.err]


def test_a_secret_in_what_the_server_refuses_does_not_show(ops: Project) -> None:
    ops.declare("blocks", 'BLOCKS["x" * 300] = BLOCKS.pop("etl-source-token")')
    ops.deploy(NIGHTLY)
    refused = ops("apply", "--yes")
    if refused.code:
        is_clear(refused, 1)
    assert SECRET not in refused.out + refused.err


def test_a_block_without_its_setting_is_kept(applied: Project) -> None:
    plan = applied("plan", ETL_SOURCE_TOKEN="")
    assert plan.code == 0
    tells(plan, f"0 to create, 0 to update, {DECLARED - 1} unchanged, 0 not declared any more")
    assert [line for line in plan.lines if line.startswith("! block etl-source-token is left out: ETL_SOURCE_TOKEN")]


# --- parts, forms and ends -----------------------------------------------------------------------------


def test_only_a_part(ops: Project, server: Server) -> None:
    refused = ops("apply", "--yes", "--only", "automation")
    assert "automation my-flows: sla needs block webhook/my-flows-webhook: apply that first" in is_clear(refused, 1)
    assert not refused.writes
    told = is_clear(ops("apply", "--yes", "--only", "deployment"), 1)
    assert told == [
        f"deployment sample/{name} needs work pool my-flows: apply that first" for name in ("nightly", "orders")
    ]
    one = succeeds(ops("apply", "--yes", "--only", "variable:threshold"))
    assert one.writes == ["POST /api/variables/"]
    tells(one, "+ variable threshold", "1 written, 0 unchanged")
    kind = succeeds(ops("apply", "--yes", "--only", "block"))
    assert kind.out.count("+ block") == 5
    succeeds(ops("apply", "--yes", "--only", "automation:my-flows: sla"))
    hook = find(server, "/block_documents", name="my-flows-webhook")["id"]
    actions = find(server, "/automations", name="my-flows: sla")["actions"]
    assert hook in [action["block_document_id"] for action in actions]
    for only, told in (
        ("variable:treshold", ", did you mean variable:threshold?"),
        ("else", "; give KIND or KIND:NAME, where KIND is one of work pool, "),
    ):
        (line,) = is_clear(ops("plan", "--only", only), 1)
        assert line.startswith(f"--only {only}: there is no such object{told}")


def test_the_forms_of_a_plan(ops: Project) -> None:
    as_json = json.loads(ops("plan", "--json").out)
    assert {change["kind"] for change in as_json["changes"]} == EVERY_KIND
    assert as_json["summary"] == f"{DECLARED} to create, 0 to update, 0 unchanged, 0 not declared any more"
    succeeds(ops("apply", "--yes"))
    ops.deploy({**NIGHTLY, "description": "Changed"}, ORDERS)
    ops.declare("variables", 'VARIABLES = [VariableCreate(name="other", value=1)]')
    lines = ops("plan", "--markdown").out.splitlines()
    assert lines == [
        f"**Prefect plan**: 1 to create, 1 to update, {DECLARED - 2} unchanged, 1 not declared any more",
        "",
        "```diff",
        "+ variable other",
        "- variable threshold",
        "! deployment sample/nightly",
        "    description: Every night -> Changed",
        "```",
    ]


def test_destroy_forgets_what_others_deleted(applied: Project, server: Server) -> None:
    """Also the default queue, which belongs to its pool, and marks of objects that are gone."""
    applied.declare("work_pools", QUEUES.replace("[Work", '[WorkQueueCreate(name="default", priority=5), Work'))
    succeeds(applied("apply", "--yes"))
    server("DELETE", f"/v2/concurrency_limits/{find(server, '/v2/concurrency_limits', name='etl-load')['id']}")
    server("DELETE", "/work_pools/my-flows/queues/urgent")
    asked = applied("destroy")
    assert asked.code == 2
    assert not asked.writes
    succeeds(applied("destroy", "--yes"))
    left = everything(server)
    assert [name for names in left.values() for name in names] == []
    assert "Nothing to delete" in succeeds(applied("destroy", "--yes")).out


def test_doctor_on_a_sound_project(applied: Project, server: Server) -> None:
    applied.declare("work_pools", f'{QUEUES}\nTOOLS = ["uname -s", "false", "no-such-program version"]')
    doctor = applied("doctor")
    assert doctor.code == 1
    tells(
        doctor,
        "ok    `uname -s` works",
        "wrong `false` fails: exit code 1",
        "wrong `no-such-program version`: there is no such program, install it; README.md says what it is for",
        "ok    environment prod",
        "ok    .env and the environment set all that .env.example asks for",
        f"ok    the Prefect API at {server.url} answers, and takes the credentials",
        "ok    the API asks for a password",
        "ok    server and client have the same minor version",
        "ok    work pool: 1 as declared",
        "ok    block: 5 as declared",
        "wrong work pool my-flows: 0 workers online: make worker POOL=my-flows",
    )
    assert sum(line.startswith("wrong") for line in doctor.lines) == 3
    assert re.search("ok    installed: prefect 3[.0-9]+", doctor.out)
    assert re.search("ok    the clocks of server and client differ by [0-9] s", doctor.out)


def test_doctor_tells_what_is_wrong_and_what_to_do(applied: Project, server: Server) -> None:
    (applied.folder / ".env").write_text("SLACK_WEBHOOK=https://hooks.slack.com/services/T/B/X\n")
    doctor = applied("doctor", ALERT_WEBHOOK_URL="")
    tells(
        doctor,
        "wrong .env: there is no setting SLACK_WEBHOOK, did you mean SLACK_WEBHOOK_URL?",
        "wrong ALERT_WEBHOOK_URL is not set: .env.example says what it is",
    )
    deployment = server("GET", "/deployments/name/sample/nightly")
    server("PATCH", f"/deployments/{deployment['id']}", {"description": "by hand"})
    limit = next(one for one in server("POST", "/v2/concurrency_limits/filter", {}) if one["name"] == "etl-load")
    for sound in (False, True):
        server("PATCH", f"/v2/concurrency_limits/{limit['id']}", {"active": sound})
        server("PATCH", "/work_pools/my-flows", {"is_paused": not sound})
        server("PATCH", f"/deployments/{deployment['id']}", {"paused": not sound})
        doctor = doctor if sound else applied("doctor")
    tells(
        doctor,
        "wrong deployment: sample/nightly not as declared, see make plan",
        "wrong global concurrency limit etl-load is not active, so it limits nothing: .venv/bin/prefect gcl enable etl-load",
        "wrong work pool my-flows is paused, so it starts no run: .venv/bin/prefect work-pool resume my-flows",
        "wrong deployment sample/nightly is paused, so no schedule starts it: resume it in the UI",
    )


def test_a_login_in_the_address_is_none_of_a_stranger(ops: Project) -> None:
    with_login = ops.env["PREFECT_API_URL"].replace("//", f"//{AUTH}@")
    tells(ops("doctor", PREFECT_API_URL=with_login), "ok    the API asks for a password")


def test_doctor_goes_on_when_one_thing_cannot_be_told(ops: Project) -> None:
    refused = ops.run("doctor", PREFECT_API_AUTH_STRING="admin:wrong")
    assert refused.code == 1
    assert any("refuses the key" in line for line in refused.lines)
    assert "ok    environment prod" in refused.lines
    unfit = ops("doctor", SLA_MINUTES="soon")
    assert any(line.startswith("wrong SLA_MINUTES: ") for line in unfit.lines)
    assert any("answers, and takes the credentials" in line for line in unfit.lines)
    tells(ops("doctor"), "wrong work pool my-flows is not there yet: make deploy")


@pytest.mark.parametrize("proxy", ["3.8.8"], indirect=True)
def test_doctor_tells_of_an_api_that_is_open_to_everybody(proxy: str, ops: Project) -> None:
    """It is not at localhost, which `make dev` leaves open, but at another address of this machine."""
    doctor = ops.run("doctor", PREFECT_API_URL=proxy)
    tells(
        doctor,
        "wrong the API answers without a password, and with it the content of blocks: set"
        " PREFECT_SERVER_API_AUTH_STRING on the server",
    )
    assert "clocks" not in doctor.out  # the proxy sends no date
