"""The kinds of objects that a project declares, and how each is read and written over Prefect's REST API.

An object is a dictionary of the fields that are declared. A field that is not declared belongs to
whoever set it on the server: it is neither compared nor written.
"""

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
from prefect.automations import AutomationCore
from prefect.client.orchestration import PrefectClient

from ops.settings import PROJECT_TAG

Fields = dict[str, Any]
PAGE = 200  # the largest page that the API gives
NOTHING: list[Any] = [None, {}, []]


@dataclass(eq=False)
class Kind:
    """One kind of object.

    Attributes:
        label: what people call it
        path: the collection's path
        identity: the name of an object, filled from the object as the server returned it
        member: the path of an object, filled likewise
        has_tags: whether ownership is marked with a tag on the object (else in the registry)
        upserts: whether to create an object that is there changes it
        lenient: fields in which None, empty and missing are the same
    """

    label: str
    path: str
    identity: str = "{name}"
    member: str = "{path}/{id}"
    has_tags: bool = False
    upserts: bool = False
    lenient: Set[str] = frozenset()

    def name(self, found: Fields) -> str:
        return self.identity.format_map(found)

    def url(self, found: Fields) -> str:
        return self.member.format_map({key: quote(str(found[key]), safe="") for key in found} | {"path": self.path})

    def observed(self, found: Fields) -> Fields:
        """Return an object that the server returned in the form in which it is declared."""
        return found

    def keep_paused(self, fields: Fields, current: Fields) -> tuple[Fields, list[str]]:
        """Return what is declared, but with what people paused on the server still paused, and what that is."""
        return fields, []

    async def read(self, client: PrefectClient, names: Set[str], mark: str = PROJECT_TAG) -> list[Fields]:
        """Return objects on the server, at least those with `names` and those that carry the tag `mark`."""
        return await pages(client, f"{self.path}/filter")

    async def create(self, client: PrefectClient, fields: Fields) -> str:
        """Create an object and return its id."""
        return (await send(client, "POST", f"{self.path}/", fields))["id"]

    async def update(self, client: PrefectClient, found: Fields, fields: Fields, changed: Set[str]) -> None:
        """Change an object; of `fields`, all that is declared, only those in `changed` differ."""
        if self.upserts:
            await self.create(client, fields)
        else:
            await send(client, "PATCH", self.url(found), {name: fields[name] for name in sorted(changed)})

    async def delete(self, client: PrefectClient, found: Fields) -> None:
        try:
            await send(client, "DELETE", self.url(found))
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 404:  # gone already
                raise


async def send(client: PrefectClient, method: str, path: str, body: Any = None) -> Any:
    """Send one request and return the answer's JSON, or None."""
    response = await client.request(method, path, json=body)  # ty: ignore[invalid-argument-type] (it lists its own paths)
    return response.json() if response.content else None


async def pages(client: PrefectClient, path: str, **body: Any) -> list[Fields]:
    """Return everything that a filter finds."""
    found: list[Fields] = []
    while True:
        page = await send(client, "POST", path, {**body, "limit": PAGE, "offset": len(found)})
        found += page
        if len(page) < PAGE:
            return found


class WorkQueues(Kind):
    async def create(self, client: PrefectClient, fields: Fields) -> str:
        body = dict(fields)
        pool = quote(body.pop("work_pool_name"))
        return (await send(client, "POST", f"/work_pools/{pool}/queues", body))["id"]

    async def delete(self, client: PrefectClient, found: Fields) -> None:
        if found["name"] != "default":  # that one lives as long as its pool
            await super().delete(client, found)


class Blocks(Kind):
    """The declared fields are `block`, the object, and `data`, what it holds, secrets included."""

    async def read(self, client: PrefectClient, names: Set[str], mark: str = PROJECT_TAG) -> list[Fields]:
        # Only those: the answer holds secrets.
        named = {"name": {"any_": sorted({name.split("/", 1)[1] for name in names})}}
        return await pages(client, f"{self.path}/filter", block_documents=named, include_secrets=True)

    async def create(self, client: PrefectClient, fields: Fields) -> str:
        return str(await fields["block"].asave(fields["name"], overwrite=True, client=client))  # with its type


@dataclass(eq=False)
class Deployments(Kind):
    flow_ids: dict[tuple[PrefectClient, str], str] = field(default_factory=dict)

    def observed(self, found: Fields) -> Fields:
        limit = found["global_concurrency_limit"]
        schedules = [{key: s[key] for key in ("slug", "schedule", "parameters", "active")} for s in found["schedules"]]
        return found | {
            "tags": sorted(found["tags"]),
            "concurrency_limit": limit and limit["limit"],
            "schedules": by_slug(schedules),
        }

    def keep_paused(self, fields: Fields, current: Fields) -> tuple[Fields, list[str]]:
        paused = {schedule["slug"] for schedule in current["schedules"] if not schedule["active"]}
        kept = [s["slug"] for s in fields["schedules"] if s["active"] and s["slug"] in paused]
        schedules = [s | {"active": s["active"] and s["slug"] not in kept} for s in fields["schedules"]]
        return fields | {"schedules": by_slug(schedules)}, [f": schedule {slug}" for slug in kept]

    async def read(self, client: PrefectClient, names: Set[str], mark: str = PROJECT_TAG) -> list[Fields]:
        # Ours, and those of others whose name is like one of ours: a server may hold thousands more.
        like = sorted({name.split("/", 1)[1] for name in names})
        ours = {"operator": "or_", "tags": {"any_": [mark]}, "name": {"any_": like}}
        found = await pages(client, f"{self.path}/filter", deployments=ours)
        flow_ids = sorted({deployment["flow_id"] for deployment in found})
        flows = await pages(client, "/flows/filter", flows={"id": {"any_": flow_ids}}) if flow_ids else []
        flow_names = {flow["id"]: flow["name"] for flow in flows}
        return [{**deployment, "flow_name": flow_names.get(deployment["flow_id"], "")} for deployment in found]

    async def create(self, client: PrefectClient, fields: Fields) -> str:
        body = dict(fields)
        flow = client, body.pop("flow_name")
        if flow not in self.flow_ids:
            self.flow_ids[flow] = (await send(client, "POST", "/flows/", {"name": flow[1]}))["id"]
        # What is empty or the default anyway is not sent: to look at it takes the server a sixth of its time.
        if body["work_queue_name"] == "default":
            del body["work_queue_name"]
        body = {key: value for key, value in body.items() if value not in NOTHING}
        return await super().create(client, body | {"flow_id": self.flow_ids[flow]})

    async def update(self, client: PrefectClient, found: Fields, fields: Fields, changed: Set[str]) -> None:
        if rest := changed - {"schedules"}:
            if rest & {"work_pool_name", "work_queue_name"}:  # the API reads the two as a pair
                rest |= {"work_pool_name", "work_queue_name"}
            await super().update(client, found, fields, rest)
        if "schedules" in changed:
            await self.update_schedules(client, found, {schedule["slug"]: schedule for schedule in fields["schedules"]})

    async def update_schedules(self, client: PrefectClient, found: Fields, wanted: dict[str, Fields]) -> None:
        """Make the schedules, by slug, those that are `wanted`: one by one, which Prefect's own deploy never does."""
        path = f"{self.url(found)}/schedules"
        for current in found["schedules"]:
            if not (schedule := wanted.pop(current["slug"], None)):
                await send(client, "DELETE", f"{path}/{current['id']}")
            elif canonical(schedule, lenient=True) != canonical({key: current[key] for key in schedule}, lenient=True):
                await send(client, "PATCH", f"{path}/{current['id']}", schedule)
        if wanted:
            await send(client, "POST", path, list(wanted.values()))


def by_slug(schedules: list[Fields]) -> list[Fields]:
    return sorted(schedules, key=lambda schedule: schedule["slug"] or "")


class Automations(Kind):
    def observed(self, found: Fields) -> Fields:
        return automation_fields(AutomationCore.model_validate(found))

    def keep_paused(self, fields: Fields, current: Fields) -> tuple[Fields, list[str]]:
        enabled = fields["enabled"] and current["enabled"]
        return fields | {"enabled": enabled}, [""] if enabled != fields["enabled"] else []

    async def update(self, client: PrefectClient, found: Fields, fields: Fields, changed: Set[str]) -> None:
        await send(client, "PUT", self.url(found), fields)  # the API replaces the whole object


def automation_fields(automation: AutomationCore) -> Fields:
    """Return an automation as it is compared and written."""
    fields = automation.model_dump(mode="json", exclude={"owner_resource"})  # the API refuses it in an update
    return fields | {"tags": sorted(fields["tags"]), "trigger": sort_sets(fields["trigger"])}


def sort_sets(trigger: Any) -> Any:
    """Return a trigger with every list of strings sorted: the API keeps sets in no order."""
    if isinstance(trigger, dict):
        return {key: sort_sets(part) for key, part in trigger.items()}
    if isinstance(trigger, list) and all(isinstance(part, str) for part in trigger):
        return sorted(trigger)
    return [sort_sets(part) for part in trigger] if isinstance(trigger, list) else trigger


def canonical(value: Any, lenient: bool = False) -> Any:
    """Return `value` in a form in which true is not 1 and, where `lenient`, None and empty are like missing."""
    if isinstance(value, dict):
        parts = {key: canonical(part, lenient) for key, part in value.items()}
        return {key: part for key, part in parts.items() if not (lenient and part in NOTHING)}
    if isinstance(value, list):
        return [canonical(part, lenient) for part in value]
    return value if value is None else (isinstance(value, bool), value)


# In the order of dependency: a later kind may refer to an earlier one.
VARIABLES = Kind("variable", "/variables", has_tags=True)
KINDS = [
    Kind("work pool", "/work_pools", member="/work_pools/{name}"),
    WorkQueues(
        "work queue", "/work_queues", "{work_pool_name}/{name}", member="/work_pools/{work_pool_name}/queues/{name}"
    ),
    Kind("global concurrency limit", "/v2/concurrency_limits"),
    Kind("tag limit", "/concurrency_limits", "{tag}", upserts=True),
    VARIABLES,
    Blocks("block", "/block_documents", "{block_type[slug]}/{name}", upserts=True),
    Deployments(
        "deployment",
        "/deployments",
        "{flow_name}/{name}",
        has_tags=True,
        lenient={"schedules", "concurrency_options", "pull_steps"},
    ),
    Automations("automation", "/automations", has_tags=True),
]
