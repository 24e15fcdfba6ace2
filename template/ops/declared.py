"""All that the repository declares, in one place, with every fault that can be found without the server."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect.automations import AutomationCore
from prefect.blocks.core import Block
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.utilities.dispatch import get_registry_for_type
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessWorker
from pydantic import AnyHttpUrl, BaseModel, ValidationError

from ops import deployments
from ops.automations import alert_tags, automations
from ops.blocks import BLOCKS
from ops.environments import ENVIRONMENTS, Environment
from ops.kinds import KINDS, Fields, automation_fields
from ops.limits import GLOBAL_CONCURRENCY_LIMITS, TAG_LIMITS
from ops.settings import PROJECT, PROJECT_TAG, MissingSetting, OpsError, Settings, problems, run_variables
from ops.variables import VARIABLES
from ops.work_pools import WORK_QUEUES, job_template, work_pools

LOCAL_POOL = f"{PROJECT}-local"  # a name of its own: the type of a pool cannot change
LOOKED_UP = {"work pool": ["base_job_template"], "deployment": ["job_variables", "pull_steps"]}  # by workers
Ids = dict[tuple[str, str], str]  # (kind, name) -> id on the server


class Declared:
    """The declarations of this repository for one environment.

    Attributes:
        objects: kind -> name -> the declared fields
        faults: what is wrong, one line each
        notes: what is worth knowing and stops nothing
        owner: whose they are: the project's, or those of one preview of it
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.owner = f"{PROJECT}.{settings.preview}" if settings.preview else PROJECT
        self.objects: dict[str, dict[str, Fields]] = {kind.label: {} for kind in KINDS}
        self.faults: list[str] = []
        self.notes: list[str] = []
        self.blocks: dict[str, str] = {}  # name in ops/blocks.py -> type/name
        self.left_out: dict[str, str] = {}  # name in ops/blocks.py -> why
        self.stand_ins: dict[str, str] = {}  # id -> what is not on the server yet

        environment = ENVIRONMENTS[settings.prefect_env]
        for name, setting in Settings.model_fields.items():
            if setting.default == "" and not (getattr(settings, name) or environment.local):  # work pools need it
                self.faults.append(str(MissingSetting({name.upper(): setting.description or ""})))
        pools = [pool.model_copy(update={"name": pool.name + environment.pool_suffix}) for pool in work_pools(settings)]
        # A laptop lacks the containers or the cloud of other pools: one pool of processes, and so one worker, stands in.
        stays = [pool.name for pool in pools if pool.type == "process" or not environment.local]
        self.homes = {pool.name: pool.name if pool.name in stays else LOCAL_POOL for pool in pools}
        found = deployments.load(environment, pools)  # first: it sets IMAGE_TAG, which the variables of runs may repeat
        self.add_pools(pools, environment)
        for limit in GLOBAL_CONCURRENCY_LIMITS:
            self.add("global concurrency limit", limit.name, set_fields(limit))
        for tag, slots in TAG_LIMITS.items():
            self.add("tag limit", tag, {"tag": tag, "concurrency_limit": slots})
        for variable in VARIABLES:
            tags = sorted({*(variable.tags or []), PROJECT_TAG})
            self.add("variable", variable.name, {"name": variable.name, "value": variable.value, "tags": tags})
        for name, make in BLOCKS.items():
            self.add_block(name, make)
        self.add_deployments(*found)
        if settings.preview:
            self.leave_only_deployments(settings.preview)

    def add_pools(self, pools: list[WorkPoolCreate], environment: Environment) -> None:
        """Declare the work pools and their queues."""
        types = get_registry_for_type(BaseWorker) or {}
        for pool in pools:
            kind = pool.type.partition(":")[0]  # of ecs:push, ecs
            if kind not in types and (near := deployments.hint(kind, types, cutoff=0.9)):
                self.faults.append(f"work pool {pool.name}: unknown type {pool.type}{near}")
            if pool.name.lower().startswith("prefect"):
                self.faults.append(f"work pool {pool.name}: Prefect keeps names that begin with prefect for itself")
            self.faults += [f"work pool {pool.name}: {fault}" for fault in misfit_defaults(pool.base_job_template)]
            if self.homes[pool.name] == pool.name:
                self.add("work pool", pool.name, self.with_run_variables(pool))
        if others := sorted({pool.type for pool in pools if self.homes[pool.name] != pool.name}):
            self.add("work pool", LOCAL_POOL, self.with_run_variables(local_pool()))
            told = f"{' and '.join(others)} is for other environments: runs are processes of the pool {LOCAL_POOL}"
            self.notes.append(told)
        for pool_name, queues in WORK_QUEUES.items():
            home = self.homes.get(pool_name + environment.pool_suffix)
            if not home:
                self.faults.append(f"work queues of {pool_name}: that work pool is not declared in ops/work_pools.py")
                continue
            priorities = Counter(queue.priority for queue in queues if queue.priority)
            twice = [f"two have the priority {priority}" for priority, count in priorities.items() if count > 1]
            self.faults += [f"work queues of {pool_name}: {fault}" for fault in twice]
            for queue in sorted(queues, key=lambda queue: queue.priority or 0):  # they are written in this order
                name = f"{home}/{queue.name}"
                if home != LOCAL_POOL or name not in self.objects["work queue"]:  # two pools may have such a queue
                    fields = {"work_pool_name": home, **set_fields(queue)}
                    if home == LOCAL_POOL:  # two pools may have the same ones
                        fields.pop("priority", None)
                    self.add("work queue", name, fields)

    def with_run_variables(self, pool: WorkPoolCreate) -> Fields:
        """Return the fields of a work pool that gives its runs their variables; what its own `env` sets stays."""
        fields = set_fields(pool) | {"type": pool.type}
        env = job_variables_of(fields).get("env", {})
        if isinstance(own := env.get("default") or {}, dict):  # else it is told as a fault
            env["default"] = {**run_variables(self.settings), **own}
        return fields

    def add_deployments(self, found: dict[str, Fields], triggers: deployments.Triggers, faults: list[str]) -> None:
        """Declare the deployments found in prefect.yaml, with the tags that each of them gets.

        A preview's have the variables of runs, for the pool is another environment's; so have those in a pool whose job
        template is not ours.
        """
        self.objects["deployment"], self.triggers = found, triggers
        self.faults += faults
        for deployment in self.objects["deployment"].values():
            try:
                deployment["tags"] = sorted(alert_tags(self.settings, deployment))
            except OpsError as error:
                self.faults += error.faults
            job_variables = deployment["job_variables"]
            home = self.homes.get(deployment["work_pool_name"], "")
            known = job_variables_of(self.objects["work pool"].get(home, {}))
            if self.settings.preview or "env" not in known:
                job_variables["env"] = {**run_variables(self.settings), **(job_variables.get("env") or {})}
            if home == LOCAL_POOL:
                kept = {name: value for name, value in job_variables.items() if name in known}
                deployment |= {"work_pool_name": LOCAL_POOL, "job_variables": kept, "pull_steps": []}

    def leave_only_deployments(self, preview: str) -> None:
        """Make this a preview: deployments under names of their own; all else is that of the server."""
        found = self.objects["deployment"].values()
        self.objects, self.triggers, self.notes = {kind.label: {} for kind in KINDS}, [], []
        for fields in found:
            tags = sorted({*fields["tags"], f"project:{self.owner}"} - {PROJECT_TAG})
            named = fields | {"name": f"{preview}-{fields['name']}", "tags": tags}
            self.add("deployment", f"{fields['flow_name']}/{named['name']}", named)

    def add(self, kind: str, name: str, fields: Fields) -> None:
        if name in self.objects[kind]:
            self.faults.append(f"{kind} {name} is declared twice")
        self.objects[kind][name] = fields

    def add_block(self, name: str, make: Callable[[Settings], Block]) -> None:
        if not re.fullmatch("[a-z0-9-]+", name):
            self.faults.append(f"block {name}: a name has lowercase letters, digits and dashes only")
        try:
            block = make(self.settings)
        except MissingSetting as error:
            self.left_out[name] = str(error)
            self.notes.append(f"block {name} is left out: {error}")
        except Exception as error:  # whatever a block raises; its own text may repeat the input, a secret
            what = type(error).__name__
            if isinstance(error, ValidationError):
                what = "; ".join(problems(error.errors()))
            elif isinstance(error, OpsError):
                what = str(error)
            self.left_out[name] = what
            self.faults.append(f"block {name}: {what}. Correct its settings in .env")
        else:
            if not can_send(block):
                self.faults.append(f"block {name}: nothing can be sent to that address. Correct its settings in .env")
            self.blocks[name] = f"{block.get_block_type_slug()}/{name}"
            declared_fields = set(type(block).model_fields)
            data = block.model_dump(
                mode="json", by_alias=True, include=declared_fields, context={"include_secrets": True}
            )
            self.add("block", self.blocks[name], {"name": name, "data": data, "block": block})

    def references(self) -> Iterator[tuple[str, str, str]]:
        """Yield the blocks and variables that workers will look up: for which work pool or deployment, kind, name."""
        for label, parts in LOOKED_UP.items():
            for name, fields in self.objects[label].items():
                for kind, referred in sorted(deployments.references([fields.get(part) for part in parts])):
                    yield f"{label} {name}", kind, referred

    def check_provisioned(self, pool: Fields, found: Fields) -> list[str]:
        """Return what is wrong with a pool whose job template Prefect Cloud makes, and with its job variables.

        Args:
            pool: as it is declared
            found: as it is on the server, or nothing
        """
        if not found:
            return [f"work pool {pool['name']} is not there yet: README.md has the command that makes it"]
        schema = found["base_job_template"].get("variables", {"properties": {}})
        return [
            f"deployment {name.rpartition('/')[2]}: {fault}"
            for name, fields in self.objects["deployment"].items()
            if fields["work_pool_name"] == pool["name"]
            for fault in deployments.misfits("job variable", fields["job_variables"], schema)
        ]

    def add_automations(self, ids: Ids) -> None:
        """Declare the automations again, now that blocks and deployments have the `ids` that they refer to.

        An object that is not on the server yet gets a stand-in id, which a plan never shows.
        """

        def id_of(kind: str, name: str) -> UUID:
            if id := ids.get((kind, name)):
                return UUID(id)
            stand_in = uuid5(NAMESPACE_URL, f"{kind} {name}")
            self.stand_ins[str(stand_in)] = f"{kind} {name}"
            return stand_in

        missing: dict[str, str] = {}  # why a block is -> the first such block

        def block_id(name: str) -> UUID:
            if name in self.blocks:
                return id_of("block", self.blocks[name])
            told = self.left_out.get(name, f"ops/blocks.py has no {name}")
            there = [id for (kind, one), id in ids.items() if kind == "block" and one.endswith(f"/{name}")]
            if name in self.left_out and there:  # whoever deploys has the setting: to look, nobody needs it
                return UUID(there[0])
            missing.setdefault(told, name)
            return UUID(int=0)

        self.objects["automation"], self.stand_ins = {}, {}
        if self.settings.preview:
            return
        try:
            declared = automations(self.settings, block_id, self.objects)
        except OpsError as error:
            self.faults += error.faults
            return
        except ValidationError as error:
            self.faults += [f"ops/automations.py: {problem}" for problem in problems(error.errors())]
            return
        if missing:
            self.faults += [f"automations need block {name}: {told}" for told, name in missing.items()]
            return
        for name, trigger in self.triggers:
            trigger.set_deployment_id(id_of("deployment", name))
            declared.append(trigger.as_automation())
        for automation in declared:
            self.faults += [f"automation {automation.name}: {fault}" for fault in find_faults(automation)]
            tagged = automation.model_copy(update={"tags": [*{*automation.tags, PROJECT_TAG}]})
            self.add("automation", automation.name, automation_fields(tagged))


def can_send(block: Block) -> bool:
    """Return whether a block that sends something has an address for that; any other block has no need of one."""
    if isinstance(block, Webhook):
        with suppress(ValidationError):
            return bool(AnyHttpUrl(block.url.get_secret_value()))
        return False
    return len(getattr(block, "_apprise_client", "not Apprise")) > 0


def local_pool() -> WorkPoolCreate:
    """Return the pool that stands in for others on a laptop."""
    template = job_template(ProcessWorker, command="python -m prefect.engine")
    return WorkPoolCreate(name=LOCAL_POOL, type="process", base_job_template=template)


def job_variables_of(pool: Fields) -> dict[str, Any]:
    """Return what the job template of a work pool says of its job variables; nothing if it has none."""
    return pool.get("base_job_template", {}).get("variables", {}).get("properties", {})


def misfit_defaults(template: dict[str, Any]) -> Iterator[str]:
    """Yield the defaults of job variables that do not fit the template's own schema."""
    if schema := template.get("variables"):
        given = {name: one["default"] for name, one in schema["properties"].items() if "default" in one}
        yield from deployments.misfits("default of job variable", given, schema)


def set_fields(model: BaseModel) -> Fields:
    return model.model_dump(mode="json", exclude_unset=True)


def find_faults(automation: AutomationCore) -> list[str]:
    """Return what Prefect accepts in an automation and nobody means: it drops a misspelt key in silence."""
    faults, triggers = [], [automation.trigger.model_dump()]
    for trigger in triggers:
        triggers += trigger.get("triggers", [])  # of a compound one
        if "expect" in trigger and not (trigger["match"] or trigger["match_related"]):
            faults.append("its trigger matches every resource of the server: say which with match or match_related")
        if "expect" in trigger and not trigger["expect"]:
            faults.append("its trigger matches every event: say which with expect")
    return faults
