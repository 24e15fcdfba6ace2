"""What is wrong with this set-up, and what to do about it."""

import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import WorkerStatus
from prefect.settings import get_current_settings
from pydantic import ValidationError

from ops.api import connect
from ops.declared import Declared
from ops.reconcile import make_plan
from ops.settings import OpsError, Settings, faults_of


async def findings() -> AsyncIterator[tuple[bool, str]]:
    """Yield, one by one, whether a thing is right and a line about it; end where the next can't be told."""
    yield True, f"Prefect {version('prefect')}, API {get_current_settings().api.url or 'not set'}"
    try:
        settings = Settings()
        declared = Declared(settings)
        yield True, f"environment {settings.prefect_env}"
        for name, fields in declared.objects["block"].items():
            if hasattr(fields["block"], "get_engine"):
                yield try_database(name, fields["block"])
        async with connect() as client:
            skew = await clock_skew(client)
            yield (
                skew < 30,
                f"the clocks of server and client differ by {skew:.0f} s" + ("" if skew < 30 else ": set them"),
            )
            plan = await make_plan(client, declared)
            for note in plan.notes:
                yield "stays so" in note or "is left out" in note, note
            differs = len(plan.pending) + len(plan.undeclared)
            yield not differs, f"{differs} objects differ from the repository" + (": see make plan" if differs else "")
            served = [name for name, pool in declared.objects["work pool"].items() if "base_job_template" in pool]
            for name in served if not plan.pending else []:
                workers = await client.read_workers_for_work_pool(name)
                online = sum(worker.status == WorkerStatus.ONLINE for worker in workers)
                yield online > 0, f"work pool {name}: {online} workers online" + ("" if online else ": make worker")
    except (OpsError, ValidationError) as error:
        for fault in faults_of(error):
            yield False, fault


def try_database(name: str, block: Any) -> tuple[bool, str]:
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


async def clock_skew(client: PrefectClient) -> float:
    """Return by how many seconds the server's clock differs from this machine's."""
    response = await client.request("GET", "/health")
    return abs(parsedate_to_datetime(response.headers["date"]).timestamp() - time.time())
