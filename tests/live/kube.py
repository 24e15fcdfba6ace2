"""A Kubernetes API on loopback, as far as a Prefect worker uses it: Jobs become pods, pods are processes here.

    python kube.py PORT FOLDER SECRETS

It writes each Job, as it was submitted, to FOLDER/jobs.jsonl, and starts the containers' commands in FOLDER with the
values of SECRETS, in JSON: name -> key -> value.
"""

import asyncio
import json
import os
import random
import string
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kmock

Manifest = dict[str, Any]
JOBS, PODS = kmock.resource("batch", "v1", "jobs"), kmock.resource("", "v1", "pods")
KINDS = {
    "v1/namespaces": "Namespace",
    "v1/pods": "Pod",
    "v1/events": "Event",
    "v1/secrets": "Secret",
    "v1/configmaps": "ConfigMap",
    "batch/v1/jobs": "Job",
    "events.k8s.io/v1/events": "Event",
    "apiextensions.k8s.io/v1/customresourcedefinitions": "CustomResourceDefinition",
}
WHOLE_CLUSTER = ("v1/namespaces", "apiextensions.k8s.io/v1/customresourcedefinitions")
VERBS = {"list", "watch", "get", "create", "patch", "delete", "update"}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def suffix() -> str:
    return "".join(random.choices(string.ascii_lowercase, k=5))


class Cluster(kmock.KubernetesEmulator):
    """An API server that names what it is given, and a controller and a node for Jobs."""

    def __init__(self, folder: Path, secrets: dict[str, dict[str, str]]) -> None:
        super().__init__()
        self.folder, self.secrets = folder, secrets
        self.pods: set[asyncio.Task[None]] = set()

    async def _handle(self, request: Any) -> Any:
        if request.resource == JOBS and request.action == kmock.action.CREATE:
            with (self.folder / "jobs.jsonl").open("a") as file:
                print(json.dumps(request.data), file=file)
            metadata = request.data["metadata"]
            metadata.setdefault("name", metadata.get("generateName", "") + suffix())
            metadata |= {"namespace": request.namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now()}
            request.data.setdefault("status", {})
            task = asyncio.create_task(self.run(request.data))
            self.pods.add(task)
        return await super()._handle(request)

    async def put(self, resource: Any, manifest: Manifest, event: str) -> None:
        key = (resource, manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        if key in self.objects:
            self.objects[key].patch(manifest)
        else:
            self.objects[key] = manifest
        await self._buses[resource].put({"type": event, "object": self.objects[key].raw})

    def value(self, variable: Manifest) -> str:
        if "value" in variable:
            return variable["value"]
        reference = variable["valueFrom"]["secretKeyRef"]
        return self.secrets[reference["name"]][reference["key"]]

    async def run(self, job: Manifest) -> None:
        """Do what the Job controller and a kubelet do."""
        await asyncio.sleep(0.2)
        template, owner = job["spec"]["template"], job["metadata"]
        container = template["spec"]["containers"][0]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{owner['name']}-{suffix()}",
                "namespace": owner["namespace"],
                "uid": str(uuid.uuid4()),
                "creationTimestamp": now(),
                "resourceVersion": "1",
                "labels": template.get("metadata", {}).get("labels", {}) | {"job-name": owner["name"]},
                "ownerReferences": [
                    {"apiVersion": "batch/v1", "kind": "Job", "name": owner["name"], "uid": owner["uid"]}
                ],
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }
        await self.put(PODS, pod, "ADDED")
        await self.put(PODS, pod | {"status": {"phase": "Running", "startTime": now()}}, "MODIFIED")
        env = {variable["name"]: self.value(variable) for variable in container.get("env", [])}
        with (self.folder / "pod.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *container.get("command", []),
                *container["args"],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **env},
                stdout=log,
                stderr=log,
            )
            failed = await process.wait() != 0
        pod["status"] = {"phase": "Failed" if failed else "Succeeded"}
        await self.put(PODS, pod, "MODIFIED")
        condition = {"type": "Failed" if failed else "Complete", "status": "True"}
        status = {"failed" if failed else "succeeded": 1, "completionTime": now(), "conditions": [condition]}
        await self.put(JOBS, job | {"status": status}, "MODIFIED")


async def main(port: int, folder: Path, secrets: dict[str, dict[str, str]]) -> None:
    async with Cluster(folder, secrets) as cluster:
        for resource, kind in KINDS.items():
            namespaced = resource not in WHOLE_CLUSTER
            cluster.resources[resource] = {"namespaced": namespaced, "verbs": VERBS, "kind": kind}
        for name in ("default", "kube-system"):
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": f"uid-{name}"}}
            cluster.objects["v1/namespaces", None, name] = namespace
        async with kmock.Server(cluster, host="127.0.0.1", port=port):
            print("ready", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
