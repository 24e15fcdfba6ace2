"""Where secrets are kept is no business of a flow; each store is asked as it wants to be."""

import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from answers import CHOICES, DEFAULTS, Render
from checks import contents
from hvac.exceptions import Forbidden, InvalidPath
from requests import ConnectionError

STORES = DEFAULTS["secrets"]
RIGHT, WRONG = "right-token", "wrong-canary"


def test_no_flow_depends_on_the_store(render: Render) -> None:
    def flows(store: str, **answers: str) -> dict[str, bytes]:
        cloud = STORES[store]["clouds"][0]
        pool = "process"  # runs of it can have every kind of secret
        found = contents(render(secrets_backend=store, cloud_provider=cloud, pool_type=pool, **answers))
        return {name: content for name, content in found.items() if name.startswith("flows/") or "test_etl" in name}

    for database in ("none", "postgresql"):  # tests/test_databases.py: the others have the same flow
        first, *others = (flows(store, database=database) for store in CHOICES["secrets_backend"])
        assert "flows/etl.py" in first
        assert all(other == first for other in others)


def test_no_flow_depends_on_where_results_are_kept(render: Render) -> None:
    def flows(storage: str) -> dict[str, bytes]:
        cloud = DEFAULTS["storages"][storage]["clouds"][0]
        found = contents(render(result_storage=storage, cloud_provider=cloud))
        return {name: content for name, content in found.items() if name.startswith("flows/")}

    first, *others = (flows(storage) for storage in CHOICES["result_storage"])
    assert all(other == first for other in others)


@pytest.mark.parametrize("store", CHOICES["secrets_backend"])
def test_the_readme_says_how_to_keep_what_flows_read(store: str, render: Render) -> None:
    row = STORES[store]
    project = render(secrets_backend=store, cloud_provider=row["clouds"][0], database="postgresql")
    readme, example = ((project / name).read_text("utf-8") for name in ("README.md", ".env.example"))
    for name in ("etl-source-token", "database-password"):
        if "create" in row:
            assert f"\n$ {row['create']}\n".replace("{path}", f"my-flows{row['separator']}{name}") in readme
        else:
            assert f"{name.upper().replace('-', '_')}=\n" in example
    needed = [*row.get("settings", {}), *(["database-password"] if "create" in row else [])]
    assert all(f"`{name}`" in readme.split("## What lies where")[0] for name in needed)


@pytest.mark.parametrize(
    ("question", "choice", "cloud"),
    [
        *(("secrets_backend", name, row["clouds"][0]) for name, row in STORES.items()),
        *(("result_storage", name, row["clouds"][0]) for name, row in DEFAULTS["storages"].items()),
    ],
)
def test_projects_on_one_server_share_no_block(question: str, choice: str, cloud: str, render: Render) -> None:
    """But for the secrets of flows, whose names are the flows' own."""
    project = render(cloud_provider=cloud, database="duckdb", from_airflow=True, **{question: choice})
    with imported(project, "ops.blocks") as blocks:
        shared = [name for name in blocks.BLOCKS if not name.startswith("my-flows-")]
    assert len(blocks.BLOCKS) > len(shared)
    assert shared == [name for name in ("etl-source-token",) if name in blocks.BLOCKS]
    for file in (project / "runtime").glob("*.py"):
        loaded = re.findall(r'\.load\("([^"]+)"', file.read_text("utf-8"))
        assert [name for name in loaded if name not in blocks.BLOCKS] == []


# --- HashiCorp Vault, over HTTP ----------------------------------------------------------------------


@contextmanager
def imported(project: Path, name: str) -> Iterator[ModuleType]:
    sys.path.insert(0, str(project))
    try:
        yield import_module(name)
    finally:
        sys.path.remove(str(project))
        for name in [name for name in sys.modules if name.split(".")[0] in ("flows", "ops", "runtime")]:
            del sys.modules[name]


@pytest.fixture
def vault() -> Iterator[ThreadingHTTPServer]:
    """Answers as Vault does, for the right token and for one service account."""

    class Vault(BaseHTTPRequestHandler):
        def answer(self, status: int, body: dict[str, Any]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_POST(self) -> None:
            given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            right = (self.path, given) == ("/v1/auth/kubernetes/login", {"role": "my-flows", "jwt": "account"})
            self.answer(200 if right else 403, {"auth": {"client_token": RIGHT}} if right else {"errors": ["denied"]})

        def do_GET(self) -> None:
            if self.headers.get("X-Vault-Token") != RIGHT:
                self.answer(403, {"errors": ["permission denied"]})
            elif self.path == "/v1/secret/data/my-flows/etl-source-token":
                self.answer(200, {"data": {"data": {"value": "hush-hush"}, "metadata": {"version": 1}}})
            elif self.path == "/v1/secret/data/my-flows/other-field":
                self.answer(200, {"data": {"data": {"token": "hush-hush"}, "metadata": {"version": 1}}})
            else:
                self.answer(404, {"errors": []})

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Vault)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("pool", ["docker", "kubernetes"])
def test_the_readme_says_how_runs_log_in_to_vault(pool: str, render: Render) -> None:
    project = render(pool_type=pool, secrets_backend="vault")
    section = (project / "README.md").read_text("utf-8").partition("## Secrets\n")[2].partition("\n## ")[0]
    assert "`secret/data/my-flows/*`" in section
    assert ("`FLOWS_VAULT_TOKEN`" in section) == (pool == "docker")
    assert ("role `my-flows`" in section) == (pool == "kubernetes")


def test_vault_is_asked_with_a_token_or_a_service_account(
    render: Render, vault: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where somebody's token may lie
    monkeypatch.delenv("VAULT_TOKEN", raising=False)
    address = f"http://127.0.0.1:{vault.server_port}"
    with imported(render(secrets_backend="vault"), "runtime.secrets") as secrets:
        path = "my-flows/etl-source-token"
        assert secrets.Vault(address=address, token=RIGHT).get(path) == "hush-hush"
        with pytest.raises(InvalidPath):
            secrets.Vault(address=address, token=RIGHT).get("my-flows/no-such-key")
        with pytest.raises(Forbidden) as refused:
            secrets.Vault(address=address, token=WRONG).get(path)
        assert WRONG not in str(refused.value)

        monkeypatch.setattr(secrets, "IDENTITY", tmp_path / "token")
        (tmp_path / "token").write_text("account")
        assert secrets.Vault(address=address).get(path) == "hush-hush"
        (tmp_path / "token").write_text("another account")
        with pytest.raises(Forbidden):
            secrets.Vault(address=address).get(path)

        monkeypatch.setattr(secrets.Vault, "load", lambda *_, **__: secrets.Vault(address=address, token=RIGHT))
        monkeypatch.setattr(secrets, "IDENTITY", tmp_path / "none")
        assert secrets.read_secret("etl-source-token").get_secret_value() == "hush-hush"
        for name in ("no-such-key", "other-field"):
            with pytest.raises(secrets.MissingSecret, match=f"vault kv put -mount=secret my-flows/{name} value="):
                secrets.read_secret(name)


def test_vault_that_does_not_answer_is_told_soon(render: Render) -> None:
    with imported(render(secrets_backend="vault"), "runtime.secrets") as secrets, pytest.raises(ConnectionError):
        secrets.Vault(address="http://127.0.0.1:9", token=RIGHT).get("my-flows/etl-source-token")
