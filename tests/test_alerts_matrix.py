"""Every channel with every kind of alert on every backend gives blocks and automations that Prefect's classes accept."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID, uuid5

import pytest
import yaml
from answers import JINJA, ROOT, Answers, Render, completed
from prefect._experimental.sla.objects import FrequencySla, LatenessSla, SlaTypes, TimeToCompletionSla
from prefect.automations import AutomationCore, CompoundTrigger, DoNothing, EventTrigger
from prefect.client.orchestration import PrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr, TypeAdapter

VARIED = ("ops/automations.py", "ops/blocks.py", "ops/settings.py")  # by the answers of this test
CHANNELS = yaml.safe_load((ROOT / "data/channels.yml").read_text("utf-8"))
KINDS = yaml.safe_load((ROOT / "data/alerts.yml").read_text("utf-8"))
BACKENDS = yaml.safe_load((ROOT / "data/backends.yml").read_text("utf-8"))
CLOUD = "https://api.prefect.cloud/api/accounts/00000000-0000-0000-0000-000000000000/workspaces/00000000-0000-0000-0000-000000000000"
KEY = "0123456789abcdef0123456789abcdef"
ADDRESSES = {
    "webhook": "https://example.com/alerts",
    "slack": f"https://hooks.slack.com/services/T0000/B0000/{'x' * 24}",
    "teams": f"https://prod-12.westus.logic.azure.com/workflows/{KEY}/triggers/manual/paths/invoke?sig=x&sp=x&sv=1.0",
    "pagerduty": KEY,
    "opsgenie": "01234567-0123-0123-0123-0123456789ab",
    "discord": f"https://discord.com/api/webhooks/123456789012345678/{'A' * 68}",
    "mattermost": "https://mattermost.example.com/hooks/abcdefghijklmnopqrstuvwxyz",
    "sms": f"twilio://AC{KEY}:{KEY}@+15550001111/+15550002222",
    "email": "mailtos://user:password@smtp.example.com?from=flows@example.com&to=a@example.com,b@example.com",
}
OBJECTS = {
    "deployment": {"etl/daily": {"tags": ["project:my-flows", "sla:2h", "fresh:26h", "pause-after:3/1d"]}},
    "work pool": {"my-flows": {"base_job_template": {}}, "cloud": {}},
}
COMBINATIONS = [(channel, kind, backend) for channel in CHANNELS for kind in KINDS for backend in BACKENDS]


class Loaded:
    """The modules of a project with other alerts: `ops` of the default project, with three files rendered anew."""

    def __init__(self, project: Path) -> None:
        self.project = project

    def __call__(self, **answers: Any) -> tuple[ModuleType, ModuleType, Any]:
        known: Answers = completed(answers | {"sla_minutes": "60"})
        known |= {name: list(value) for name, value in known.items() if isinstance(value, tuple)}
        for name in VARIED:
            text = JINJA.from_string((ROOT / "template" / f"{name}.jinja").read_text("utf-8")).render(known)
            (self.project / name).write_text(text, "utf-8")
        for name in [name for name in sys.modules if name == "ops" or name.startswith("ops.")]:
            del sys.modules[name]
        import ops.automations
        import ops.blocks
        import ops.settings

        missing = {*known["alert_channels"]} - ADDRESSES.keys()
        assert not missing, f"add to ADDRESSES an address, of the form that its vendor gives out, of {missing}"
        values = {CHANNELS[one]["setting"].lower(): ADDRESSES[one] for one in known["alert_channels"]}
        return ops.automations, ops.blocks, ops.settings.Settings(_env_file=None, **values)


@pytest.fixture(scope="module")
def load(render: Render) -> Iterator[Loaded]:
    project = render()
    kept = {name: module for name, module in sys.modules.items() if name == "ops" or name.startswith("ops.")}
    sys.path.insert(0, str(project))
    yield Loaded(project)
    sys.path.remove(str(project))
    for name in [name for name in sys.modules if name == "ops" or name.startswith("ops.")]:
        del sys.modules[name]
    sys.modules |= kept


def declared(modules: tuple[ModuleType, ModuleType, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Return the blocks by name, and the automations."""
    automations, blocks, settings = modules
    made = {name: make(settings) for name, make in blocks.BLOCKS.items() if name.startswith("my-flows-")}

    def block_id(name: str) -> UUID:
        assert name in made, name
        return uuid5(UUID(int=0), name)

    return made, automations.automations(settings, block_id, OBJECTS)


@pytest.mark.parametrize(("channel", "kind", "backend"), COMBINATIONS)
def test_prefect_accepts_every_combination(load: Loaded, channel: str, kind: str, backend: str) -> None:
    blocks, found = declared(load(alert_channels=(channel,), alert_on=(kind,), prefect_backend=backend))
    assert blocks
    for block in blocks.values():
        assert len(getattr(block, "_apprise_client", "no Apprise")), "nothing can be sent to the address"
    sending = [one for one in found if any(a.type in ("send-notification", "call-webhook") for a in one.actions)]
    assert sending
    for automation in sending:
        trigger = automation.trigger.model_dump(mode="json")
        assert trigger["match"]
        assert trigger["expect"]
        assert kind == "worker-offline" or "prefect.tag.project:my-flows" in json.dumps(trigger["match_related"])
    assert "<" not in json.dumps([one.model_dump(mode="json")["actions"] for one in found]), "a name was not filled in"


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_channel_has_its_row_in_the_documents(channel: str) -> None:
    row = re.search(rf"^\| {channel} \|.*", (ROOT / "docs/alerts.md").read_text("utf-8"), re.MULTILINE)
    assert row, f"add a row for {channel} to the table under Channels in docs/alerts.md"
    assert f"`{CHANNELS[channel]['setting']}`" in row[0]


def test_everything_at_once(load: Loaded) -> None:
    _, found = declared(load(alert_channels=tuple(CHANNELS), alert_on=tuple(KINDS)))
    names = {one.name.removeprefix("my-flows: ") for one in found}
    extra = {"sla:2h", "missing fresh:26h", "zombie", "pause-after:3/1d"}
    assert names == {*KINDS, *extra} - {"missing"}
    for automation in found:
        sends = [action for action in automation.actions if action.type in ("send-notification", "call-webhook")]
        assert len(sends) in (0, len(CHANNELS))


def test_prefect_cloud_sends_email_itself(load: Loaded) -> None:
    with temporary_settings({PREFECT_API_URL: CLOUD}):
        blocks, found = declared(load(alert_channels=("email",), alert_on=("failure",), prefect_backend="cloud"))
    assert not blocks
    (action,) = [action for one in found for action in one.actions if one.name == "my-flows: failure"]
    told = action.model_dump(mode="json")
    assert told["type"] == "send-email-notification"
    assert told["emails"] == ["a@example.com", "b@example.com"]
    assert told.keys() == {"type", "emails", "subject", "body"}


@pytest.mark.parametrize("more", ["", "?to=b@example.com"])
def test_an_address_for_mail_may_have_no_options(load: Loaded, more: str) -> None:
    _, blocks, _ = load(alert_channels=("email",), alert_on=("failure",))
    make, _ = blocks.CHANNELS["email"]
    (mail,) = make(f"mailtos://user:password@gmail.com{more}", "failure")._apprise_client
    assert "format=text" in mail.url()


def test_without_an_address_mail_by_prefect_cloud_is_a_fault(load: Loaded) -> None:
    with temporary_settings({PREFECT_API_URL: CLOUD}):
        automations, blocks, settings = load(alert_channels=("email",), alert_on=("failure",), prefect_backend="cloud")
        settings.alert_email_url = None
        with pytest.raises(automations.OpsError, match=r"^ALERT_EMAIL_URL is not set: "):
            declared((automations, blocks, settings))


def test_sendgrid_takes_mail_by_smtp(load: Loaded) -> None:
    """The address for SendGrid in docs/alerts.md."""
    _, blocks, _ = load(alert_channels=("email",), alert_on=("failure",))
    make, _ = blocks.CHANNELS["email"]
    (mail,) = make(
        "mailtos://apikey:SG.x_y-z@smtp.sendgrid.net?from=a@example.com&to=b@example.com", "failure"
    )._apprise_client
    assert (mail.smtp_host, mail.secure_mode, mail.user, mail.password) == (
        "smtp.sendgrid.net",
        "starttls",
        "apikey",
        "SG.x_y-z",
    )
    assert mail.targets == [(False, "b@example.com")]


WRONG_TAGS = [
    "sla:30",
    "sla:",
    "sla:x30m",
    "sla:9999999999d",
    "fresh:1w",
    "pause-after:3",
    "pause-after:3/1d/2",
    "pause-after:0/1d",
    "sla:0m",
]


@pytest.mark.parametrize("tag", WRONG_TAGS)
def test_a_tag_of_another_form_is_refused(load: Loaded, monkeypatch: pytest.MonkeyPatch, tag: str) -> None:
    modules = load(alert_channels=("webhook",), alert_on=("sla", "missing"))
    monkeypatch.setitem(OBJECTS["deployment"], "etl/other", {"tags": [tag]})
    with pytest.raises(Exception, match=rf"^tag {tag} in prefect\.yaml: write it like"):
        declared(modules)


def test_a_trigger_inside_another_may_not_match_everything(load: Loaded) -> None:
    load(alert_channels=("webhook",), alert_on=("failure",))
    from ops.declared import find_faults

    right = EventTrigger(expect={"order.arrived"}, match={"prefect.resource.id": "orders"})
    for inner, faults in ((right, 0), (EventTrigger(), 2)):
        trigger = CompoundTrigger(require="any", within=60, triggers=[right, inner])
        automation = AutomationCore(name="orders", trigger=trigger, actions=[DoNothing()])
        assert len(find_faults(automation)) == faults


def test_a_misspelt_key_of_a_trigger_is_refused(load: Loaded) -> None:
    load(alert_channels=("webhook",), alert_on=("failure",))
    from ops.automations import FAILED, on

    with pytest.raises(ValueError, match="with_in"):
        on(FAILED, with_in=5)


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("https://example.com/hooks/abc", (True, "example.com", 443, "")),
        ("https://example.com:8443/chat/hooks/abc", (True, "example.com", 8443, "/chat")),
        ("http://chat.internal/hooks/abc", (False, "chat.internal", 80, "")),
    ],
)
def test_mattermost_is_reached_where_its_address_says(load: Loaded, address: str, reached: tuple[Any, ...]) -> None:
    _, blocks, _ = load(alert_channels=("mattermost",), alert_on=("failure",))
    make, _ = blocks.CHANNELS["mattermost"]
    (target,) = make(address, "failure")._apprise_client
    assert (target.secure, target.host, target.port, target.fullpath) == reached


@pytest.mark.parametrize("channel", ["slack", "teams", "discord", "mattermost", "sms", "email"])
def test_an_address_that_is_none_is_refused(load: Loaded, channel: str) -> None:
    """By the one line of its setting, or by Apprise, which takes it for none."""
    name = CHANNELS[channel]["setting"]
    _, blocks, settings = load(alert_channels=(channel,), alert_on=("failure",))
    setattr(settings, name.lower(), SecretStr("nonsense"))
    with pytest.raises((sys.modules["ops.settings"].OpsError, AssertionError)) as told:
        assert len(blocks.BLOCKS[f"my-flows-{channel}-failure"](settings)._apprise_client), "nothing can be sent"
    assert str(told.value).startswith((f"{name} has another form: {CHANNELS[channel]['help']}", "nothing can be sent"))


def test_prefect_cloud_has_slas_of_its_own(load: Loaded) -> None:
    """Prefect calls this part of it experimental: here it is told when that moves."""
    fields = {row["cloud_sla"] for row in KINDS.values() if "cloud_sla" in row}
    types = {field: TypeAdapter(SlaTypes).validate_python({"name": field, field: 60}) for field in fields}
    expected = {"duration": TimeToCompletionSla, "within": LatenessSla, "stale_after": FrequencySla}
    assert {field: type(one) for field, one in types.items()} == expected
    assert callable(PrefectClient.apply_slas_for_deployment)

    automations, _, settings = load(alert_on=tuple(KINDS), prefect_backend="cloud")
    tags = OBJECTS["deployment"]["etl/daily"]
    with temporary_settings({PREFECT_API_URL: CLOUD}):
        assert automations.alert_tags(settings, tags) == tags["tags"], "not wanted"
    settings.cloud_slas = True
    assert automations.alert_tags(settings, tags) == tags["tags"], "not connected to it"
    with temporary_settings({PREFECT_API_URL: CLOUD}):
        given = {*automations.alert_tags(settings, tags)} - {*tags["tags"]}
        usual = automations.alert_tags(settings, {"tags": []})
        none = automations.alert_tags(settings, {"tags": ["sla:none"]})
        preview = automations.alert_tags(settings.model_copy(update={"preview": "pr-1"}), {"tags": ["sla:none"]})
    assert given == {"cloud-sla:duration=7200", "cloud-sla:within=600", "cloud-sla:stale_after=93600"}
    assert usual == ["sla:default", "cloud-sla:duration=3600", "cloud-sla:within=600"]
    assert none == ["sla:none", "cloud-sla:within=600"]
    assert preview == ["sla:none"]
