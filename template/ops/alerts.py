"""`python -m ops alerts`: tries the alerts out.

A trial goes the way of a real alert: an event, an automation for the time being, the server that sends.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer
from rich.console import Console
from rich.markup import escape

from ops.settings import PROJECT, PROJECT_TAG, OpsError, Settings

if TYPE_CHECKING:  # at run time a command imports it: `--local` sets its environment first
    from prefect.client.orchestration import PrefectClient

Fields = dict[str, Any]
Channels = dict[str, Fields]  # name of a block -> the action that sends to it
Send = Callable[..., Awaitable[Any]]  # send of ops/kinds.py, with a client
Say = Callable[[bool, str], None]  # whether a channel accepted the message, and a line about it

PATIENCE = 60  # seconds that the server may take to send
SENDING = ("send-notification", "call-webhook", "send-email-notification")
TEST = f"TEST of the alerts of {PROJECT}: nothing is wrong"
# The states into which a simulated run comes, so that the alert is raised.
STORIES = {
    "failure": [("RUNNING", "Running"), ("FAILED", "Failed")],
    "success": [("RUNNING", "Running"), ("COMPLETED", "Completed")],
    "sla": [("RUNNING", "Running")],
    "late": [("SCHEDULED", "Late")],
    "stuck": [("PENDING", "Pending")],
    "worker-offline": [],
    "missing": [("RUNNING", "Running")],
}

app = typer.Typer(help="Try the alerts out, on the server of PREFECT_API_URL.", no_args_is_help=True)
Local = Annotated[bool, typer.Option("--local", help="On the server of `dev` instead.")]


@app.command("test")
def send_test(
    name: Annotated[str, typer.Argument(help="Only channels with this in the name of their block.")] = "",
    local: Local = False,
) -> None:
    """Have the server send a marked message to each channel; tell which accepted it. Exit code 1: one did not."""
    tell(test, name, local)


@app.command("simulate")
def send_simulated(kind: str, local: Local = False) -> None:
    """Have a run that nobody executes raise an alert, such as failure or late; tell which channels accepted it."""
    tell(simulate, kind, local)


def tell(trial: "Callable[[PrefectClient, Send, str, Say], Awaitable[None]]", word: str, local: bool) -> None:
    """Print what comes of a trial; exit with code 1 when a channel refused the message."""
    if local:
        from ops.dev import enter, running

        enter(running())
    from ops.api import connect
    from ops.kinds import send

    console = Console(highlight=False, soft_wrap=True, emoji=False)
    refused: list[str] = []

    def say(accepted: bool, line: str) -> None:
        refused.extend([] if accepted else [line])
        console.print(f"{'[green]accepted' if accepted else '[red]refused '}[/] {escape(line)}")

    async def main() -> None:
        async with connect(waits=True) as client:
            await trial(client, partial(send, client), word, say)

    asyncio.run(main())
    raise typer.Exit(1 if refused else 0)


async def declared_alerts(client: "PrefectClient") -> dict[str, tuple[Fields, Channels]]:
    """Return the trigger and the channels of each declared automation that sends something, by its name.

    Raises:
        OpsError: alerts are not yet on the server as they are declared
    """
    from ops.declared import Declared
    from ops.reconcile import make_plan

    settings = Settings()
    plan = await make_plan(client, Declared(settings))
    if pending := [change for change in plan.pending if change.kind.label in ("automation", "block")]:
        raise OpsError(*(f"{change} is not on the server as it is declared: apply it first" for change in pending))
    blocks = {id: name.split("/", 1)[1] for (kind, name), id in plan.ids.items() if kind == "block"}
    alerts = {}
    for change in plan.changes:
        if change.kind.label == "automation" and change.fields:
            sends = [action for action in change.fields["actions"] if action["type"] in SENDING]
            channels = {blocks.get(one.get("block_document_id"), "Prefect Cloud's e-mail"): one for one in sends}
            alerts[change.name.removeprefix(f"{PROJECT}: ")] = change.fields["trigger"], channels
    if not (sending := {name: alert for name, alert in alerts.items() if alert[1]}):
        raise OpsError(f"The environment {settings.prefect_env} declares no automation that sends something")
    return sending


async def test(client: "PrefectClient", send: Send, name: str, say: Say) -> None:
    """Have the server send a marked message to every channel, or to those with `name` in their block's name."""
    alerts = await declared_alerts(client)
    channels = {block: action for _, actions in alerts.values() for block, action in actions.items()}
    if not (chosen := {block: action for block, action in channels.items() if name in block}):
        raise OpsError(f"no channel is called {name}: choose one of {', '.join(sorted(channels))}")
    marks = {"subject": TEST, "body": TEST, "payload": json.dumps({"alert": "test", "level": "info", "text": TEST})}
    marked = {block: {key: marks.get(key, value) for key, value in action.items()} for block, action in chosen.items()}
    resource = {"prefect.resource.id": f"ops.alerts.{uuid4()}"}
    trigger = {"type": "event", "posture": "Reactive", "match": resource, "expect": ["ops.alerts.test"]}
    await fire(send, "test", trigger, marked, partial(emit, send, "ops.alerts.test", resource), say)


async def simulate(client: "PrefectClient", send: Send, kind: str, say: Say) -> None:
    """Have a run come into the states that raise an alert, and tell which channels accepted the message.

    No worker takes the run, and its deployment is not this project's. What watches it is a copy of the alert's
    automation, limited to this run and, if it waits for something that does not happen, to 10 seconds.
    """
    alerts = await declared_alerts(client)
    # Of some kinds there is one automation for each limit: sla, sla:2h. The first will do.
    of_kind = {re.split("[ :]", name)[0]: alert for name, alert in reversed(alerts.items())}
    known = [one for one in STORIES if one in of_kind]
    if kind not in known:
        raise OpsError(f"no alert is called {kind}: choose one of {', '.join(known)}")
    declared, channels = of_kind[kind]
    trigger: Fields = declared | {"within": 10 if declared["posture"] == "Proactive" else 0}
    if kind == "worker-offline":
        pool = await send("GET", f"/work_pools/{trigger['match']['prefect.resource.name'][0]}")
        # Without the pool's name, which the declared automation would match.
        resource = {"prefect.resource.id": f"prefect.work-pool.{pool['id']}", "ops.alerts": str(uuid4())}
        begin = partial(emit, send, "prefect.work-pool.not-ready", resource)
        return await fire(send, kind, trigger | {"match": resource}, channels, begin, say)
    flow = await send("POST", "/flows/", {"name": "alert-simulation"})
    body = {"name": f"{kind}-{uuid4().hex[:8]}", "flow_id": flow["id"], "tags": ["alert-simulation"]}
    deployment = await send("POST", "/deployments/", body)
    related = {"prefect.resource.id": f"prefect.deployment.{deployment['id']}"}
    run: Fields = {}

    async def set_state(type: str, name: str) -> None:
        state = {"type": type, "name": name, "message": f"Simulated by ops alerts simulate {kind}"}
        await send("POST", f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})

    async def begin_run() -> None:
        run.update(await send("POST", f"/deployments/{deployment['id']}/create_flow_run", {}))
        for state in STORIES[kind]:
            await set_state(*state)

    try:
        await fire(send, kind, trigger | {"match_related": related}, channels, begin_run, say)
    finally:
        if run and STORIES[kind][-1][0] not in ("FAILED", "COMPLETED"):
            await set_state("CANCELLED", "Cancelled")
        await send("DELETE", f"/deployments/{deployment['id']}")


async def emit(send: Send, event: str, resource: dict[str, str]) -> None:
    now = datetime.now(UTC).isoformat()
    await send("POST", "/events", [{"event": event, "occurred": now, "resource": resource, "id": str(uuid4())}])


async def fire(
    send: Send, title: str, trigger: Fields, channels: Channels, begin: Callable[[], Awaitable[None]], say: Say
) -> None:
    """Do `begin` under the eyes of an automation that is deleted afterwards, and tell what came of each action.

    Raises:
        OpsError: the server did not do all actions in time
    """
    body = {"name": f"{PROJECT}: trial of {title}", "trigger": trigger, "actions": [*channels.values()]}
    automation = await send("POST", "/automations/", body | {"tags": [PROJECT_TAG]})
    wanted = {
        "resource": {"id": [f"prefect.automation.{automation['id']}"]},
        "event": {"name": ["prefect.automation.action.executed", "prefect.automation.action.failed"]},
    }
    silent = dict(enumerate(channels))
    try:
        await asyncio.sleep(2)  # other processes of the server have to hear of the automation
        await begin()
        for _ in range(PATIENCE):
            for event in (await send("POST", "/events/filter", {"filter": wanted, "limit": 50}))["events"]:
                result = event["payload"]
                if channel := silent.pop(result["action_index"], None):
                    status = result.get("status_code", 200)
                    reason = result.get("notification_log") or result.get("reason") or f"it answers {status}"
                    accepted = event["event"].endswith("executed") and status < 400
                    say(accepted, channel if accepted else f"{channel}: {' '.join(reason.split())}")
            if not silent:
                return
            await asyncio.sleep(1)
    finally:
        await send("DELETE", f"/automations/{automation['id']}")
    raise OpsError(*(f"{channel}: the server has not sent within {PATIENCE} seconds" for channel in silent.values()))
