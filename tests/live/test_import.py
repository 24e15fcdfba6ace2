"""What Airflow exported comes into a project, applies to a real server, and flows load the blocks."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from ops_server import AUTH, SETTINGS, Server

from demo import TEMPLATE, render

pytestmark = [pytest.mark.live, pytest.mark.slow]

EXPORTS = [TEMPLATE / "tests/data/airflow" / name for name in ("connections.yaml", "variables-3.json", "pools.json")]
LOAD = """
import json
import httpx
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.variables import Variable
with get_client(sync_client=True) as client:
    found = client.request("POST", "/block_documents/filter", json={}).json()
    limits = client.request("POST", "/v2/concurrency_limits/filter", json={}).json()
names = [f"{one['block_type']['slug']}/{one['name']}" for one in found]
blocks = {name.split("/")[1]: Block.load(name) for name in names}
with httpx.Client(**blocks["orders-api"].get()) as orders:
    request = orders.build_request("GET", "/orders")
print(json.dumps({
    "types": {name: type(block).__name__ for name, block in blocks.items()},
    "warehouse": blocks["warehouse"].get_engine().url.render_as_string(hide_password=False),
    "snow": [blocks["snow"].schema_, blocks["snow"].credentials.password.get_secret_value()],
    "orders": [str(request.url), request.headers["x-api-key"]],
    "bastion": blocks["bastion"].get()["private_key"],
    "tables": Variable.get("tables"),
    "limits": {one["name"]: one["limit"] for one in limits},
}))
"""


@pytest.fixture(scope="module")
def project(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("airflow") / "from-airflow"
    render(folder, "from_airflow=yes")
    subprocess.run(["make", "--silent", ".venv/.synced"], cwd=folder, env=env, check=True)
    return folder


def test_an_import_applies_and_its_blocks_load(project: Path, env: dict[str, str], server: Server) -> None:
    here = env | SETTINGS | {"PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": AUTH}

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        python = project / ".venv/bin/python"
        return subprocess.run([python, *command], cwd=project, env=here, capture_output=True, text=True)

    first = run("-m", "ops", "import-airflow", *EXPORTS)
    assert first.returncode == 2, first.stderr
    told = re.search(r"^Next: (\S+ add .*?)    #", first.stdout, re.MULTILINE)
    assert told, first.stdout
    subprocess.run(["bash", "-ec", told[1]], cwd=project, env=env, check=True, capture_output=True)
    second = run("-m", "ops", "import-airflow", *EXPORTS)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "left out, as" not in second.stdout

    checked = subprocess.run(["make", "--silent", "lint"], cwd=project, env=env, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    applied = run("-m", "ops", "apply", "--yes")
    assert applied.returncode == 0, applied.stdout + applied.stderr
    plan = run("-m", "ops", "plan")
    assert plan.returncode == 0, plan.stdout + plan.stderr

    loaded = run("-c", LOAD)
    assert loaded.returncode == 0, loaded.stderr
    found = json.loads(loaded.stdout.splitlines()[-1])
    assert (
        found["types"].items()
        >= {
            "warehouse": "SqlAlchemyConnector",
            "shop-mysql": "SqlAlchemyConnector",
            "local-db": "SqlAlchemyConnector",
            "aws-default": "AwsCredentials",
            "blobs": "AzureBlobStorageCredentials",
            "slack": "SlackCredentials",
            "slack-hook": "SlackWebhook",
            "snow": "SnowflakeConnector",
            "google": "Secret",  # its key is none, so Prefect refuses the block that would fit
            "crm-api-key": "Secret",
        }.items()
    )
    assert found["warehouse"].startswith("postgresql+psycopg://loader:p%40ss%2Fw%27ord")
    assert found["snow"] == ["PUBLIC", "snow-secret"]
    assert found["orders"] == ["https://reader:http%3Asecret%40@api.example.com/v2/orders", "header-secret"]
    assert found["bastion"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert found["tables"] == ["orders", "items"]
    assert found["limits"].items() >= {"api calls": 10, "closed": 0, "warehouse": 4}.items()
    printed = first.stdout + second.stdout + applied.stdout + plan.stdout
    assert [each for each in ("p@ss", "mysql-", "snow-s", "header-s", "hooksecret", "PRIVATE") if each in printed] == []
