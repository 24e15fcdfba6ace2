"""What only Prefect Cloud has, on a stand-in: a real server behind an address like Cloud's, which takes SLAs and sends mail."""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from ops_server import SETTINGS, Server, run_ops
from receiver import Receiver

from demo import render

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
CHANNELS = yaml.safe_load((ROOT / "data/channels.yml").read_text("utf-8"))
KINDS = yaml.safe_load((ROOT / "data/alerts.yml").read_text("utf-8"))
WORKSPACE = f"/api/accounts/{'0' * 8}-0000-4000-8000-{'0' * 12}/workspaces/{'1' * 8}-0000-4000-8000-{'0' * 12}"
SLAS = r"/slas/apply-resource-slas/prefect\.deployment\.([0-9a-f-]{36})"
MAIL = "send-email-notification"  # Cloud's own action, which a server refuses
KEY = "pnu_of_the_tests"


class Cloud:
    """The stand-in.

    Attributes:
        slas: id of a deployment -> name -> the SLA, as it was given
        writes: how often SLAs were given
        fault: the status with which it answers instead
        receivers: id of a block that Cloud made for an action -> whom the action sends mail to
        env: the settings of a client
    """

    def __init__(self, server: Server) -> None:
        self.slas: dict[str, dict[str, dict[str, Any]]] = {}
        self.writes = self.fault = 0
        self.receivers: dict[str, list[str]] = {}
        cloud = self

        class Http(BaseHTTPRequestHandler):
            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.removeprefix(WORKSPACE)
                status, body = cloud.take(path, content), b'{"detail": "not now"}'
                if self.headers["Authorization"] != f"Bearer {KEY}" or not self.path.startswith(WORKSPACE):
                    status = 401
                elif not status:
                    done = server.client.request(
                        self.command,
                        server.url + path,
                        content=of_each_action(cloud.without_mail, path, content),
                        headers={"Content-Type": "application/json"},
                    )
                    status, body = done.status_code, of_each_action(cloud.with_mail, path, done.content)
                elif status == 201:
                    body = b'{"created": [], "updated": [], "deleted": []}'
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Http)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{self.http.server_port}"
        self.env = {
            "PREFECT_CLOUD_API_URL": f"{address}/api",
            "PREFECT_API_URL": address + WORKSPACE,
            "PREFECT_API_KEY": KEY,
        }

    def take(self, path: str, content: bytes) -> int:
        """Take SLAs and return the status; 0 when the request is about something else that a server may be asked."""
        if path.startswith("/automations"):
            return 0 if all(map(well_formed, json.loads(content or "{}").get("actions", []))) else 422
        if not path.startswith("/slas"):
            return 0
        if self.fault:
            return self.fault
        if not (found := re.fullmatch(SLAS, path)):
            return 404
        given = json.loads(content)
        if any(one["owner_resource"] != f"prefect.deployment.{found[1]}" for one in given):
            return 422
        self.writes += 1
        self.slas[found[1]] = {one["name"]: one for one in given}
        return 201

    def without_mail(self, action: dict[str, Any]) -> dict[str, Any]:
        """Return what the server keeps in the place of an action: of one that sends mail, all but its receivers."""
        if action["type"] != MAIL:
            return action
        block = str(uuid4())
        self.receivers[block] = action["emails"]
        kept = {name: action[name] for name in ("subject", "body")}
        return kept | {"type": "send-notification", "block_document_id": block}

    def with_mail(self, action: dict[str, Any]) -> dict[str, Any]:
        """Return an action as Cloud tells it: mail with the id of a block that nobody declared."""
        if receivers := self.receivers.get(action.get("block_document_id", "")):
            return action | {"type": MAIL, "emails": receivers}
        return action


def well_formed(action: dict[str, Any]) -> bool:
    """Tell whether an action, if it sends mail, has the fields that Cloud asks for and no other."""
    if action["type"] != MAIL:
        return True
    fields = action.keys() == {"type", "emails", "subject", "body"}
    return fields and bool(action["emails"]) and all(re.fullmatch(r"[^@\s]+@[^@\s]+", one) for one in action["emails"])


def of_each_action(change: Callable[[dict[str, Any]], dict[str, Any]], path: str, content: bytes) -> bytes:
    """Return what is sent or answered, in which each action of an automation is changed."""
    if not path.startswith("/automations") or not content:
        return content
    found = json.loads(content)
    for automation in found if isinstance(found, list) else [found]:
        if "actions" in automation:
            automation["actions"] = [change(action) for action in automation["actions"]]
    return json.dumps(found).encode()


class Project:
    """A project for Prefect Cloud with every alert on every channel."""

    def __init__(self, folder: Path, server: Server, cloud: Cloud) -> None:
        self.folder, self.server, self.cloud = folder, server, cloud
        self.env = {name: value for name, value in server.env.items() if not name.startswith(("PREFECT_", "SLA_"))}
        receiver = Receiver()
        receiver.start()
        self.env |= (
            SETTINGS | receiver.settings() | cloud.env | {"PREFECT_HOME": str(server.home), "CLOUD_SLAS": "true"}
        )

    def ops(self, *command: str, code: int = 0, **env: str) -> str:
        done = run_ops(self.folder, self.env | env, *command)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def tag(self, before: str, after: str) -> None:
        file = self.folder / "prefect.yaml"
        assert before in file.read_text()
        file.write_text(file.read_text().replace(before, after))

    def slas(self, name: str) -> dict[str, Any]:
        """Return what Cloud watches of a deployment: the field that says it -> its value."""
        given = self.cloud.slas[self.server("GET", f"/deployments/name/{name}")["id"]]
        return {field: one[field] for field, one in given.items()}


@pytest.fixture
def cloud_project(project: Path, server: Server, tmp_path: Path) -> Project:
    folder = tmp_path / "my-flows"
    lists = f"alert_channels=[{', '.join(CHANNELS)}]", f"alert_on=[{', '.join(KINDS)}]"
    render(folder, "project_name=My Flows", "prefect_backend=cloud", *lists)
    (folder / ".venv").symlink_to((project / ".venv").resolve())
    return Project(folder, server, Cloud(server))


def test_deployments_get_the_slas_of_prefect_cloud(cloud_project: Project) -> None:
    project, cloud = cloud_project, cloud_project.cloud
    cloud.fault = 500
    failed = project.ops("apply", "--yes", code=1)
    assert "answers 500 to POST /api/accounts/" in failed
    assert not cloud.slas
    cloud.fault = 0
    assert "cloud-sla:duration=3600" in project.ops("plan", code=2), "a deployment is there, and its SLAs are not yet"
    project.ops("apply", "--yes")
    daily = {"duration": 3600, "within": 600, "stale_after": 26 * 3600}
    assert (project.slas("etl/etl-daily"), project.slas("ml-training/ml-training")["stale_after"]) == (daily, 8 * 86400)

    writes = cloud.writes
    project.ops("check")
    assert "0 written" in project.ops("apply", "--yes")
    assert cloud.writes == writes, "nothing has changed"

    project.tag('tags: [etl, daily, "fresh:26h"]', 'tags: [etl, daily, "sla:2h"]')
    assert "cloud-sla:duration=7200" in project.ops("plan", code=2)
    assert "2 written" in project.ops("apply", "--yes"), "the automation of this limit, too"
    assert project.slas("etl/etl-daily") == {"duration": 7200, "within": 600}
    assert cloud.writes == writes + 1
    project.ops("apply", "--yes", SLA_MINUTES="30")
    assert project.slas("ml-training/ml-training")["duration"] == 1800
    assert project.slas("etl/etl-daily")["duration"] == 7200

    project.ops("apply", "--yes", CLOUD_SLAS="false")
    assert [*cloud.slas.values()] == [{}, {}], "no longer wanted"
    project.ops("apply", "--yes")
    assert project.slas("etl/etl-daily")["duration"] == 7200

    project.ops("destroy", "--yes")
    assert [*cloud.slas.values()] == [{}, {}]
