"""Flows reach secrets, results and databases where the answers say; what cannot be reached here is written and read back."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import clouds
import duckdb
import pytest
from answers import DEFAULTS, Answers, Render
from clouds import Cloud
from ops_server import AUTH, Server

pytestmark = [pytest.mark.live, pytest.mark.slow]

CANARY, ROTATED = "canary-4711-first", "canary-4712-rotated"
SETTINGS = {
    "ALERT_WEBHOOK_URL": f"http://127.0.0.1:9/{CANARY}",
    "AWS_REGION": "eu-west-1",
    "DATABASE_ACCOUNT": "organization-account",
    "DATABASE_NAME": "sales",
    "DATABASE_PASSWORD": CANARY,
    "DATABASE_PROJECT": "sample",
    "DATABASE_USER": "flows",
    "DATABASE_WAREHOUSE": "small",
    "ETL_SOURCE_TOKEN": CANARY,
    "FLOWS_VAULT_TOKEN": CANARY,
    "GCP_PROJECT": "sample",
    "KEY_VAULT_URL": "https://sample.vault.azure.net",
    "RESULTS_ACCOUNT_URL": "https://sample.blob.core.windows.net",
    "RESULTS_BUCKET": "results",
    "RESULTS_CONTAINER": "results",
    "VAULT_ADDR": "https://vault.test",
}
# Each store and kind of storage but those of AWS, and each database on a server but PostgreSQL.
ELSEWHERE: list[Answers] = [
    {"database": "mysql", "secrets_backend": "vault"},
    {
        "database": "mssql",
        "cloud_provider": "azure",
        "secrets_backend": "azure-key-vault",
        "result_storage": "azure-blob",
    },
    {
        "database": "bigquery",
        "cloud_provider": "gcp",
        "secrets_backend": "gcp-secret-manager",
        "result_storage": "gcs",
    },
    {"database": "snowflake", "secrets_backend": "prefect"},
]
PROBE = """
from prefect import flow, get_run_logger
from runtime.secrets import read_secret

@flow
def probe():
    value = read_secret("etl-source-token").get_secret_value()
    get_run_logger().info("%s has %s characters", value, len(value))

probe()
"""
COMPARE = """
import google.auth
from google.auth.credentials import AnonymousCredentials
google.auth.default = lambda **_: (AnonymousCredentials(), "sample")  # no identity is at hand
from prefect.blocks.core import Block
from ops.blocks import BLOCKS
from ops.settings import Settings

def content(block):
    fields = set(type(block).model_fields)
    return block.model_dump(mode="json", include=fields, context={"include_secrets": True})

for name, make in BLOCKS.items():
    declared = make(Settings())
    found = Block.load(f"{declared.get_block_type_slug()}/{name}")
    assert content(found) == content(declared), name
    print("same:", name)
"""


class Project:
    """A project, and a server that it is run against, with the environment of these tests."""

    def __init__(self, folder: Path, server: Server, **env: str) -> None:
        self.folder = folder
        self.env = {name: value for name, value in server.env.items() if not name.startswith("AWS_")} | SETTINGS
        self.env |= {"PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": AUTH} | env
        self.told: list[str] = []

    def __call__(self, *arguments: str, code: int = 0) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=300)
        self.told.append(done.stdout + done.stderr)
        assert done.returncode == code, self.told[-1]
        return self.told[-1]


@pytest.fixture
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cloud]:
    with getattr(clouds, request.param)(tmp_path) as cloud:
        yield cloud


@pytest.mark.parametrize(
    ("cloud", "store", "storage"),
    [
        ("aws", "aws-secrets-manager", "s3"),
        ("gcp", "gcp-secret-manager", "gcs"),
        ("azure", "azure-key-vault", "azure-blob"),
        ("vault", "vault", "local"),
    ],
    indirect=["cloud"],
    ids=["aws", "gcp", "azure", "vault"],
)
def test_runs_read_secrets_and_keep_results(
    cloud: Cloud, store: str, storage: str, render: Render, server: Server, tmp_path: Path
) -> None:
    row, file = DEFAULTS["secrets"][store], tmp_path / "warehouse.duckdb"
    provider = row["clouds"][0]
    folder = render("cloudy", cloud_provider=provider, secrets_backend=store, result_storage=storage, database="duckdb")
    project = Project(folder, server, **cloud.env, DATABASE_FILE=str(file))
    path = f"cloudy{row['separator']}etl-source-token"

    project("-m", "ops", "apply", "--yes")
    assert "0 to create, 0 to update" in project("-m", "ops", "plan")
    assert "cloudy-warehouse: duckdb" in project("-m", "ops", "doctor", code=1)  # there is no worker

    missing = project("-c", PROBE, code=1)
    assert re.search(f"There is no secret etl-source-token: (aws|gcloud|az|vault) .* {path}", missing)
    cloud.keep(path, CANARY)
    assert f"******** has {len(CANARY)} characters" in project("-c", PROBE)
    cloud.keep(path, ROTATED)
    assert f"******** has {len(ROTATED)} characters" in project("-c", PROBE)

    job_variables = server("GET", "/work_pools/cloudy")["base_job_template"]["variables"]["properties"]
    deployed = job_variables["env"]["default"]
    project.env |= {name: value for name, value in deployed.items() if "STORAGE" in name}
    assert "Cached" not in project("-m", "flows.etl")
    if cloud.objects:
        assert any(name.startswith("cloudy/") for name in cloud.objects())
        project.env["PREFECT_HOME"] = str(tmp_path / "another-machine")
    assert "Finished in state Cached" in project("-m", "flows.etl")
    with duckdb.connect(str(file), read_only=True) as connection:
        assert connection.execute("SELECT count(*), sum(amount)::DOUBLE FROM orders").fetchone() == (6, 666.64)

    project("-m", "ops", "destroy", "--yes")
    told = "".join(project.told)
    assert CANARY not in told
    assert ROTATED not in told
    for path in [file for file in server.home.rglob("*") if file.is_file()]:
        assert ROTATED.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    "answers", ELSEWHERE, ids=lambda answers: f"{answers['database']}-{answers['secrets_backend']}"
)
def test_blocks_of_what_is_elsewhere_are_written_and_read_back(
    answers: Answers, render: Render, server: Server
) -> None:
    project = Project(render(f"with-{answers['database']}", **answers), server)
    project("-m", "ops", "apply", "--yes", "--only", "block")
    assert "0 to create, 0 to update" in project("-m", "ops", "plan", "--only", "block")
    same = project("-c", COMPARE)
    assert f"same: {project.folder.name}-warehouse" in same
    assert (f"same: {project.folder.name}-results" in same) == ("result_storage" in answers)
    project.env["DATABASE_USER"] = "somebody-else"
    changes = project("-m", "ops", "plan", "--only", "block", code=2 if answers["database"] != "bigquery" else 0)
    assert ("connection_info.username changes" in changes) == (answers["database"] != "bigquery")
    project("-m", "ops", "destroy", "--yes")
    assert CANARY not in "".join(project.told)
