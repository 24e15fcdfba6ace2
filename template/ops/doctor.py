"""What is wrong with this set-up, and what to do about it."""

import os
import re
import shlex
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from email.utils import parsedate_to_datetime
from importlib import import_module
from importlib.metadata import distributions
from importlib.util import find_spec
from itertools import groupby
from typing import Any

import httpx
from dotenv import dotenv_values
from prefect.client.base import ServerType
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import WorkerStatus
from pydantic import ValidationError

from ops.api import api_url, connect
from ops.declared import Declared
from ops.deployments import hint
from ops.environments import ENVIRONMENTS
from ops.reconcile import check_version, survey
from ops.settings import ROOT, OpsError, Settings, faults_of
from ops.work_pools import TOOLS

Finding = tuple[bool, str]  # whether a thing is right, and a line about it


async def findings() -> AsyncIterator[Finding]:
    """Yield all that can be told about this set-up, one by one; what is wrong with one thing hides no other."""
    installed = {f"{one.name} {one.version}" for one in distributions() if re.match("prefect(-|$)", one.name)}
    yield True, f"installed: {', '.join(sorted(installed))}"
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
    answer = await client.request("POST", "/variables/filter", json={"limit": 1})
    yield True, f"the Prefect API at {api_url()} answers, and takes the credentials"
    if date := answer.headers.get("date"):  # a proxy may drop it
        skew = abs(parsedate_to_datetime(date).timestamp() - time.time())
        yield skew < 30, f"the clocks of server and client differ by {skew:.0f} s" + ("" if skew < 30 else ": set them")
    if client.server_type != ServerType.CLOUD:
        yield await guard(client)
    notes = await check_version(client)
    yield not notes, "; ".join(notes) or "server and client have the same minor version"
    if not declared:
        return
    plan = await survey(client, declared)
    for fault in plan.faults:
        if fault not in declared.faults:  # those are told in any case
            yield False, fault
    for note in plan.notes:
        if note not in notes:
            yield True, note
    for kind, changes in groupby(plan.changes, key=lambda change: change.kind.label):
        all_of_kind = list(changes)
        differ = [change.name for change in all_of_kind if change.action != "unchanged"]
        for change in all_of_kind:
            if change.found.get("active") is False:
                enable = f"gcl enable {change.found['name']}"
                yield False, f"{change} is not active, so it limits nothing: .venv/bin/prefect {enable}"
            if change.found.get("paused"):  # a deployment, by a tag like pause-after:3/1d or by hand
                yield False, f"{change} is paused, so no schedule starts it: resume it in the UI"
            if change.found.get("is_paused"):
                pool, _, queue = change.name.partition("/")
                resume = f"work-queue resume {queue} --pool {pool}" if queue else f"work-pool resume {pool}"
                yield False, f"{change} is paused, so it starts no run: .venv/bin/prefect {resume}"
        if differ:
            yield False, f"{kind}: {', '.join(differ)} not as declared, see make plan"
        else:
            yield True, f"{kind}: {len(all_of_kind)} as declared"
    for name, pool in declared.objects["work pool"].items():
        if "base_job_template" in pool:  # else Prefect Cloud starts its runs
            yield await try_workers(client, name, ("work pool", name) in plan.ids)


async def try_workers(client: PrefectClient, pool: str, there: bool) -> Finding:
    """Return whether a work pool has a worker that is online, and a line about it."""
    if not there:
        return False, f"work pool {pool} is not there yet: make deploy"
    workers = await client.read_workers_for_work_pool(pool)
    online = sum(worker.status == WorkerStatus.ONLINE for worker in workers)
    told = f"work pool {pool}: {online} worker{'s' * (online != 1)} online"
    return online > 0, told if online else f"{told}: make worker POOL={pool}"


async def guard(client: PrefectClient) -> Finding:
    """Return whether a stranger is refused by the server, which gives the content of blocks to whoever reaches it."""
    async with httpx.AsyncClient(timeout=10, verify=False) as stranger:  # noqa: S501 - it sends nothing
        answer = await stranger.get(client.api_url.join("admin/version").copy_with(userinfo=b""))
    if answer.status_code in (401, 403):
        return True, "the API asks for a password"
    here = client.api_url.host in ("127.0.0.1", "localhost", "::1")
    remedy = "" if here else ", and with it the content of blocks: set PREFECT_SERVER_API_AUTH_STRING on the server"
    return here, f"the API answers without a password{remedy}"
