"""What is wrong with this set-up, and what to do about it; and trying out its alerts.

A trial goes the way of a real alert: an event, an automation for the time being, the server that sends.
"""

import asyncio
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from importlib.metadata import distributions
from importlib.util import find_spec
from itertools import groupby
from typing import Any
from uuid import uuid4

import httpx
from dotenv import dotenv_values
from prefect.client.base import ServerType
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import WorkerStatus
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from ops.api import api_url, connect
from ops.declared import Declared
from ops.deployments import hint
from ops.environments import ENVIRONMENTS
from ops.kinds import Fields, send
from ops.reconcile import Plan, check_version, make_plan
from ops.settings import PROJECT, PROJECT_TAG, ROOT, OpsError, Settings, faults_of
from ops.work_pools import TOOLS

Finding = tuple[bool, str]  # whether a thing is right, and a line about it

PATIENCE = 60  # seconds that the server may take to send
SENDING = ("send-notification", "call-webhook", "send-email-notification")
TEST = f"TEST of the alerts of {PROJECT}: nothing is wrong"
# The states of a run that raise an alert, and the one that ends the run.
STORIES = {
    "failure": [("RUNNING", "Running"), ("FAILED", "Failed")],
    "success": [("RUNNING", "Running"), ("COMPLETED", "Completed")],
    "sla": [("RUNNING", "Running")],
    "late": [("SCHEDULED", "Late")],
    "stuck": [("PENDING", "Pending")],
    "missing": [("RUNNING", "Running")],
    "worker-offline": [],
}
Say = Callable[[bool, str], None]  # whether a channel accepted the message, and a line about it
Channels = dict[str, Fields]  # name of a block -> the action that sends to it


async def findings() -> AsyncIterator[Finding]:
    """Yield all that can be told about this set-up, one by one; what is wrong with one thing hides no other."""
    installed = {one.name: one.version for one in distributions()}
    yield True, "installed: " + ", ".join(f"{name} {installed[name]}" for name in sorted(installed) if is_prefect(name))
    for command in TOOLS:
        yield try_tool(command)
    declared, faults = None, []
    try:
        settings = Settings()
        os.environ |= settings.for_runs()
        declared = Declared(settings)
        yield True, f"environment {settings.prefect_env}"
        for finding in () if ENVIRONMENTS[settings.prefect_env].local else try_settings():
            yield finding
        for name, fields in declared.objects["block"].items():
            if hasattr(fields["block"], "get_engine"):
                yield try_database(name, fields["block"])
        faults = declared.faults
    except (OpsError, ValidationError) as error:
        faults = faults_of(error)
    try:
        async with connect() as client:
            async for finding in on_server(client, declared):
                yield finding
    except OpsError as error:
        faults = [*faults, *error.faults]
    for fault in dict.fromkeys(faults):
        yield False, fault


def is_prefect(package: str) -> bool:
    return package.split("-")[0] == "prefect"


def try_tool(command: str) -> Finding:
    """Return whether a command does its work here; what it prints may hold a secret and is not shown."""
    try:
        done = subprocess.run(
            shlex.split(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
    except FileNotFoundError:
        return False, f"`{command}`: there is no such program, install it; README.md says what it is for"
    except subprocess.TimeoutExpired:
        return False, f"`{command}` does not end"
    if done.returncode:
        told = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return False, f"`{command}` fails: {told[-1].strip()}"
    return True, f"`{command}` works"


def try_settings() -> Iterator[Finding]:
    """Yield what .env.example asks for and nothing sets, and what .env sets under a name like one of those."""
    asked = re.findall(r"^(# )?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE)
    known, needed = {name for _, name in asked}, {name for comment, name in asked if not comment}
    given = dotenv_values(ROOT / ".env")
    for name in given.keys() - known:
        if near := hint(name, known, cutoff=0.85):
            yield False, f".env: there is no setting {name}{near}"
    missing = sorted(name for name in needed if not (os.environ.get(name) or given.get(name)))
    for name in missing:
        yield False, f"{name} is not set: .env.example says what it is"
    if not missing:
        yield True, ".env and the environment set all that .env.example asks for"


def try_database(name: str, block: Any) -> Finding:
    """Return whether the database behind a SqlAlchemyConnector answers, and a line about it."""
    try:
        there = find_spec("runtime.warehouse")  # it knows where the password is
        engine = import_module("runtime.warehouse").engine_of(block) if there else block.get_engine()
        name = f"{name}: {engine.url.render_as_string(hide_password=True)}"
        try:
            engine.connect().close()
        finally:
            engine.dispose()
    except Exception as error:  # each driver raises its own
        reason = str(getattr(error, "orig", error)).strip().splitlines()[-1]
        return False, f"{name} cannot be used: {reason}. Check the DATABASE_ settings in .env"
    return True, f"{name} answers"


async def on_server(client: PrefectClient, declared: Declared | None) -> AsyncIterator[Finding]:
    """Yield what can be told about the server, and about what it holds of what is declared."""
    skew = await clock_skew(client)
    await client.request("POST", "/variables/filter", json={"limit": 1})
    yield True, f"the Prefect API at {api_url()} answers, and takes the credentials"
    yield skew < 30, f"the clocks of server and client differ by {skew:.0f} s" + ("" if skew < 30 else ": set them")
    if client.server_type != ServerType.CLOUD:
        yield await guard(client)
    notes = await check_version(client)
    yield not notes, "; ".join(notes) or "server and client have the same minor version"
    if not declared:
        return
    plan = Plan()
    try:
        plan = await make_plan(client, declared)
    except OpsError as error:
        for fault in error.faults:
            yield False, fault
    for note in plan.notes:
        if note not in notes:
            yield True, note
    for kind, changes in groupby(plan.changes, key=lambda change: change.kind.label):
        all_of_kind = list(changes)
        differ = [change.name for change in all_of_kind if change.action != "unchanged"]
        for change in all_of_kind:
            if change.found.get("active") is False:
                yield False, f"{change} is not active, so it limits nothing: prefect gcl enable {change.name}"
            if change.found.get("is_paused"):
                yield False, f"{change} is paused, so it starts no run: prefect work-pool resume {change.name}"
        if differ:
            yield False, f"{kind}: {', '.join(differ)} not as declared, see make plan"
        else:
            yield True, f"{kind}: {len(all_of_kind)} as declared"
    for name, pool in declared.objects["work pool"].items():
        if "base_job_template" in pool:  # else Prefect Cloud starts its runs
            yield await try_workers(client, name)


async def try_workers(client: PrefectClient, pool: str) -> Finding:
    """Return whether a work pool has a worker that is online, and a line about it."""
    try:
        await client.read_work_pool(pool)
    except ObjectNotFound:
        return False, f"work pool {pool} is not there yet: make deploy"
    workers = await client.read_workers_for_work_pool(pool)
    online = sum(worker.status == WorkerStatus.ONLINE for worker in workers)
    return online > 0, f"work pool {pool}: {online} workers online" + ("" if online else f": make worker POOL={pool}")


async def guard(client: PrefectClient) -> Finding:
    """Return whether a stranger is refused by the server, which gives the content of blocks to whoever reaches it."""
    async with httpx.AsyncClient(timeout=10) as stranger:
        answer = await stranger.get(client.api_url.join("admin/version"))
    if answer.status_code in (401, 403):
        return True, "the API asks for a password"
    here = client.api_url.host in ("127.0.0.1", "localhost", "::1")
    remedy = "" if here else ", and with it the content of blocks: set PREFECT_SERVER_API_AUTH_STRING on the server"
    return here, f"the API answers without a password{remedy}"


async def clock_skew(client: PrefectClient) -> float:
    """Return by how many seconds the server's clock differs from this machine's."""
    response = await client.request("GET", "/health")
    return abs(parsedate_to_datetime(response.headers["date"]).timestamp() - time.time())


async def declared_actions(client: PrefectClient, declared: Declared) -> tuple[dict[str, Fields], dict[str, Channels]]:
    """Return the trigger and the channels of each declared automation that sends something, by its name.

    Raises:
        OpsError: alerts are not yet on the server as they are declared
    """
    plan = await make_plan(client, declared)
    pending = [change for change in plan.pending if change.kind.label in ("automation", "block")]
    if pending:
        raise OpsError(*(f"{change} is not on the server as it is declared: apply it first" for change in pending))
    blocks = {id: name.split("/", 1)[1] for (kind, name), id in plan.ids.items() if kind == "block"}
    triggers: dict[str, Fields] = {}
    channels: dict[str, Channels] = {}
    for change in plan.changes:
        if change.kind.label == "automation" and change.fields:
            name = change.name.removeprefix(f"{PROJECT}: ")
            sends = [action for action in change.fields["actions"] if action["type"] in SENDING]
            channels[name] = {blocks.get(one.get("block_document_id"), "Prefect Cloud's e-mail"): one for one in sends}
            triggers[name] = change.fields["trigger"]
    return triggers, {name: found for name, found in channels.items() if found}


async def test_alerts(client: PrefectClient, declared: Declared, name: str, say: Say) -> None:
    """Have the server send a marked message to every channel, or to those with `name` in their block's name."""
    _, found = await declared_actions(client, declared)
    channels = {block: action for actions in found.values() for block, action in actions.items()}
    if not (chosen := {block: action for block, action in channels.items() if name in block}):
        raise OpsError(f"no channel is called {name}: choose one of {', '.join(sorted(channels))}")
    marks = {"subject": TEST, "body": TEST, "payload": json.dumps({"alert": "test", "level": "info", "text": TEST})}
    marked = {block: {key: marks.get(key, value) for key, value in action.items()} for block, action in chosen.items()}
    resource = {"prefect.resource.id": f"ops.alerts.{uuid4()}"}
    trigger = {"type": "event", "posture": "Reactive", "match": resource, "expect": ["ops.alerts.test"]}
    await fire(client, "test", trigger, marked, lambda: emit(client, "ops.alerts.test", resource), say)


async def simulate_alert(client: PrefectClient, declared: Declared, kind: str, say: Say) -> None:
    """Have a run come into the states that raise an alert, and tell which channels accepted the message.

    No worker takes the run, and its deployment is not this project's. What watches it is a copy of the alert's
    automation, limited to this run and, if it waits for something that does not happen, to 10 seconds.
    """
    triggers, found = await declared_actions(client, declared)
    name = next((name for name in found if name.split(" ")[0].split(":")[0] == kind), None)
    if not name:
        raise OpsError(f"no alert is called {kind}: choose one of {', '.join(found)}")
    trigger: Fields = triggers[name] | {"within": 10 if triggers[name]["posture"] == "Proactive" else 0}
    if kind == "worker-offline":
        pool = await send(client, "GET", f"/work_pools/{trigger['match']['prefect.resource.name'][0]}")
        # Without the pool's name, which the declared automation would match.
        resource = {"prefect.resource.id": f"prefect.work-pool.{pool['id']}", "ops.alerts": str(uuid4())}
        event = "prefect.work-pool.not-ready"
        await fire(client, kind, trigger | {"match": resource}, found[name], lambda: emit(client, event, resource), say)
        return
    flow = await send(client, "POST", "/flows/", {"name": "alert-simulation"})
    body = {"name": f"{kind}-{uuid4().hex[:8]}", "flow_id": flow["id"], "tags": ["alert-simulation"]}
    deployment = await send(client, "POST", "/deployments/", body)
    related = {"prefect.resource.id": f"prefect.deployment.{deployment['id']}"}
    run: Fields = {}

    async def set_state(type: str, name: str) -> None:
        state = {"type": type, "name": name, "message": f"Simulated by ops alerts simulate {kind}"}
        await send(client, "POST", f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})

    async def begin() -> None:
        run.update(await send(client, "POST", f"/deployments/{deployment['id']}/create_flow_run", {}))
        for state in STORIES[kind]:
            await set_state(*state)

    try:
        await fire(client, kind, trigger | {"match_related": related}, found[name], begin, say)
    finally:
        if run and STORIES[kind][-1][0] not in ("FAILED", "COMPLETED"):
            await set_state("CANCELLED", "Cancelled")
        await send(client, "DELETE", f"/deployments/{deployment['id']}")


async def emit(client: PrefectClient, event: str, resource: dict[str, str]) -> None:
    now = datetime.now(UTC).isoformat()
    await send(client, "POST", "/events", [{"event": event, "occurred": now, "resource": resource, "id": str(uuid4())}])


async def fire(
    client: PrefectClient,
    title: str,
    trigger: Fields,
    channels: Channels,
    begin: Callable[[], Awaitable[None]],
    say: Say,
) -> None:
    """Do `begin` under the eyes of an automation that is deleted afterwards, and tell of each action what came of it.

    Raises:
        OpsError: the server did not do all actions in time
    """
    body = {"name": f"{PROJECT}: trial of {title}", "trigger": trigger, "actions": [*channels.values()]}
    automation = await send(client, "POST", "/automations/", body | {"tags": [PROJECT_TAG]})
    path, told = f"/automations/{automation['id']}", set[int]()
    wanted = {
        "resource": {"id": [f"prefect.automation.{automation['id']}"]},
        "event": {"name": ["prefect.automation.action.executed", "prefect.automation.action.failed"]},
    }
    try:
        await asyncio.sleep(2)  # other processes of the server have to hear of the automation
        await begin()
        for _ in range(PATIENCE):
            for event in (await send(client, "POST", "/events/filter", {"filter": wanted, "limit": 50}))["events"]:
                result, number = event["payload"], event["payload"]["action_index"]
                if number not in told:
                    told.add(number)
                    status = result.get("status_code", 200)
                    reason = result.get("notification_log") or result.get("reason") or f"it answers {status}"
                    accepted = event["event"].endswith("executed") and status < 400
                    say(accepted, [*channels][number] + ("" if accepted else f": {' '.join(reason.split())}"))
            if len(told) == len(channels):
                return
            await asyncio.sleep(1)
    finally:
        await send(client, "DELETE", path)
    silent = [name for number, name in enumerate(channels) if number not in told]
    raise OpsError(*(f"{name}: the server has not sent within {PATIENCE} seconds" for name in silent))
