"""`ops import-airflow`: code that names secrets and holds none, and a line for each thing that does not fit."""

import json
import runpy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values

from ops.import_airflow import Connection, import_files, mysql, snowflake
from ops.settings import OpsError

EMPTY = '''\
"""Nothing yet."""

from collections.abc import Callable

BLOCKS: dict[str, Callable] = {}
VARIABLES: list = []
LIMITS: list = []
'''
CONNECTIONS = {
    "Test.API": {
        "conn_type": "http",
        "host": "https://example.com/v2",
        "login": "me",
        "password": "hush:hush",  # pragma: allowlist secret
        "extra": "{}",
    },
    "test_ftp": {"conn_type": "ftp", "host": "example.com", "password": "it's \\ hush-hush", "port": 21, "extra": None},
}
VARIABLES = {"test_size": 500, "test_token": "hush-hush", "Test Region": "eu", "test_none": None}
POOLS = {
    "test_pool": {"slots": 4, "description": "Loads at once", "include_deferred": True},
    "default_pool": {"slots": 128, "description": "", "include_deferred": False},
    "test_free": {"slots": -1},
}


@dataclass
class Importer:
    """A folder with an empty ops/imported.py, and what the last import told."""

    root: Path
    told: list[str] = field(default_factory=list)

    def __call__(self, content: Any, name: str = "export.json", kind: str = "") -> int:
        file = self.root / name
        file.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        self.told.clear()
        return import_files([file], kind, self.told.append, self.root)

    @property
    def code(self) -> str:
        return (self.root / "ops/imported.py").read_text("utf-8")

    @property
    def env(self) -> dict[str, str | None]:
        return dotenv_values(self.root / ".env", interpolate=False)

    def tells(self, text: str) -> bool:
        return any(text in line for line in self.told)


@pytest.fixture
def run(tmp_path: Path) -> Importer:
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops/imported.py").write_text(EMPTY, "utf-8")
    return Importer(tmp_path)


def test_each_kind_is_recognised_and_declared(run: Importer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [run(each) for each in (CONNECTIONS, VARIABLES, POOLS)] == [0, 0, 0]
    assert run.tells("pool default_pool holds every task")
    assert run.tells("pool test_free has no limit")
    assert run.tells("pool test_pool: include_deferred has no equivalent")
    for name, value in run.env.items():
        monkeypatch.setenv(name, value or "")
    made = runpy.run_path(str(run.root / "ops/imported.py"))
    blocks = {name: make(None) for name, make in made["BLOCKS"].items()}
    assert blocks["test-api"].get() == {"base_url": "https://me:hush%3Ahush@example.com/v2"}  # pragma: allowlist secret
    assert blocks["test-ftp"].get() == {"host": "example.com", "password": "it's \\ hush-hush", "port": 21}
    assert blocks["test-token"].get() == "hush-hush"
    assert {each.name: each.value for each in made["VARIABLES"]} == {"test_size": 500, "test_region": "eu"}
    assert [(each.name, each.limit) for each in made["LIMITS"]] == [("test_pool", 4)]
    assert "# Loads at once\n" in run.code


def test_secrets_go_to_env_only(run: Importer) -> None:
    for each in (CONNECTIONS, VARIABLES):
        run(each)
        assert not run.tells("hush")
    assert "hush" not in run.code
    assert (run.root / ".env").stat().st_mode & 0o777 == 0o600
    assert json.loads(run.env["IMPORTED_TEST_FTP"] or "").get("password") == "it's \\ hush-hush"
    assert run.env.get("IMPORTED_VAR_TEST_TOKEN") == "hush-hush"


def test_a_second_import_changes_nothing(run: Importer) -> None:
    def contents() -> list[str]:
        for each in (CONNECTIONS, VARIABLES, POOLS):
            run(each)
        return [run.code, (run.root / ".env").read_text("utf-8")]

    assert contents() == contents()
    assert run.tells("0 declared in ops/imported.py, 1 there already, 0 left out")


def test_what_was_changed_by_hand_stays(run: Importer) -> None:
    (run.root / ".env").write_text("MINE=1\nIMPORTED_VAR_TEST_TOKEN=mine", "utf-8")
    run({"test_size": 500})
    file = run.root / "ops/imported.py"
    file.write_text(run.code.replace("500)", "7)  # mine").replace("LIMITS", "# mine, too\nLIMITS"), "utf-8")
    assert run(VARIABLES) == 0
    assert run.tells("variable test_size is declared already, in another way, and stays as it is")
    assert run.tells("IMPORTED_VAR_TEST_TOKEN has another value in .env, which stays")
    assert "value=7)" in run.code
    assert run.code.count("# mine") == 2
    assert 'name="test_region"' in run.code
    assert run.env == {"MINE": "1", "IMPORTED_VAR_TEST_TOKEN": "mine"}


@pytest.mark.parametrize(
    ("kind", "entry", "told"),
    [
        ("connections", {"host": "hush-hush"}, "has no conn_type"),
        ("connections", {"conn_type": "ftp", "port": "hush-hush"}, "has a port that is no number"),
        ("connections", ["hush-hush"], "has no conn_type"),
        ("connections", "{hush-hush", "is neither JSON nor a URI"),
        ("connections", "http://[hush-hush", "is no URI that can be read"),
        ("pools", {"slots": "hush-hush"}, "has no whole number of slots"),
        ("pools", {"slots": True}, "has no whole number of slots"),
        ("variables", "hush-hush" * 1000, "is refused by VariableCreate"),
        ("variables", [{"a": float("nan")}], "holds NaN, Infinity or a date"),
        ("connections", {"conn_type": "ftp", "extra": {"a": float("nan")}}, "holds NaN, Infinity or a date"),
        ("connections", {"conn_type": "http", "host": "hush-hush:84x43"}, "has a host that is no address"),
    ],
)
def test_a_bad_entry_is_named_and_the_rest_goes_on(run: Importer, kind: str, entry: Any, told: str) -> None:
    good = {"connections": CONNECTIONS["test_ftp"], "pools": POOLS["test_pool"], "variables": 1}[kind]
    assert run({"bad.one": entry, "test_good": good}, kind=kind) == 2
    assert run.tells(f"left out: {kind[:-1]} bad.one {told}")
    assert run.tells("1 declared in ops/imported.py, 0 there already, 1 left out")
    assert not run.tells("hush")


@pytest.mark.parametrize(
    ("kind", "entry"), [("connections", CONNECTIONS["test_ftp"]), ("pools", POOLS["test_pool"]), ("variables", 1)]
)
def test_a_name_of_which_nothing_is_left_is_told(run: Importer, kind: str, entry: Any) -> None:
    id = "" if kind == "pools" else "日本"
    assert run({id: entry}, kind=kind) == 2
    assert run.tells(f"{kind[:-1]} {id} has no letter a-z and no digit in its name")
    assert run.code == EMPTY


def test_two_entries_of_one_name_are_told(run: Importer) -> None:
    assert run({"test-a": CONNECTIONS["test_ftp"], "test_a": CONNECTIONS["test_ftp"]}) == 2
    assert run.tells("connection test_a would have the name of connection test-a")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", "hush-hush", "must end in .json, .yaml or .env"),
        ("a.json", '{"a": hush-hush', "line 1 is no JSON"),
        ("a.yaml", "a: [hush-hush", "is no YAML"),
        ("a.json", [{"conn_id": "hush-hush"}], "is no export"),
        ("a.json", {"a": CONNECTIONS["test_ftp"], "b": "hush-hush"}, "say so with --as"),
        ("a.env", "a=ftp://hush-hush@b\nb=hush-hush", "say so with --as"),
        ("connections.json", {"a": "ftp://hush-hush@b"}, "say so with --as"),
        ("a.env", 'a=b\n\nc=\'{\n"hush": "hush=hush",\n}', "line 3 is no NAME=value"),
        ("a.env", 'a=b\n"hush": "hush=hush"', "line 2 is no NAME=value"),
    ],
)
def test_a_file_that_cannot_be_used_stops_everything(run: Importer, name: str, content: Any, told: str) -> None:
    with pytest.raises(OpsError) as error:
        run(content, name)
    assert told in str(error.value)
    assert "hush" not in str(error.value)
    assert run.code == EMPTY
    assert not (run.root / ".env").exists()


def test_env_files_in_both_of_their_forms(run: Importer) -> None:
    lines = [
        "# comment",
        "test_uri=ftp://me:p%2Fw@example.com:21/folder?passive=yes",  # pragma: allowlist secret
        'test_json={"conn_type": "ftp", "host": "example.com", "login": "a \' #b"}',
        "test_v6=ftp://[::1]:21",
    ]
    assert run("\n".join(lines), "export.env") == 0
    place = {"host": "example.com", "schema": "folder", "port": 21, "passive": "yes"}
    login = {"login": "me", "password": "p/w"}  # pragma: allowlist secret
    assert json.loads(run.env["IMPORTED_TEST_URI"] or "") == place | login
    assert json.loads(run.env["IMPORTED_TEST_JSON"] or "") == {"host": "example.com", "login": "a ' #b"}
    assert json.loads(run.env["IMPORTED_TEST_V6"] or "") == {"host": "[::1]", "port": 21}


def test_of_an_environment_only_connections_and_variables_are_read(run: Importer) -> None:
    lines = [
        "AIRFLOW_UID=50000",
        "AIRFLOW__CELERY__FLOWER_BASIC_AUTH=admin:hush-hush",
        "PG=postgres://hush-hush@db",
        "export AIRFLOW_CONN_TEST_PREFIX='ftp://example.com'  # comment",
        "export AIRFLOW_CONN_TEST_LINES='{",
        '  "conn_type": "ftp",',
        '  "password": "hush=hush"',  # pragma: allowlist secret
        "}'",
        'AIRFLOW_CONN_TEST_QUOTED="{\\"conn_type\\": \\"ftp\\", \\"host\\": \\"example.com\\"}"',
        "AIRFLOW_VAR_TEST_SIZE=500",
        "AIRFLOW_VAR_TEST_EMPTY=",
    ]
    assert run("\n".join(lines), "export.env") == 0
    assert json.loads(run.env["IMPORTED_TEST_LINES"] or "") == {"password": "hush=hush"}  # pragma: allowlist secret
    assert json.loads(run.env["IMPORTED_TEST_QUOTED"] or "") == {"host": "example.com"}
    names = {line.rpartition(" ")[2] for line in run.told if line.startswith("+")}
    assert names == {"test-prefix", "test-lines", "test-quoted", "test_size", "test_empty"}
    assert run.tells("! settings whose names begin with neither AIRFLOW_CONN_ nor AIRFLOW_VAR_ are left out: 3")
    assert 'VariableCreate(name="test_size", value="500")' in run.code
    assert "hush" not in run.code + "".join(run.told)


def test_dates_of_yaml_are_told(run: Importer) -> None:
    text = "test_day: {first: 2026-01-01}\ntest_token: 2026-01-01\ntest_size: 1\n"
    assert run(text, "variables.yaml") == 2
    assert run.tells("left out: variable test_day holds NaN, Infinity or a date")
    assert run.tells("left out: variable test_token holds NaN, Infinity or a date")
    assert "datetime" not in run.code


def test_json_in_text_can_be_a_secret(run: Importer) -> None:
    text = '{"user": "u", "password": "hush-hush"}'  # pragma: allowlist secret
    assert run({"test_db": text, "test_text": "{no JSON"}) == 0
    assert "hush" not in run.code
    assert "hush-hush" in (run.env["IMPORTED_VAR_TEST_DB"] or "")
    assert 'name="test_text"' in run.code


def test_only_the_owner_can_read_an_env_file_that_was_there(run: Importer) -> None:
    (run.root / ".env").write_text("MINE=1\n", "utf-8")
    (run.root / ".env").chmod(0o644)
    run({"test_token": "hush-hush"})
    assert (run.root / ".env").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({"host": "https://example.com/v1?key=hush"}, {"base_url": "https://example.com/v1", "params": "key=hush"}),
        ({"host": "https://me@example.com"}, {"base_url": "https://me@example.com"}),
        ({"host": "http://[::1]:8080"}, {"base_url": "http://[::1]:8080"}),
        ({"host": "[::1]", "port": 80, "login": "me"}, {"base_url": "http://me:@[::1]:80"}),
        ({"host": "h", "extra": {"verify_ssl": False}}, {"base_url": "http://h", "verify": False}),
    ],
)
def test_http_connections_keep_their_address(run: Importer, fields: Any, arguments: Any) -> None:
    assert run({"test_api": {"conn_type": "http", **fields}}) == 0
    assert json.loads(run.env["IMPORTED_TEST_API"] or "") == arguments


def test_a_snowflake_key_in_text_stays_with_its_passphrase(run: Importer) -> None:
    extra = {"account": "a", "private_key_content": "hush-hush"}  # pragma: allowlist secret
    login = {"login": "me", "password": "hush"}  # pragma: allowlist secret
    assert run({"test_snow": {"conn_type": "snowflake", **login, "extra": extra}}) == 0
    assert json.loads(run.env["IMPORTED_TEST_SNOW"] or "") == login | extra
    assert run.tells("test_snow: extra.private_key_content has no place in SnowflakeCredentials; Secret.load(")


def test_an_argument_is_right_where_its_block_is_not_installed() -> None:
    new = snowflake(Connection("test", {"conn_type": "snowflake", "extra": {"region": "eu-west-1"}}))
    assert "account" not in new.given()
    new = mysql(Connection("test", {"conn_type": "mysql", "extra": {"ssl": '{"ca": "/ca.pem"}'}}))
    assert new.given()["connect_args"] == {"ssl": {"ca": "/ca.pem"}}
