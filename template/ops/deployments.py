"""The deployments of `prefect.yaml`, checked more strictly than Prefect does.

Prefect accepts a misspelt key, an unknown parameter or a job variable that does not exist, and the
runs fail later. Here each of them is a fault, and all faults of the file are found at once.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout, suppress
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from jsonschema import Draft202012Validator
from prefect.client.schemas.actions import NormalizedSchedule, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.deployments.steps.core import run_steps
from prefect.events import DeploymentTriggerTypes
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.templating import PlaceholderType, apply_values, find_placeholders
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from ops.environments import Environment
from ops.settings import PROJECT_TAG, ROOT, OpsError, problems

FILE = ROOT / "prefect.yaml"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times faster, and not everywhere
TRIGGER = TypeAdapter(DeploymentTriggerTypes)
Form = TypeVar("Form")
Triggers = list[tuple[str, Any]]  # flow/deployment and the trigger that runs it


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def leave_out_nulls(cls, raw: Any) -> Any:  # `prefect deploy` writes each key that it knows
        return {key: value for key, value in raw.items() if value is not None} if isinstance(raw, dict) else raw


TIMINGS = {"cron": CronSchedule, "interval": IntervalSchedule, "rrule": RRuleSchedule}


class Schedule(Strict):
    """Read with cron, interval (seconds) or rrule at the top, as prefect.yaml has it; the slug is its identity."""

    slug: str | None = None
    active: bool = True
    parameters: dict[str, Any] = {}
    schedule: NormalizedSchedule  # an rrule gets its start here, as on the server

    @model_validator(mode="before")
    @classmethod
    def read_timing(cls, raw: Any) -> Any:
        given = [key for key in TIMINGS if isinstance(raw, dict) and raw.get(key) is not None]
        if len(given) != 1 or "schedule" in raw:
            raise ValueError("needs exactly one of cron, interval and rrule")
        if len(str(raw.get("cron")).split()) == 6:
            raise ValueError("cron has five fields; of six, the last would be the seconds")
        if given == ["interval"] and not raw.get("anchor_date"):
            raise ValueError("interval needs an anchor_date, else each deploy moves its phase")
        form = TIMINGS[given[0]]
        timing = {"timezone": "UTC"} | {key: raw[key] for key in form.model_fields if key in raw}
        return {key: raw[key] for key in raw if key not in timing} | {"schedule": form.model_validate(timing)}


class ConcurrencyLimit(ConcurrencyLimitConfig, extra="forbid"):
    limit: int = Field(gt=0)


def read_short_form(value: Any) -> Any:
    return {"limit": value} if isinstance(value, int) else value


class WorkPool(Strict):
    name: str
    work_queue_name: str = "default"
    job_variables: dict[str, Any] = {}


class Deployment(Strict):
    """One entry of `deployments:`, with the names and meanings of Prefect's own format."""

    name: str = Field(pattern=r"^[^/%&><]+$")
    entrypoint: str = Field(pattern=r"^.+:[\w.]+$|^\w+(\.\w+)+$")
    work_pool: WorkPool
    description: str | None = None
    version: str | None = None
    tags: list[str] = []
    parameters: dict[str, Any] = {}
    enforce_parameter_schema: bool = True
    schedules: list[Schedule] = []
    concurrency_limit: Annotated[ConcurrencyLimit | None, BeforeValidator(read_short_form)] = None
    pull: list[dict[str, Any]] | None = None
    triggers: list[dict[str, Any]] = []


Steps = list[dict[str, dict[str, Any]]]


class PrefectYaml(Strict, extra="ignore"):
    """The file; other keys, such as `definitions` with YAML anchors, are ignored as Prefect does."""

    build: Steps = []
    push: Steps = []
    pull: list[dict[str, Any]] | None = None
    deployments: list[dict[str, Any]] = []


def load(
    environment: Environment, pools: Iterable[WorkPoolCreate], file: Path = FILE
) -> tuple[dict[str, dict[str, Any]], Triggers, list[str]]:
    """Return the fields that the API takes, by flow/deployment; the triggers; and all faults, one line each.

    The job templates of `pools`, the declared work pools, say which job variables exist; of a pool without one, whose
    template Prefect Cloud makes, `Declared.check_provisioned` tells.
    """
    declared: dict[str, dict[str, Any]] = {}
    triggers: Triggers = []
    faults: list[str] = []
    schemas = {pool.name: pool.base_job_template.get("variables") for pool in pools}
    try:
        content = read(file)
        images = built_images(content)
    except OpsError as error:
        return {}, [], [f"{file.name}: {fault}" for fault in error.faults]
    for number, raw in enumerate(content.deployments, start=1):
        found: list[str] = []
        try:
            entry = validate(Deployment.model_validate, fill_in(raw, images))
            entry.work_pool.name += environment.pool_suffix
            entry.parameters |= environment.parameters.get(entry.name, {})
            entry.pull = content.pull if entry.pull is None else entry.pull
            flow, schema = load_flow(entry.entrypoint)
            for position, schedule in enumerate(entry.schedules, start=1):
                schedule.slug = schedule.slug or f"schedule-{position}"
                schedule.active = schedule.active and environment.schedules
            name = f"{flow.name}/{entry.name}"
            found += [f"{name} is declared twice"] if name in declared else []
            found += [*check(entry, schema), *check_work_pool(entry, schemas, list(images)), *check_references(raw)]
            declared[name] = to_fields(entry, flow, schema, environment)
            triggers += [(name, trigger) for trigger in read_triggers(name, entry.triggers, found)]
        except OpsError as error:
            found += error.faults
        faults += [f"deployment {raw.get('name') or f'number {number}'}: {fault}" for fault in found]
    names = [str(raw.get("name")) for raw in content.deployments]
    for name in environment.parameters.keys() - names:
        faults.append(f"ops/environments.py: there is no deployment {name}{hint(name, names)}")
    return declared, triggers, faults


def read(file: Path) -> PrefectYaml:
    try:
        raw = yaml.load(file.read_text("utf-8"), LOADER) or {}  # noqa: S506 (safe, too)
        # through JSON, as the API takes it: a date without quotes becomes text; a key that is one, or .nan, it refuses
        raw = json.loads(json.dumps(raw, default=str, allow_nan=False))
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise OpsError(" ".join(str(error).split())) from error
    content = validate(PrefectYaml.model_validate, raw)
    for key in raw.keys() - PrefectYaml.model_fields.keys():
        if near := hint(key, PrefectYaml.model_fields, cutoff=0.8):
            raise OpsError(f"unknown key {key}{near}")
    return content


def validate(form: Callable[[Any], Form], raw: Any) -> Form:
    """Return `raw` in a `form`; raise OpsError with a line per problem, for a misspelt key with the right one."""
    try:
        return form(raw)
    except ValidationError as error:
        models = (Deployment, Schedule, *TIMINGS.values(), WorkPool, ConcurrencyLimit)
        keys = {key for model in models for key in model.model_fields} - {"schedule"}
        faults = []
        for problem, told in zip(error.errors(), problems(error.errors()), strict=True):
            where, is_key = ".".join(map(str, problem["loc"])), problem["type"] == "extra_forbidden"
            faults.append(f"unknown key {where}{hint(where.split('.')[-1], keys)}" if is_key else told)
        raise OpsError(*faults) from error


def hint(name: str, right: Iterable[str], cutoff: float = 0.6) -> str:
    near = get_close_matches(name, list(right), n=1, cutoff=cutoff)
    return f", did you mean {near[0]}?" if near else ""


UNCOMMITTED = "uncommitted"


def built_images(content: PrefectYaml) -> dict[str, dict[str, str]]:
    """Return by id what the steps under `build` will return of the images that they make; nothing is built."""
    if content.build:
        os.environ.setdefault("IMAGE_TAG", commit())
    steps = [fill_in(inputs) for step in content.build for inputs in step.values() if {"id", "tag"} <= inputs.keys()]
    names = {step["id"]: (step["image_name"], step["tag"]) for step in steps}
    return {id: {"image_name": name, "tag": tag, "image": f"{name}:{tag}"} for id, (name, tag) in names.items()}


def commit() -> str:
    """Return the commit that is checked out, or "uncommitted" when the files are not all in one."""
    git = partial(subprocess.check_output, cwd=ROOT, stderr=subprocess.DEVNULL, text=True)
    with suppress(OSError, subprocess.CalledProcessError):
        if not git(["git", "status", "--porcelain", "."]):
            return git(["git", "rev-parse", "HEAD"]).strip()
    return UNCOMMITTED


async def build(say: Callable[[str], None]) -> bool:
    """Run the steps under `build` and `push` of prefect.yaml, once for all deployments; return whether there are any."""
    content = read(FILE)
    if not (content.build or content.push):
        return False
    if any(image["tag"] == UNCOMMITTED for image in built_images(content).values()):
        raise OpsError("an image is tagged with its commit: commit your changes first, or set IMAGE_TAG")
    try:
        await run_steps([*content.build, *content.push], print_function=say)
    except Exception as error:  # whatever a step raises
        cause = error.__cause__ or error
        raise OpsError(f"no image, so nothing was written: {' '.join(str(cause).split())}") from error
    return True


def fill_in(raw: dict[str, Any], outputs: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return an entry with each {{ $NAME }} filled from the environment; `pull` is filled in by the worker."""
    here = {key: value for key, value in raw.items() if key != "pull"}
    names = {p.name.lstrip("$") for p in find_placeholders(here) if p.type is PlaceholderType.ENV_VAR}
    if missing := sorted(names - os.environ.keys()):
        raise OpsError(f"environment variable {', '.join(missing)} is not set")
    return {**raw, **apply_values(here, outputs or {}, remove_notset=False)}  # ty: ignore[invalid-argument-type]


@cache
def load_flow(entrypoint: str) -> tuple[Flow, dict[str, Any]]:
    """Return a flow and the JSON schema of its parameters."""
    try:
        with redirect_stdout(sys.stderr):  # what it prints is no part of a plan
            flow: Flow = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
        return flow, flow.parameters.model_dump(mode="json")
    except (Exception, SystemExit) as error:  # whatever an import can raise
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise OpsError(f"cannot import {entrypoint}: {told}") from error


def to_fields(entry: Deployment, flow: Flow, schema: dict[str, Any], environment: Environment) -> dict[str, Any]:
    limit, pool = entry.concurrency_limit, entry.work_pool
    return entry.model_dump(mode="json", exclude={"pull", "triggers", "work_pool"}) | {
        "flow_name": flow.name,
        "description": entry.description or flow.description,
        "tags": sorted({*entry.tags, *environment.tags, PROJECT_TAG}),
        "parameter_openapi_schema": schema,
        "pull_steps": entry.pull,
        "work_pool_name": pool.name,
        "work_queue_name": pool.work_queue_name,
        "job_variables": pool.job_variables,
        "concurrency_limit": limit and limit.limit,
        "concurrency_options": limit and limit.model_dump(mode="json", exclude={"limit"}, exclude_none=True),
    }


def check(entry: Deployment, schema: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with an entry, its parameters and those of its schedules against the flow's schema."""
    if entry.pull is None:  # Prefect would write the path of this machine into the deployment
        yield "say where workers find the code with `pull:`; `pull: []` for an installed project"
    slugs = Counter(schedule.slug for schedule in entry.schedules)
    yield from (f"schedule slug {slug} is used twice" for slug, count in slugs.items() if count > 1)
    if not entry.enforce_parameter_schema:
        return
    yield from misfits("parameter", entry.parameters, schema)
    for schedule in entry.schedules:
        origin = f" of schedule {schedule.slug}"
        yield from misfits("parameter", schedule.parameters, schema, origin)
        if missing := sorted(set(schema.get("required", [])) - entry.parameters.keys() - schedule.parameters.keys()):
            yield f"parameter {', '.join(missing)}{origin} has no value, so its runs would fail"


def check_work_pool(entry: Deployment, schemas: dict[str, dict[str, Any] | None], images: list[str]) -> Iterator[str]:
    """Yield the faults of the pool's name and of the job variables, and whether runs would not find the flow.

    Args:
        entry: what it says of its pool, and where the flow is
        schemas: of the job variables of each declared pool; None where Prefect Cloud has it
        images: ids of the steps that build one
    """
    pool = entry.work_pool
    if pool.name not in schemas:
        yield f"work pool {pool.name} is not declared in ops/work_pools.py{hint(pool.name, schemas)}"
        return
    schema = schemas[pool.name]
    if schema:
        yield from misfits("job variable", pool.job_variables, schema)
    known = schema["properties"] if schema else {"image": {}}

    def lacks(variable: str) -> bool:
        return variable in known and not (pool.job_variables.get(variable) or known[variable].get("default"))

    if images and not entry.pull and lacks("image"):
        yield f"its runs would have no flows: in job_variables, set image to that of the step {images[0]}, as others do"
    path, _, flow = entry.entrypoint.rpartition(":")
    if path and not (entry.pull or Path(path).is_absolute()) and lacks("working_dir"):
        module = ".".join([*Path(path).with_suffix("").parts, flow])
        yield f"runs start in an empty folder and would not find {path}: as entrypoint, write {module}"
    for placeholder in sorted(find_placeholders(pool.job_variables)):
        if placeholder.type is PlaceholderType.STANDARD:
            yield f"{placeholder.full_match} is no output of a step under build"


def misfits(what: str, values: dict[str, Any], schema: dict[str, Any], origin: str = "") -> Iterator[str]:
    for name in sorted(values.keys() - schema["properties"].keys()):
        yield f"unknown {what} {name}{origin}{hint(name, schema['properties'])}"
    for problem in Draft202012Validator({**schema, "required": []}).iter_errors(values):
        yield f"{what} {'.'.join(map(str, problem.absolute_path))}{origin}: {problem.message}"


def check_references(raw: dict[str, Any]) -> Iterator[str]:
    """Yield the references that nobody would resolve: of blocks and variables, workers do in job variables and pull."""
    rest = {key: value for key, value in raw.items() if key not in ("pull", "work_pool", "triggers")}
    for placeholder in sorted(find_placeholders(rest)):
        if placeholder.type in (PlaceholderType.BLOCK_DOCUMENT, PlaceholderType.VARIABLE):
            yield f"{placeholder.full_match} works in job_variables and pull only: load it in the flow"


def references(content: Any) -> Iterator[tuple[str, str]]:
    """Yield kind and name of each block and variable that workers will look up for job variables and pull steps."""
    for placeholder in find_placeholders(content):
        parts = placeholder.name.split(".")[2:]  # without prefect.blocks or prefect.variables
        if placeholder.type is PlaceholderType.BLOCK_DOCUMENT:
            yield "block", "/".join(parts[:2])
        elif placeholder.type is PlaceholderType.VARIABLE:
            yield "variable", ".".join(parts)


def read_triggers(name: str, entries: list[dict[str, Any]], faults: list[str]) -> Iterator[Any]:
    """Yield the triggers of a deployment; add to `faults` what is wrong, also a key that Prefect would drop in silence."""
    for position, raw in enumerate(entries, start=1):
        try:
            trigger = validate(TRIGGER.validate_python, raw)
            if unknown := [*unknown_keys(trigger, raw)]:
                raise OpsError(*unknown)
        except OpsError as error:
            faults += [f"trigger {position}: {fault}" for fault in error.faults]
            continue
        trigger.name = trigger.name or f"{name}__automation_{position}"
        yield trigger


def unknown_keys(trigger: BaseModel, raw: dict[str, Any]) -> Iterator[str]:
    known = {*type(trigger).model_fields, "type"}
    yield from (f"unknown key {key}{hint(key, known)}" for key in sorted(raw.keys() - known))
    for inner, part in zip(getattr(trigger, "triggers", []), raw.get("triggers", []), strict=False):
        yield from unknown_keys(inner, part)
