"""Keeps the tests away from the Prefect, the settings and the data of whoever runs them."""

import asyncio
import importlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from ops.settings import Settings

if TYPE_CHECKING:
    from ops.reconcile import Plan

SCRATCH = TemporaryDirectory(prefix="flow-tests-", ignore_cleanup_errors=True)
FOLDER = Path(SCRATCH.name)

# Prefect takes its settings when it is imported: first the environment, then the files .env and
# pyproject.toml of the working directory. Nothing of the caller's may reach it, so it is imported here.
for name in [name for name in os.environ if name.startswith("PREFECT_") or name.lower() in Settings.model_fields]:
    del os.environ[name]
os.environ |= {
    "DATA_DIR": str(FOLDER / "data"),
    "DO_NOT_TRACK": "1",
    "PREFECT_HOME": str(FOLDER / "prefect"),
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # a task may run without a flow here
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # a test that needs a server says so
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
with chdir(FOLDER):
    importlib.import_module("prefect.context")
Settings.model_config["env_file"] = None


@pytest.fixture(scope="session")
def settings() -> Settings:
    """Settings as in production, with every secret given; alerts go to a port where nobody listens."""
    values: dict[str, object] = {"prefect_env": "prod"}
    for name, field in Settings.model_fields.items():
        if name == "preview":  # this is none
            continue
        if field.default == "" or field.annotation == str | None:
            values[name] = field.examples[0] if field.examples else "needed"
        if field.annotation == SecretStr | None:
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            values[name] = str(extra.get("local", "{receiver}")).format(receiver="127.0.0.1:9/hush-hush")
    return Settings.model_validate(values)


@pytest.fixture(scope="session")
def server() -> Iterator[None]:
    """A temporary Prefect server, one for all tests that are marked `server`."""
    from prefect.testing.utilities import prefect_test_harness

    with ExitStack() as stack:
        with chdir(FOLDER):
            stack.enter_context(prefect_test_harness(server_startup_timeout=180))
        yield


PUSH = {
    "job_configuration": {"env": "{{ env }}"},
    "variables": {"properties": {"env": {"type": "object"}, "image": {"type": "string"}}},
}


@pytest.fixture(scope="session")
def deployed(server: None, settings: Settings) -> Iterator["Plan"]:
    """That server with everything on it that the project declares; gives the plan of the first `apply`."""
    from prefect.client.schemas.actions import WorkPoolCreate

    from ops.api import connect
    from ops.declared import Declared
    from ops.reconcile import apply, make_plan

    async def deploy() -> "Plan":
        declared = Declared(settings)
        async with connect() as client:
            for pool in declared.objects["work pool"].values():
                if "base_job_template" not in pool:  # Prefect Cloud makes it
                    await client.create_work_pool(WorkPoolCreate.model_validate({**pool, "base_job_template": PUSH}))
            plan = await make_plan(client, declared)
            await apply(client, declared, plan, lambda _: None)
        return plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Declared, "references", lambda _: iter(()))  # a block that somebody made in the UI is not here
        yield asyncio.run(deploy())
