"""What ops/ does to a real server: it creates once, changes nothing twice, and keeps what people did by hand."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from threading import current_thread, main_thread
from typing import Any

import httpx
import pytest
from prefect.automations import AutomationCore
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import VariableCreate
from pydantic import SecretStr
from rich.console import Console

from ops import declared, reconcile
from ops.api import connect
from ops.declared import Declared
from ops.reconcile import Change, Plan, delete, make_plan
from ops.report import as_json, as_markdown, print_plan
from ops.settings import FLOW_SECRETS, OpsError, Settings

pytestmark = pytest.mark.server

SETTINGS = Settings.model_fields.items()
SECRETS = [name for name, field in SETTINGS if field.annotation == SecretStr | None and name not in FLOW_SECRETS]
ALERTS = [name for name in SECRETS if Settings.model_fields[name].json_schema_extra]  # says where `make dev` sends it
EXTRA = VariableCreate(name="only_in_this_test", value="1")


def on_server(work: Callable[[PrefectClient], Awaitable[Any]]) -> Any:
    async def connected() -> Any:
        async with connect() as client:
            return await work(client)

    return asyncio.run(connected())


def plan(settings: Settings) -> Plan:
    return on_server(lambda client: make_plan(client, Declared(settings)))


def apply(settings: Settings) -> list[Change]:
    async def work(client: PrefectClient) -> list[Change]:
        mine = Declared(settings)
        return await reconcile.apply(client, mine, await make_plan(client, mine), lambda _: None)

    return on_server(work)


def by_hand(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Send one request, as the user interface does for a person."""
    with get_client(sync_client=True) as client:
        response = client.request(method, path, json=body)  # ty: ignore[invalid-argument-type] (it lists its own paths)
    return response.json() if response.content else None


def printed(plan: Plan) -> str:
    """Return all that `ops plan` prints, in its three forms."""
    console = Console(width=1000)
    with console.capture() as capture:
        print_plan(plan, console)
    return capture.get() + json.dumps(as_json(plan)) + as_markdown(plan)


def one(plan: Plan, label: str) -> tuple[str, dict[str, Any]]:
    """Return name and content of an object on the server, or skip the test when the project declares none."""
    found = [(change.name, change.found) for change in plan.changes if change.kind.label == label]
    return found[0] if found else pytest.skip(f"no {label} in this project")


def one_schedule(plan: Plan) -> tuple[str, str]:
    """Return the paths of a deployment and of its schedule, or skip the test when the project declares none."""
    found = [change.found for change in plan.changes if change.found.get("schedules")]
    deployment = found[0] if found else pytest.skip("no schedule in this project")
    path = f"/deployments/{deployment['id']}"
    return path, f"{path}/schedules/{deployment['schedules'][0]['id']}"


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests of ops/ that are not reads; one that the server was too busy for is made, and listed, again."""
    seen: list[str] = []
    send = httpx.AsyncClient.send

    async def spy(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        read = request.method == "GET" or request.url.path.endswith("/filter")
        if not read and current_thread() is main_thread():  # in others, Prefect sends logs of earlier runs
            seen.append(f"{request.method} {request.url.path}")
        return await send(self, request, **options)

    monkeypatch.setattr(httpx.AsyncClient, "send", spy)
    return seen


def test_first_apply_creates_everything(deployed: Plan) -> None:
    there = [
        change
        for change in deployed.changes
        if change.kind.label == "work pool" and "base_job_template" not in change.fields
    ]
    assert {change.action for change in deployed.changes if change not in there} == {"create"}


def test_second_apply_writes_nothing(deployed: Plan, settings: Settings, writes: list[str]) -> None:
    assert [change.name for change in plan(settings).changes] == [change.name for change in deployed.changes]
    assert plan(settings).pending == []
    assert apply(settings) == []
    assert writes == []


@pytest.mark.usefixtures("deployed")
def test_schedule_paused_by_hand_stays_paused(settings: Settings, writes: list[str]) -> None:
    _, schedule = one_schedule(plan(settings))
    by_hand("PATCH", schedule, {"active": False})
    assert any("paused on the server and stays so" in note for note in plan(settings).notes)
    assert apply(settings) == []
    assert writes == []
    by_hand("PATCH", schedule, {"active": True})


@pytest.mark.usefixtures("deployed")
def test_schedule_paused_by_hand_stays_paused_when_it_changes(settings: Settings) -> None:
    deployment, schedule = one_schedule(plan(settings))
    by_hand("PATCH", schedule, {"active": False, "schedule": {"cron": "59 23 31 12 *"}})
    assert len(apply(settings)) == 1
    after = by_hand("GET", deployment)["schedules"][0]
    assert not after["active"]
    assert after["schedule"].get("cron") != "59 23 31 12 *"
    by_hand("PATCH", schedule, {"active": True})


@pytest.mark.usefixtures("deployed")
def test_automation_paused_by_hand_stays_paused(settings: Settings, writes: list[str]) -> None:
    _, found = one(plan(settings), "automation")
    by_hand("PATCH", f"/automations/{found['id']}", {"enabled": False})
    assert any("paused on the server and stays so" in note for note in plan(settings).notes)
    assert apply(settings) == []
    assert writes == []
    by_hand("PATCH", f"/automations/{found['id']}", {"enabled": True})


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize(
    ("label", "path", "field", "value"),
    [
        ("work pool", "/work_pools/{name}", "description", "changed by hand"),
        ("global concurrency limit", "/v2/concurrency_limits/{id}", "limit", 99),
        ("deployment", "/deployments/{id}", "description", "changed by hand"),
    ],
)
def test_other_changes_by_hand_are_shown_and_taken_back(
    settings: Settings, writes: list[str], label: str, path: str, field: str, value: object
) -> None:
    name, found = one(plan(settings), label)
    by_hand("PATCH", path.format_map(found), {field: value})
    changed = plan(settings)
    assert [(change.action, change.name) for change in changed.pending] == [("update", name)]
    assert f"{field}: {value} -> " in printed(changed)
    apply(settings)
    assert set(writes) == {f"PATCH /api{path.format_map(found)}"}
    assert plan(settings).pending == []


@pytest.mark.usefixtures("deployed")
def test_automation_changed_by_hand_is_taken_back(settings: Settings, writes: list[str]) -> None:
    name, found = one(plan(settings), "automation")
    body = {field: found[field] for field in AutomationCore.model_fields if field in found}
    by_hand("PUT", f"/automations/{found['id']}", body | {"description": "changed by hand"})
    assert [(change.action, change.name) for change in plan(settings).pending] == [("update", name)]
    apply(settings)
    assert set(writes) == {f"PUT /api/automations/{found['id']}"}
    assert plan(settings).pending == []


@pytest.mark.usefixtures("deployed")
def test_a_fault_means_that_nothing_is_written(
    settings: Settings, writes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declared, "VARIABLES", [EXTRA])
    monkeypatch.setattr(declared, "work_pools", lambda _: [])  # deployments refer to them
    with pytest.raises(OpsError, match="is not declared in"):
        apply(settings)
    assert writes == []


@pytest.mark.usefixtures("deployed")
def test_what_is_not_declared_any_more_is_pruned(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(declared, "VARIABLES", [*declared.VARIABLES, EXTRA])
        assert [change.name for change in apply(settings)] == [EXTRA.name]
    undeclared = plan(settings).undeclared
    assert [change.name for change in undeclared] == [EXTRA.name]
    assert apply(settings) == []  # apply never deletes
    on_server(lambda client: delete(client, undeclared, lambda _: None))
    assert plan(settings).undeclared == []


@pytest.mark.usefixtures("deployed")
def test_objects_of_other_projects_are_left_alone(
    settings: Settings, writes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = by_hand("POST", "/variables/", {"name": EXTRA.name, "value": 2, "tags": ["project:another"]})
    assert plan(settings).undeclared == []
    monkeypatch.setattr(declared, "VARIABLES", [EXTRA])
    with pytest.raises(OpsError, match="belongs to the project another"):
        apply(settings)
    assert writes == []
    by_hand("DELETE", f"/variables/{other['id']}")


@pytest.mark.parametrize("name", ALERTS)
def test_alerts_whose_address_nobody_has_are_a_fault(settings: Settings, name: str) -> None:
    mine = Declared(settings.model_copy(update={name: None}))
    mine.add_automations({})  # what a server without such a block has
    assert any(f"{name.upper()} is not set" in fault for fault in mine.faults)


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize("name", SECRETS)
def test_a_block_whose_secret_is_not_at_hand_is_kept(settings: Settings, name: str) -> None:
    without = settings.model_copy(update={name: None})
    if not Declared(without).left_out:
        pytest.skip(f"no block waits for {name}")  # as a token of Vault, which runs may have from elsewhere
    found = plan(without)
    assert found.pending == []
    assert found.undeclared == []
    assert any(f"{name.upper()} is not set" in note for note in found.notes)


def test_a_changed_secret_is_written_and_never_printed(deployed: Plan, settings: Settings) -> None:
    old = {name: getattr(settings, name).get_secret_value() for name in SECRETS}
    new = settings.model_copy(update={name: SecretStr(f"{value}-new") for name, value in old.items()})
    changed = plan(new)
    assert {change.kind.label for change in changed.pending} == ({"block"} if SECRETS else set())
    for secret in old.values():
        assert secret not in printed(deployed)
        assert secret not in printed(changed)
    apply(new)
    assert plan(new).pending == []
    apply(settings)  # as the other tests know it


def test_a_preview_and_its_host_leave_each_other_alone(deployed: Plan, settings: Settings) -> None:
    preview = settings.model_copy(update={"prefect_env": "preview", "preview": "pr-12"})
    before = [(str(change), change.action) for change in plan(settings).changes]
    done = apply(preview)
    try:
        assert {change.kind.label for change in done} == {"deployment"}
        assert all(change.fields["name"].startswith("pr-12-") for change in done)
        assert not any(schedule["active"] for change in done for schedule in change.fields["schedules"])
        assert [(str(change), change.action) for change in plan(settings).changes] == before
        assert apply(preview) == []
    finally:
        owned = plan(preview).owned
        on_server(lambda client: delete(client, owned, lambda _: None))
    assert {str(change) for change in owned} == {str(change) for change in done}
    assert plan(preview).owned == []
