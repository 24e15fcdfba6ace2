"""The real workers of Kubernetes and ECS against APIs that answer like those, and pools that have no worker."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import kubernetes_validate
import pytest
import yaml
from answers import Render
from moto.ecs.models import EC2ContainerServiceBackend
from moto.server import ThreadedMotoServer
from ops_server import AUTH, SECRET, SETTINGS, Server, free_port

from demo import without_prefect_settings

pytestmark = pytest.mark.live
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Project:
    """A rendered project whose commands run in the environment of this repository, which has every worker."""

    def __init__(self, folder: Path, server: Server, **env: str) -> None:
        self.folder, self.server = folder, server
        content = yaml.safe_load((folder / "prefect.yaml").read_text())
        self.pool = next(one["work_pool"]["name"] for one in content["deployments"] if one["name"] == "ml-training")
        self.env = without_prefect_settings(dict(os.environ)) | SETTINGS | {
            "DO_NOT_TRACK": "1",
            "IMAGE_TAG": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PREFECT_API_AUTH_STRING": AUTH,
            "PREFECT_API_URL": server.url,
            "PREFECT_HOME": str(folder / ".prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PYTHONPATH": str(folder),
            **env,
        }  # fmt: skip

    def python(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, cwd=self.folder, env=self.env | env, capture_output=True, text=True, timeout=300)

    def deploy(self) -> None:
        done = self.python("ops", "apply", "--yes", "--skip-build")
        assert done.returncode == 0, done.stdout + done.stderr

    def destroy(self) -> None:
        """Delete what it made on the server, which the next project declares, too."""
        done = self.python("ops", "destroy", "--yes")
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self) -> str:
        """Ask for a run of the deployment ml-training and return its id."""
        deployment = self.server("GET", "/deployments/name/ml-training/ml-training")
        body = {"state": {"type": "SCHEDULED"}}
        return self.server("POST", f"/deployments/{deployment['id']}/create_flow_run", body)["id"]

    @contextmanager
    def worker(self, type: str, **env: str) -> Iterator[Path]:
        """A real worker as the project's chart or service starts it; gives its log."""
        log = self.folder.parent / "worker.log"
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", self.pool, "--type", type]
        with log.open("w") as file:
            process = subprocess.Popen(
                [*command, "--no-create-pool-if-not-found"],
                cwd=self.folder.parent,
                env=self.env | env,
                stdout=file,
                stderr=file,
            )
            try:
                yield log
            finally:
                process.kill()
                process.wait()


def until(condition: Any, seconds: float, log: Path) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.5)
    raise AssertionError(log.read_text()[-4000:])


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a worker that has a cluster."""
    port = free_port()
    secrets = {"prefect-auth": {"auth-string": AUTH}}
    command = [sys.executable, str(Path(__file__).with_name("kube.py")), str(port), str(tmp_path), json.dumps(secrets)]
    env = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(command, env=os.environ | env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "my-flows"}}],
            "current-context": "c",
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        yield {
            "KUBECONFIG": str(tmp_path / "kubeconfig"),
            # as the chart sets them for the values in helm/worker.yaml
            "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES": "my-flows",
            "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_NAME": "prefect-auth",
            "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_KEY": "auth-string",
        }
        process.kill()


def test_kubernetes_worker_submits_the_declared_job(
    server: Server, render: Render, kubernetes: dict[str, str], tmp_path: Path
) -> None:
    project = Project(render(pool_type="kubernetes", cloud_provider="azure", image_registry=""), server)
    project.deploy()
    for package in ("flows", "runtime"):  # what the image holds
        (tmp_path / package).symlink_to(project.folder / package)
    run = project.run()
    with project.worker("kubernetes", **kubernetes) as log:

        def state() -> str | None:
            found = server("GET", f"/flow_runs/{run}")["state_type"]
            return found if found in FINAL else None

        assert until(state, 240, log) == "COMPLETED", (tmp_path / "pod.log").read_text()[-4000:]
    (line,) = (tmp_path / "jobs.jsonl").read_text().splitlines()
    job = json.loads(line)
    kubernetes_validate.validate(job, "1.34", strict=True)
    assert job["metadata"]["namespace"] == "my-flows"
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (1, 1, 0)
    assert spec["ttlSecondsAfterFinished"] == 3600
    assert job["spec"]["template"]["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert pod["serviceAccountName"] == "flow-runs"
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["image"] == "my-flows:1"
    assert container["resources"] == {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "8Gi"}}
    assert container["envFrom"] == [{"secretRef": {"name": "flow-secrets", "optional": True}}]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    reference = {"secretKeyRef": {"name": "prefect-auth", "key": "auth-string"}}
    assert {"name": "PREFECT_API_AUTH_STRING", "valueFrom": reference} in container["env"]
    assert AUTH not in line
    project.destroy()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment of a worker that has an AWS account."""
    measure = EC2ContainerServiceBackend._calculate_task_resource_requirements

    def whole_task(task_definition: Any) -> Any:  # Fargate knows the memory of the task; moto asks each container
        for container in task_definition.container_definitions:
            container.setdefault("memory", int(task_definition.memory))
        return measure(task_definition)

    monkeypatch.setattr(EC2ContainerServiceBackend, "_calculate_task_resource_requirements", staticmethod(whole_task))
    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    env = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }
    with monkeypatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        yield env
    running.stop()


def runs(ecs: Any) -> list[dict[str, Any]]:
    """Return the tasks of the cluster that are not the worker itself."""
    arns = ecs.list_tasks(cluster="tasks")["taskArns"]
    tasks = ecs.describe_tasks(cluster="tasks", tasks=arns, include=["TAGS"])["tasks"] if arns else []
    return [task for task in tasks if "/tasks-worker:" not in task["taskDefinitionArn"]]


def test_ecs_worker_runs_the_declared_task(server: Server, render: Render, aws: dict[str, str]) -> None:
    folder = render(pool_type="ecs", image_registry="", project_name="tasks", secrets_backend="environment")
    vpc = boto3.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    subnets = [one["SubnetId"] for one in boto3.client("ec2").describe_subnets()["Subnets"]][:2]
    secret = boto3.client("secretsmanager").create_secret(Name="prefect-api", SecretString=AUTH)["ARN"]
    cloudformation = boto3.client("cloudformation")
    cloudformation.create_stack(
        StackName="tasks",
        TemplateBody=(folder / "infra/ecs.yaml").read_text(),
        Parameters=[
            {"ParameterKey": "VpcId", "ParameterValue": vpc},
            {"ParameterKey": "SubnetIds", "ParameterValue": ",".join(subnets)},
            {"ParameterKey": "ApiUrl", "ParameterValue": server.url},
            {"ParameterKey": "ApiSecretArn", "ParameterValue": secret},
        ],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    (output,) = cloudformation.describe_stacks(StackName="tasks")["Stacks"][0]["Outputs"]
    settings = {
        "AWS_ACCOUNT_ID": "123456789012",
        "ECS_API_SECRET_ARN": secret,
        "ECS_SUBNET_IDS": ",".join(subnets),
        "ECS_VPC_ID": vpc,
        output["Description"]: output["OutputValue"],
    }
    project = Project(folder, server, **settings)
    told = project.python("ops", "plan", AWS_ACCOUNT_ID="", ECS_VPC_ID="")
    assert told.returncode == 1
    assert re.findall(r"(\w+) is not set", told.stdout + told.stderr) == ["AWS_ACCOUNT_ID", "ECS_VPC_ID"]
    project.deploy()
    run = project.run()
    ecs = boto3.client("ecs")
    queue = {"PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_SQS_QUEUE_NAME": "tasks-ecs-events"}
    with project.worker("ecs", **aws, **queue) as log:
        (task,) = until(lambda: runs(ecs), 120, log)
        assert "does not exist" not in log.read_text()  # the queue of events
    definition = ecs.describe_task_definition(taskDefinition=task["taskDefinitionArn"])["taskDefinition"]
    role = "arn:aws:iam::123456789012:role/tasks"
    assert (definition["cpu"], definition["memory"]) == ("4096", "16384")
    assert (definition["networkMode"], definition["requiresCompatibilities"]) == ("awsvpc", ["FARGATE"])
    assert definition["executionRoleArn"] == f"{role}-execution"
    boto3.client("iam").get_role(RoleName="tasks-execution")
    (container,) = definition["containerDefinitions"]
    assert container["image"] == "tasks:1"
    assert container["secrets"] == [
        {"name": "ETL_SOURCE_TOKEN", "valueFrom": "/tasks/etl-source-token"},
        {"name": "PREFECT_API_AUTH_STRING", "valueFrom": secret},
    ]
    policy = boto3.client("iam").get_role_policy(RoleName="tasks-execution", PolicyName="start-tasks")
    allowed = str(policy["PolicyDocument"])  # moto gives the text of a dictionary
    assert f"'Action': 'secretsmanager:GetSecretValue', 'Resource': '{secret}'" in allowed
    assert (
        "'Action': 'ssm:GetParameters', 'Resource': 'arn:aws:ssm:eu-west-1:123456789012:parameter/tasks/*'" in allowed
    )
    assert container["logConfiguration"]["options"] == {
        "awslogs-create-group": "false",
        "awslogs-group": "/ecs/tasks",
        "awslogs-region": "eu-west-1",
        "awslogs-stream-prefix": "flow-runs",
    }
    overrides = task["overrides"]
    assert overrides["taskRoleArn"] == f"{role}-flow-runs"
    assert overrides["containerOverrides"][0]["command"] == ["prefect", "flow-run", "execute"]
    variables = {one["name"]: one["value"] for one in overrides["containerOverrides"][0]["environment"]}
    assert variables["PREFECT__FLOW_RUN_ID"] == run
    shown = json.dumps([task, definition], default=str)
    assert AUTH not in shown
    assert SECRET not in shown  # of ETL_SOURCE_TOKEN, which the worker's own environment has
    project.destroy()


def test_a_pool_without_a_worker(server: Server, render: Render) -> None:
    project = Project(render(pool_type="managed", prefect_backend="cloud", project_name="managed"), server)
    missing = project.python("ops", "apply", "--yes")
    assert missing.returncode == 1
    assert "is not there yet: README.md has the command that makes it" in missing.stdout + missing.stderr
    variables = {"type": "object", "properties": {"env": {"type": "object"}, "pip_packages": {"type": "array"}}}
    template = {"job_configuration": {"env": "{{ env }}"}, "variables": variables}
    server("POST", "/work_pools/", {"name": "managed", "type": "prefect:managed", "base_job_template": template})
    file = project.folder / "prefect.yaml"
    right = file.read_text()
    file.write_text(
        right.replace('    name: "managed"\n', '    name: "managed"\n    job_variables: {evn: {A: b}}\n', 1)
    )
    refused = project.python("ops", "apply", "--yes")
    assert refused.returncode == 1
    assert "unknown job variable evn, did you mean env?" in " ".join((refused.stdout + refused.stderr).split())
    assert server("POST", "/deployments/filter", {"deployments": {"tags": {"all_": ["project:managed"]}}}) == []
    file.write_text(right)
    project.deploy()
    pool = server("GET", "/work_pools/managed")
    assert (pool["base_job_template"], pool["concurrency_limit"]) == (template, 10)
    assert project.python("ops", "check").returncode == 0
    worker = project.python("ops", "worker")
    assert (worker.returncode, worker.stderr.count("it needs no worker")) == (1, 1)
    doctor = project.python("ops", "doctor")
    assert "online" not in doctor.stdout
    assert doctor.returncode == 0, doctor.stdout
