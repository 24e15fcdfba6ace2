"""Compare what is declared with what the server holds, and make the server hold it.

Names are identity. The server is the only state: what this project owns is marked there, with the
project's tag on objects that carry tags and, for the rest, in one registry variable.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import httpx
from anyio import CapacityLimiter
from prefect import __version__
from prefect.client.base import ServerType
from prefect.client.orchestration import PrefectClient
from pydantic import TypeAdapter, ValidationError

from ops.api import FAILURES, explain, is_busy
from ops.declared import Declared, Ids
from ops.deployments import hint
from ops.kinds import KINDS, VARIABLES, Fields, Kind, canonical
from ops.settings import PROJECT, PROJECT_TAG, OpsError

REGISTRY = "ops-registry-"  # + the project: what it created of the kinds without tags; more of it in ...__1, ...__2
LARGEST = 4_500  # characters in one of them: the server takes 5,000
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # seconds, while the server is busy

Action = Literal["create", "update", "unchanged", "undeclared"]
Report = Callable[["Change"], None]
Mark = tuple[str, str]  # kind and name of an object that is ours
MARKS = TypeAdapter(dict[str, list[str]])  # in a registry variable: kind -> names


@dataclass
class Change:
    """What has to be done for one object.

    Attributes:
        fields: what is declared of it
        found: the object as the server returned it
        differs: field -> (value on the server, declared value)
        paused: what people paused of it
    """

    kind: Kind
    name: str
    action: Action
    fields: Fields = field(default_factory=dict)
    found: Fields = field(default_factory=dict)
    differs: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    paused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.kind.label} {self.name}"


@dataclass(repr=False)  # asyncio makes it of all that a task returns
class Plan:
    """All objects, in the order in which they can be written, and what is worth knowing about them.

    Attributes:
        owned: what this project has on the server, declared or not
        ids: of everything that is on the server
        faults: of the declarations, and clashes with another project's objects
    """

    changes: list[Change] = field(default_factory=list)
    owned: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ids: Ids = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def pending(self) -> list[Change]:
        return [change for change in self.changes if change.action in ("create", "update")]

    @property
    def undeclared(self) -> list[Change]:
        return [change for change in self.changes if change.action == "undeclared"]


async def make_plan(client: PrefectClient, declared: Declared, only: str = "") -> Plan:
    """Compare everything declared, or `only` a kind or kind:name, with the server; write nothing.

    Raises:
        OpsError: with every fault of the declarations, and every clash with another project's objects
    """
    plan = await survey(client, declared)
    if plan.faults:
        raise OpsError(*plan.faults)
    return choose(plan, declared, only) if only else plan


async def survey(client: PrefectClient, declared: Declared) -> Plan:
    """Compare everything declared with the server, whatever its faults."""
    me, references = declared.owner, list(declared.references())
    plan = Plan(notes=[*declared.notes, *await check_version(client)])
    variables = await VARIABLES.read(client, set())
    marks = {mark: project for one in variables if (project := registry_of(one)) for mark in marks_in(one)}
    lost = [one["name"] for one in variables if registry_of(one) == PROJECT and not marks_in(one)]
    plan.notes += [f"variable {name} was changed by hand: prune does not know what it listed" for name in lost]

    def owner(kind: Kind, found: Fields) -> str | None:
        if not kind.has_tags:
            return marks.get((kind.label, kind.name(found)))
        owners = [tag.removeprefix("project:") for tag in found["tags"] if tag.startswith("project:")]
        return me if me in owners else next(iter(owners), None)

    def marked(kind: Kind) -> list[str]:
        return [name for (label, name), project in marks.items() if (label, project) == (kind.label, me)]

    async def read(kind: Kind) -> list[Fields]:
        if kind is VARIABLES:
            return [variable for variable in variables if not registry_of(variable)]
        referred = {name for _, label, name in references if label == kind.label}
        names = {*declared.objects[kind.label], *marked(kind), *referred}
        return await kind.read(client, names, f"project:{me}")

    server = dict(zip(KINDS, await asyncio.gather(*(read(kind) for kind in KINDS)), strict=True))
    plan.ids = {(kind.label, kind.name(found)): found["id"] for kind in KINDS for found in server[kind]}
    declared.add_automations(plan.ids)
    plan.faults = list(dict.fromkeys(declared.faults))
    for who, label, name in references:  # a worker takes nothing for a variable that is not there
        left_out = label == "block" and name.rpartition("/")[2] in declared.left_out
        if not (left_out or name in declared.objects[label] or (label, name) in plan.ids):
            plan.faults.append(f"{who} refers to the {label} {name}, which is neither declared nor on the server")
    if declared.settings.preview:
        pools = {fields["work_pool_name"] for fields in declared.objects["deployment"].values()}
        plan.faults += [
            f"work pool {name} is not on this server: a preview is a guest of an environment that is deployed there"
            for name in sorted(pools)
            if ("work pool", name) not in plan.ids
        ]
    for kind in KINDS:
        # Names of automations are not unique: our oldest is the one that is declared.
        objects = sorted(server[kind], key=lambda found: (owner(kind, found) != me, str(found.get("created"))))
        by_name = {kind.name(found): found for found in reversed(objects)}
        for name, fields in declared.objects[kind.label].items():
            change = compare(kind, name, fields, by_name.get(name, {}))
            plan.changes.append(change)
            plan.notes += [
                f"{change}{what} is paused on the server and stays so, until resumed" for what in change.paused
            ]
            other = owner(kind, change.found) if change.found else marks.get((kind.label, name))
            if other not in (None, me):
                plan.faults.append(f"{change} belongs to the project {other} on this server: choose another name")
            if kind.label == "work pool" and "base_job_template" not in fields:
                plan.faults += declared.check_provisioned(fields, change.found)
            if kind.label == "work pool" and "type" in change.differs:
                plan.faults.append(f"{change} has type {change.found['type']}, which cannot change: rename the pool")
        mine = [Change(kind, kind.name(one), "undeclared", found=one) for one in objects if owner(kind, one) == me]
        mine += [Change(kind, name, "undeclared") for name in marked(kind) if name not in by_name]  # deleted by hand
        plan.owned += mine
        for change in mine:
            wanted = change.name in declared.objects[kind.label] and change.found in ({}, by_name.get(change.name))
            left_out = kind.label == "block" and change.name.split("/")[1] in declared.left_out
            plan.changes += [] if wanted or left_out else [change]
    return plan


def choose(plan: Plan, declared: Declared, only: str) -> Plan:
    """Return the part of `plan` that `only` names; raise OpsError when it needs what is left out and not there yet."""
    known = [(one, (one.kind.label, f"{one.kind.label}:{one.name}")) for one in plan.changes]
    plan.changes = [one for one, names in known if only in names]
    if not plan.changes:
        near = hint(only, {name for _, names in known for name in names})
        form = f"; give KIND or KIND:NAME, where KIND is one of {', '.join(kind.label for kind in KINDS)}"
        raise OpsError(f"--only {only}: there is no such object{near or form}")
    chosen = set(map(str, plan.changes))
    missing = {id: name for id, name in declared.stand_ins.items() if name not in chosen}
    needs = [(one, missing[id]) for one in plan.changes for id in missing if id in str(one.fields)]
    pools = {name: f"work pool {name}" for name in declared.objects["work pool"] if ("work pool", name) not in plan.ids}
    unmade = {name: pool for name, pool in pools.items() if pool not in chosen}
    needs += [(one, unmade[name]) for one in plan.changes if (name := one.fields.get("work_pool_name")) in unmade]
    if needs:
        raise OpsError(*(f"{one} needs {what}: apply that first" for one, what in needs))
    return plan


async def check_version(client: PrefectClient) -> list[str]:
    """Return a note when the server is of another minor version than this project; at another major one, raise OpsError."""
    server = __version__ if client.server_type == ServerType.CLOUD else await client.api_version()
    told = f"the server runs Prefect {server}, this project {__version__}: use the same minor version"
    theirs, ours = server.split("."), __version__.split(".")
    if theirs[0] != ours[0]:
        raise OpsError(told)
    return [told] if theirs[:2] != ours[:2] else []


def compare(kind: Kind, name: str, fields: Fields, found: Fields) -> Change:
    """Return the change for an object that is declared; what was paused by hand stays paused."""
    if not found:
        return Change(kind, name, "create", fields)
    current = kind.observed(found)
    fields, paused = kind.keep_paused(fields, current)
    differs = {}
    for key in [key for key in fields if key not in ("name", "block", "flow_name")]:
        declared, observed = ({key: one.get(key)} for one in (fields, current))
        if key == "data":  # of a block: the server keeps what an earlier version of its type had
            observed = {key: {part: current[key].get(part) for part in fields[key]}}
        if canonical(declared, key in kind.lenient) != canonical(observed, key in kind.lenient):
            differs[key] = observed[key], fields[key]
    return Change(kind, name, "update" if differs else "unchanged", fields, found, differs, paused)


async def apply(client: PrefectClient, declared: Declared, plan: Plan, report: Report) -> list[Change]:
    """Write all pending changes of `plan`, kind by kind; call `report` after each and return them.

    Raises:
        OpsError: a write failed; it tells what was done and what was not, and a second `apply` finishes
    """
    pending = plan.pending
    if new := {(one.kind.label, one.name) for one in pending if not (one.found or one.kind.has_tags)}:
        await patiently(lambda: register(client, add=new))
    done: list[Change] = []

    async def write_one(change: Change) -> None:
        plan.ids[change.kind.label, change.name] = await save(client, change)

    for kind in KINDS:
        changes = [change for change in pending if change.kind is kind]
        if changes and kind.label == "automation":  # by now, blocks and deployments have their ids
            declared.add_automations(plan.ids)
            fields = declared.objects[kind.label]
            changes = [compare(kind, change.name, fields[change.name], change.found) for change in changes]
        await write(changes, write_one, report, done, len(pending))
        if changes and kind.label == "automation":
            await drop_duplicates(client, kind, {change.name for change in changes if not change.found})
    return done


async def save(client: PrefectClient, change: Change) -> str:
    """Write a change and return the id of its object."""
    if change.found:
        if change.differs:
            await change.kind.update(client, change.found, change.fields, change.differs.keys())
        return change.found["id"]
    try:
        return await change.kind.create(client, change.fields)
    except httpx.HTTPStatusError as error:
        if error.response.status_code != 409:
            raise
        # Another apply may have created it since the plan was made: then it is an update.
        found = [one for one in await change.kind.read(client, {change.name}) if change.kind.name(one) == change.name]
        if not found:
            raise
        return await save(client, compare(change.kind, change.name, change.fields, found[0]))


async def write(
    changes: list[Change],
    action: Callable[[Change], Awaitable[None]],
    report: Report,
    done: list[Change],
    total: int,
) -> None:
    """Do `action` for all changes, several at once; after a failure start no more and tell what was done.

    How many at once follows the answers: one more after each success; half as many, for good, when the
    server is too busy. One on SQLite writes one at a time; Prefect Cloud, far away, takes many.
    """
    failures: list[str] = []
    gate, widest = CapacityLimiter(1), min((change.kind.widest for change in changes), default=1)

    def narrow() -> None:
        nonlocal widest
        gate.total_tokens = widest = max(int(gate.total_tokens) // 2, 1)

    async def one(change: Change) -> None:
        async with gate:
            if failures:
                return
            try:
                await patiently(lambda: action(change), narrow)
            except FAILURES as error:
                failures.append(f"{change}: {explain(error)}")
                return
            done.append(change)
            report(change)
            gate.total_tokens = min(gate.total_tokens + 1, widest)

    await asyncio.gather(*(one(change) for change in changes))
    if failures:
        told = f"{len(done)} of {total} objects are done, the rest is not: run the command again to finish"
        raise OpsError(*failures, told)


async def patiently(action: Callable[[], Awaitable[None]], busy: Callable[[], None] = lambda: None) -> None:
    """Do `action`; while the server is too busy for it, call `busy` and try again a little later."""
    for pause in (*PAUSES, None):
        try:
            return await action()
        except FAILURES as error:
            if pause is None or not is_busy(error):
                raise
        busy()
        await asyncio.sleep(pause)


async def drop_duplicates(client: PrefectClient, kind: Kind, names: Set[str]) -> None:
    """Keep the oldest of our automations that share one of `names`: two applies at once may each create one."""
    found = [one for one in await kind.read(client, names) if one["name"] in names and PROJECT_TAG in one["tags"]]
    seen = set()
    for one in sorted(found, key=lambda one: (one["created"], one["id"])):
        if one["name"] in seen:
            await patiently(lambda one=one: kind.delete(client, one))
        seen.add(one["name"])


async def delete(client: PrefectClient, changes: list[Change], report: Report) -> None:
    """Delete objects that this project owns, in the reverse order of dependency."""
    done: list[Change] = []

    async def delete_one(change: Change) -> None:
        if change.found:
            await change.kind.delete(client, change.found)

    for kind in reversed(KINDS):
        await write([change for change in changes if change.kind is kind], delete_one, report, done, len(changes))
    await patiently(lambda: register(client, remove={(change.kind.label, change.name) for change in done}))


def registry_of(variable: Fields) -> str:
    """Return the project whose marks are in a variable, if it is such a one."""
    name = variable["name"]
    return name.removeprefix(REGISTRY).partition("__")[0] if name.startswith(REGISTRY) else ""


def marks_in(variable: Fields) -> set[Mark]:
    """Return the marks in a registry variable; none when somebody has made something else of it, of whatever project."""
    try:
        value = MARKS.validate_python(variable["value"])
    except ValidationError:
        return set()
    return {(label, name) for label, names in value.items() for name in names}


def as_value(marks: Set[Mark]) -> dict[str, list[str]]:
    return {label: sorted(name for of, name in marks if of == label) for label, _ in marks}


async def register(client: PrefectClient, add: Set[Mark] = frozenset(), remove: Set[Mark] = frozenset()) -> None:
    """Mark objects without tags as this project's, before they are created, or take the mark away."""
    found = {one["name"]: one for one in await VARIABLES.read(client, set()) if registry_of(one) == PROJECT}
    wanted = {name: marks_in(one) - remove for name, one in found.items()}
    for mark in sorted({*add}.difference(*wanted.values())):
        names = (f"{REGISTRY}{PROJECT}{f'__{number}' if number else ''}" for number in count())
        sizes = ((name, len(json.dumps(as_value(wanted.get(name, set()) | {mark})))) for name in names)
        wanted.setdefault(next(name for name, size in sizes if size < LARGEST), set()).add(mark)
    for name, marks in wanted.items():
        fields = {"name": name, "value": as_value(marks), "tags": [PROJECT_TAG]}
        if marks:
            await save(client, compare(VARIABLES, name, fields, found.get(name, {})))
        else:
            await VARIABLES.delete(client, found[name])
