"""The importer on what Airflow's own command line wrote; its other tests are in the generated project.

tests/data/airflow holds what apache-airflow 2.10.5 and 3.3.2 exported of the same entries, which were made up here. The
two wrote the same bytes, apart from the variables.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from answers import ROOT, Answers, Render
from checks import faults
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

EXPORTS = ROOT / "tests/data/airflow"
FORMS = ["connections.json", "connections.yaml", "connections.env", "connections_json.env"]
SECRETS = [
    "p@ss/w", "mysql-secret", "AKIAQ3", "aws/secret", "PRIVATE KEY", "YWNjb3VudGtleQ", "YWJj", "client-secret", "http:secret",
    "header-secret", "xoxb-token", "hooksecret", "snow-secret", "ftp-secret", "var-secret", "secretpw", "nested",
]  # fmt: skip
LACKING = ["prefect_slack", "prefect_snowflake", "pymysql"]  # the tests of tests/live install them

# Imports into one project after the other, then makes what was declared, as `make plan` does.
RUN = """
import importlib.util, json, os, runpy, sys
from pathlib import Path
from dotenv import dotenv_values
from ops.import_airflow import import_files

find = importlib.util.find_spec
lacking, jobs = json.loads(sys.argv[1])

def set_in(value):
    if not isinstance(value, dict):
        return value
    return {name: set_in(each) for name, each in value.items() if each is not None and name != "block_type_slug"}

answers = []
import ops.import_airflow as module
module.find_spec = lambda name: None if name in lacking else find(name)
for root, files in jobs:
    told = []
    code = import_files([Path(file) for file in files], "", told.append, Path(root))
    os.environ |= dotenv_values(Path(root, ".env"), interpolate=False)
    found = runpy.run_path(str(Path(root, "ops/imported.py")))
    made = {name: make(None) for name, make in found["BLOCKS"].items()}
    shown = {"mode": "json", "context": {"include_secrets": True}}
    answers.append({
        "code": code,
        "told": told,
        "blocks": {name: [type(block).__name__, set_in(block.model_dump(**shown))] for name, block in made.items()},
        "variables": {each.name: each.value for each in found["VARIABLES"]},
        "limits": {each.name: each.limit for each in found["LIMITS"]},
    })
print(json.dumps(answers))
"""


def imported(projects: dict[Path, list[Path]]) -> list[Answers]:
    """Import into each project its files; return what became of them."""
    jobs = [(str(project), [str(file) for file in files]) for project, files in projects.items()]
    command = [sys.executable, "-c", RUN, json.dumps((LACKING, jobs))]
    done = subprocess.run(command, cwd=next(iter(projects)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "hush" not in done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def fresh(render: Render) -> Path:
    return render(from_airflow=True)


@pytest.fixture(scope="module")
def every_form(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Answers]]:
    """A project for each form of the connections, each with the variables of one of the versions, too; their answers."""
    folder = tmp_path_factory.mktemp("forms")
    jobs = {}
    for number, form in enumerate(FORMS):
        project = shutil.copytree(fresh, folder / str(number))
        jobs[project] = [EXPORTS / name for name in (form, f"variables-{number % 2 + 2}.json", "pools.json")]
    return list(jobs), imported(jobs)


def test_every_form_of_every_version_gives_the_same(every_form: tuple[list[Path], list[Answers]]) -> None:
    projects, answers = every_form
    told = [answer["told"][:-1] for answer in answers]  # the last line names the files
    assert told == [told[0]] * len(FORMS)
    assert [answer | {"told": told} for answer in answers] == [answers[0] | {"told": told}] * len(FORMS)
    codes = [(project / "ops/imported.py").read_text("utf-8") for project in projects]
    assert "    # The warehouse\n" in codes[0]  # a description, which a URI does not hold
    assert "    # Said at the end\n" in codes[1]  # of a variable, which Airflow 2 does not export
    assert len({re.sub(r"(?m)^    # .*\n", "", code) for code in codes}) == 1
    assert len({(project / ".env").read_text("utf-8") for project in projects}) == 1


def test_what_is_written_is_clean_and_holds_no_secret(every_form: tuple[list[Path], list[Answers]]) -> None:
    projects, answers = every_form
    env = (projects[0] / ".env").read_text("utf-8")
    code = (projects[0] / "ops/imported.py").read_text("utf-8")
    assert [secret for secret in SECRETS if secret in code + "".join(answers[0]["told"])] == []
    (projects[0] / ".env").unlink()
    assert faults(projects[0]) == ""
    assert (projects[0] / ".env").write_text(env, "utf-8")


def test_connections_become_the_blocks_that_fit(every_form: tuple[list[Path], list[Answers]]) -> None:
    blocks = every_form[1][0]["blocks"]
    kind, warehouse = blocks["warehouse"]
    assert kind == "SqlAlchemyConnector"
    assert warehouse["connection_info"] == {
        "driver": "postgresql+psycopg",
        "username": "loader",
        "password": "p@ss/w'ord \\ $HOME ${X} #1",
        "database": "sales",
        "host": "db.example.com",
        "port": 5432,
    }
    assert warehouse["connect_args"] == {"sslmode": "require", "connect_timeout": 10}
    assert blocks["local-db"][1]["connection_info"] == {"driver": "sqlite+pysqlite", "database": "/data/local.db"}
    role = "arn:aws:iam::123456789012:role/etl"
    login = {"aws_access_key_id": "AKIAQ3EGVX5JW7TBN2OK", "aws_secret_access_key": "aws/secret+key"}
    assert blocks["aws-default"][0] == "AwsCredentials"
    assert blocks["aws-default"][1].items() >= (login | {"region_name": "eu-west-1", "assume_role_arn": role}).items()
    assert blocks["aws-role-only"][1]["region_name"] == "us-east-1"
    key = "AccountName=myaccount;AccountKey=YWNjb3VudGtleQ==;BlobEndpoint=https://myaccount.blob.core.windows.net"
    assert blocks["blobs"] == ["AzureBlobStorageCredentials", {"connection_string": key}]
    kind, hook = blocks["slack-hook"]
    assert (kind, hook["url"]) == ("SlackWebhook", "https://hooks.slack.com/services/T000/B000/hooksecret")


def test_others_become_secrets_with_their_fields(every_form: tuple[list[Path], list[Answers]]) -> None:
    _, (answer, *_) = every_form

    def fields(name: str) -> Any:
        kind, block = answer["blocks"][name]
        assert kind == "Secret"
        return json.loads(block["value"])

    assert fields("ftp-files") == {"host": "ftp.example.com", "login": "me", "password": "ftp-secret"}
    assert fields("bastion").keys() == {"host", "login", "port", "private_key", "no_host_key_check"}
    assert fields("azure-sp")["tenantId"] == "tenant-id"
    assert fields("plain-api") == {"base_url": "http://api.example.org:8080"}
    orders = {
        "base_url": "https://reader:http%3Asecret%40@api.example.com/v2",
        "headers": {"X-Api-Key": "header-secret"},
    }
    assert fields("orders-api") == orders
    assert fields("google")["project"] == "my-project"
    told = "\n".join(answer["told"])
    assert "! connection ftp.files: is of the type ftp, which has no block here" in told
    assert "! connection google: is refused by GcpCredentials: " in told


def test_variables_and_pools(every_form: tuple[list[Path], list[Answers]]) -> None:
    _, (answer, *_) = every_form
    assert answer["variables"] == {
        "sales_target_eu": 1.5,
        "batch_size": 500,
        "described": "hello",
        "farewell": "bye",
        "flag": True,
        "number_text": 123,
        "region": "eu",
        "tables": ["orders", "items"],
        "thresholds": {"eu": 0.5, "us": 1},
    }
    assert {"crm-api-key", "db-url", "dict-with-secret"} <= answer["blocks"].keys()
    assert answer["limits"] == {"api calls": 10, "closed": 0, "warehouse": 4}


def test_what_needs_a_package_waits_for_it(every_form: tuple[list[Path], list[Answers]]) -> None:
    _, (answer, *_) = every_form
    assert answer["code"] == 2
    told = "\n".join(answer["told"])
    assert "- left out, as prefect-snowflake is not installed: connection snow" in told
    assert "uv add pymysql prefect-slack prefect-snowflake    # then this command again" in told
    assert not {"snow", "slack", "shop-mysql"} & answer["blocks"].keys()


def entry(kind: str, extra: Answers | None = None, key: str = "", **fields: str) -> Answers:
    return {"conn_type": kind, "extra": json.dumps(extra or {}), "password": key, **fields}


def test_other_ways_to_log_in(fresh: Path, tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {
        "type": "service_account",
        "project_id": "p",
        "private_key": pem,
        "client_email": "x@p.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    connections = {
        "gcp": entry("google_cloud_platform", {"project": "p", "keyfile_dict": json.dumps(account), "num_retries": 5}),
        "gcp_old": entry("google-cloud-platform", {"extra__google_cloud_platform__keyfile_dict": json.dumps(account)}),
        "sas": entry("wasb", {"sas_token": "sig=hush"}, login="acc"),
        "sas_url": entry("wasb", {"sas_token": "https://acc.blob.core.windows.net/?sig=hush"}),
        "blobs_gov": entry("wasb", host="https://acc.blob.core.usgovcloudapi.net", key="aHVzaA=="),
        "azurite": entry("wasb", host="http://127.0.0.1:10000/devstoreaccount1", key="aHVzaA=="),
        "nowhere": entry("wasb", key="aHVzaA=="),
        "principal": entry("wasb", {"tenant_id": "t"}, host="https://acc.blob.core.windows.net", login="c", key="p"),
        "minio": entry("aws", {"endpoint_url": "http://minio:9000", "verify": False}, login="k", key="s"),
        "session": entry("aws", {"aws_session_token": "hush"}, login="k", key="s"),
        "external": entry("aws", {"role_arn": "arn:aws:iam::1:role/r", "external_id": "e"}),
        "iam": entry(
            "postgresql", {"iam": True, "sqlalchemy_scheme": "s", "sslpassword": "hush"}, host="db", login="me"
        ),
        "hook": entry("slackwebhook", key="https://hooks.slack.com/services/T/B/x"),
        "hook_old": entry("slackwebhook", {"webhook_token": "https://hooks.slack.com/services/T/B/x"}),
        "hook_host": entry("slackwebhook", host="https://hooks.slack.com/services/T/B/x"),
        "hook_bad": entry("slackwebhook", key="hush", host="https://hooks.slack.com/services"),
        "insecure": entry("http", {"verify": False, "timeout": 5, "proxies": {"https": "p"}}, host="h", schema="https"),
    }
    export = tmp_path / "export.json"
    export.write_text(json.dumps(connections), "utf-8")
    project = shutil.copytree(fresh, tmp_path / "my-flows")
    (answer,) = imported({project: [export]})
    told, blocks = "\n".join(answer["told"]), answer["blocks"]
    assert blocks["gcp"] == ["GcpCredentials", {"project": "p", "service_account_info": account}]
    assert blocks["gcp-old"] == blocks["gcp"]
    assert "! connection gcp: extra.num_retries has no place in GcpCredentials" in told
    sas = "BlobEndpoint=https://acc.blob.core.windows.net;SharedAccessSignature=sig=hush"
    assert blocks["sas"][1] == {"connection_string": sas}
    assert blocks["sas-url"] == blocks["sas"]
    gov = "AccountName=acc;AccountKey=aHVzaA==;BlobEndpoint=https://acc.blob.core.usgovcloudapi.net"
    assert blocks["blobs-gov"][1] == {"connection_string": gov}
    azurite = "AccountName=devstoreaccount1;AccountKey=aHVzaA==;BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1"
    assert blocks["azurite"][1] == {"connection_string": azurite}
    assert blocks["nowhere"][0] == "Secret"
    assert blocks["principal"][1]["client_secret"] == "p"
    assert blocks["minio"][1]["aws_client_parameters"]["endpoint_url"] == "http://minio:9000"
    assert "! connection minio: extra.verify has no place in AwsCredentials" in told
    assert blocks["session"][1]["aws_session_token"] == "hush"
    assert blocks["external"][1]["assume_role_kwargs"]["ExternalId"] == "e"
    assert "! connection iam: extra.iam has no place in SqlAlchemyConnector" in told
    assert "! connection iam: extra.sqlalchemy_scheme has no place in SqlAlchemyConnector" in told
    assert "connect_args" not in blocks["iam"][1]
    assert "! connection iam: extra.sslpassword has no place in SqlAlchemyConnector" in told
    assert blocks["hook"][0] == "SlackWebhook"
    assert blocks["hook-old"] == blocks["hook-host"] == blocks["hook"]
    assert blocks["hook-bad"][0] == "Secret"
    assert "! connection hook_bad: is refused by SlackWebhook: nothing can be sent to that address" in told
    assert json.loads(blocks["insecure"][1]["value"]) == {"base_url": "https://h", "verify": False, "timeout": 5}
    assert "hush" not in told
    assert (project / "ops/imported.py").read_text("utf-8").count("hush") == 0
