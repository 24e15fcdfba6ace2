"""Every alert channel's far end, on loopback: it takes what the vendor's documentation asks for, and nothing else."""

import email
import email.policy
import json
import re
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

Fields = dict[str, Any]
KEY = "0123456789abcdef0123456789abcdef"


def need(found: Any, **fields: type | str | set[str]) -> None:
    """Raise ValueError unless `found` has these fields, each of its type, equal to its text, or one of its choices."""
    for name, wanted in fields.items():
        value = found.get(name)
        fits = (
            isinstance(value, wanted)
            if isinstance(wanted, type)
            else value in wanted
            if isinstance(wanted, set)
            else value == wanted
        )
        if not fits:
            raise ValueError(f"{name} is {value!r}, not {wanted}")


@dataclass
class Alert:
    """One message, as it arrived.

    Attributes:
        channel: the row of data/channels.yml
        text: subject and body
        body: what was sent, as the vendor reads it
    """

    channel: str
    text: str
    body: Fields


def webhook(body: Fields, headers: Any) -> str:
    need(body, alert=str, level={"failure", "warning", "success", "info"}, text=str, key=str, url=str)
    return body["text"]


def slack(body: Fields, headers: Any) -> str:
    need(body, attachments=list)
    (attachment,) = body["attachments"]
    need(attachment, title=str, text=str, color=str)
    return f"{attachment['title']}\n{attachment['text']}"


def teams(body: Fields, headers: Any) -> str:
    need(body, type="message", attachments=list)
    (attachment,) = body["attachments"]
    need(attachment, contentType="application/vnd.microsoft.card.adaptive", content=dict)
    need(attachment["content"], type="AdaptiveCard", version=str, body=list)
    return "\n".join(block["text"] for block in attachment["content"]["body"] if block["type"] == "TextBlock")


def pagerduty(body: Fields, headers: Any) -> str:
    need(body, routing_key=KEY, event_action="trigger", payload=dict)
    need(body["payload"], summary=str, source=str, severity={"critical", "error", "warning", "info"})
    return f"{body['payload']['summary'].strip()}\n{body['payload']['custom_details']['Prefect Notification Body']}"


def opsgenie(body: Fields, headers: Any) -> str:
    if not re.fullmatch("GenieKey [0-9a-f-]{36}", headers["Authorization"]):
        raise ValueError("no GenieKey")
    need(body, message=str, description=str, priority={"P1", "P2", "P3", "P4", "P5"})
    if len(body["message"]) > 130:
        raise ValueError("a message has at most 130 characters")
    return f"{body['message']}\n{body['description']}"


def discord(body: Fields, headers: Any) -> str:
    need(body, content=str)
    if len(body["content"]) > 2000:
        raise ValueError("a content has at most 2000 characters")
    return body["content"]


def mattermost(body: Fields, headers: Any) -> str:
    need(body, text=str)
    return body["text"]


def sms(body: Fields, headers: Any) -> str:
    need(body, Body=str, From=str, To=str)
    if not headers["Authorization"].startswith("Basic ") or len(body["Body"]) > 1600:
        raise ValueError("no credential, or a message of more than 1600 characters")
    if not all(re.fullmatch(r"\+\d{8,15}", body[name]) for name in ("From", "To")):
        raise ValueError("no E.164 number")
    return body["Body"]


# the path: host and path of the vendor -> channel, answer
FORMS: list[tuple[str, Callable[[Fields, Any], str], int, str]] = [
    ("/webhook", webhook, 200, ""),
    ("/hooks.slack.com/services/T0000/B0000/[A-Za-z0-9]+", slack, 200, "ok"),
    (r"/prod-12\.westus\.logic\.azure\.com/workflows/\w+/triggers/manual/paths/invoke\?.*sig=.+", teams, 202, ""),
    ("/events.pagerduty.com/v2/enqueue", pagerduty, 202, json.dumps({"status": "success", "dedup_key": KEY})),
    (
        "/api.opsgenie.com/v2/alerts",
        opsgenie,
        202,
        json.dumps({"result": "Request will be processed", "requestId": KEY}),
    ),
    (r"/discord.com/api/webhooks/\d+/\w+(\?.*)?", discord, 204, ""),
    ("/mattermost.example.com/hooks/[a-z0-9]{26}", mattermost, 200, "ok"),
    (
        r"/api.twilio.com/2010-04-01/Accounts/AC\w{32}/Messages.json",
        sms,
        201,
        json.dumps({"sid": "SM1", "status": "queued"}),
    ),
]


@dataclass
class Receiver:
    """Takes messages on loopback; `fault` makes it fail.

    Attributes:
        alerts: what was accepted
        refused: what a vendor would not accept, and why
        lost: the paths of what came while it failed
        fault: an HTTP status, seconds to wait with the answer, or "refused"
    """

    alerts: list[Alert] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    fault: int | str = 0

    @contextmanager
    def failing(self, fault: int | str) -> Iterator[None]:
        self.lost, self.fault = [], fault
        yield
        self.fault = 0

    def start(self) -> None:
        receiver = self

        class Http(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.lost += [self.path] if receiver.fault else []
                if receiver.fault == "refused":
                    self.connection.close()
                    return
                content = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, answer = receiver.take(self.path, content, self.headers)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Smtp(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 here\r\n")
                for line in self.rfile:
                    word = line[:4].upper()
                    if word == b"DATA":
                        self.wfile.write(b"354 go on\r\n")
                        content = b"".join(iter(self.rfile.readline, b".\r\n"))
                        receiver.take_mail(email.message_from_bytes(content, policy=email.policy.default))
                    self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
                    if word == b"QUIT":
                        return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Http)
        self.smtp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Smtp)
        for server in (self.http, self.smtp):
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.http.server_port}"

    def settings(self) -> dict[str, str]:
        """Return the setting of each channel, as its vendor gives it out."""
        return {
            "ALERT_WEBHOOK_URL": f"http://{self.address}/webhook",
            "SLACK_WEBHOOK_URL": f"https://hooks.slack.com/services/T0000/B0000/{'x' * 24}",
            "TEAMS_WORKFLOW_URL": f"https://prod-12.westus.logic.azure.com:443/workflows/{KEY}/triggers/manual/paths/invoke"
            "?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=KODuebWbDGYFr0z0eu-6Rj8aUKz7108W3wrNJZxFE5A",
            "PAGERDUTY_INTEGRATION_KEY": KEY,
            "OPSGENIE_API_KEY": "01234567-0123-0123-0123-0123456789ab",
            "DISCORD_WEBHOOK_URL": f"https://discord.com/api/webhooks/123456789012345678/{'A' * 68}",
            "MATTERMOST_WEBHOOK_URL": "https://mattermost.example.com/hooks/abcdefghijklmnopqrstuvwxyz",
            "TWILIO_URL": f"twilio://AC{KEY}:{KEY}@+15550001111/+15550002222",
            "ALERT_EMAIL_URL": f"mailto://127.0.0.1:{self.smtp.server_address[1]}?from=flows@example.com&to=oncall@example.com",
        }

    def take(self, path: str, content: str, headers: Any) -> tuple[int, str]:
        if self.fault == 500:
            return 500, ""
        if self.fault:
            time.sleep(float(self.fault))  # by then the sender has given up
            return 200, ""
        for form, read, status, answer in FORMS:
            if re.fullmatch(form, path):
                try:
                    form_data = headers["Content-Type"].startswith("application/x-www-form-urlencoded")
                    body = {k: v[0] for k, v in parse_qs(content).items()} if form_data else json.loads(content)
                    self.alerts.append(Alert(read.__name__, read(body, headers), body))
                except (ValueError, KeyError, TypeError) as error:
                    self.refused.append(f"{read.__name__}: {error!r}: {content}")
                    return 400, ""
                return status, answer
        self.refused.append(f"nobody is at {path}")
        return 404, ""

    def take_mail(self, message: Any) -> None:
        body = message.get_body(("plain",))
        if not body or message["To"] != "oncall@example.com" or not message["Message-ID"]:
            self.refused.append(f"email: {message}")
            return
        text = f"{message['Subject']}\n{body.get_content()}"
        self.alerts.append(Alert("email", text, dict(message.items())))

    def about(self, name: str, title: str = "") -> list[Alert]:
        """Return the alerts that name a run or a pool, of those with a title."""
        return [one for one in self.alerts if name in one.text and title in one.text]
