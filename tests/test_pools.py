"""Every place where flows can run: what is rendered for it, against the schemas of those who read it."""

import asyncio
import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import google.auth
import kubernetes_validate
import pytest
import yaml
from answers import DEFAULTS, ROOT, Answers, Render, allowed
from cfnlint.api import lint_all
from checks import faults
from google.auth.credentials import AnonymousCredentials
from jsonschema import Draft7Validator, Draft202012Validator

POOLS = DEFAULTS["pools"]
KUBERNETES = "1.34"


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


def declared(module: Any) -> Any:
    """Return the declarations, with every setting that is needed."""
    needed = {name: "given" for name, field in module.Settings.model_fields.items() if field.default == ""}
    return module.Declared(module.Settings(_env_file=None, prefect_env="prod", **needed))


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
    charts = {file.stem for file in helm.iterdir()} - {"namespace"}
    assert charts == {"worker", "worker-heavy"} | ({"server"} if answers["prefect_backend"] == "server" else set())
    for chart in charts:
        (values,) = documents(helm / f"{chart}.yaml")
        chart = f"prefect-{chart.removesuffix('-heavy')}"
        assert unfit_values(chart, values) == []
        assert unfit_values(chart, values | {"wrker": {}}) == ["wrker"]


def test_a_misspelt_chart_value_is_found(render: Render) -> None:
    (values,) = documents(render(pool_type="kubernetes") / "helm/worker.yaml")
    values["worker"]["config"]["workpool"] = values["worker"]["config"].pop("workPool")
    assert "'workpool' was unexpected" in unfit_values("prefect-worker", values)[0]


def test_cloudformation_knows_what_is_in_infra(render: Render) -> None:
    found = lint_all((render(pool_type="ecs") / "infra/ecs.yaml").read_text("utf-8"))
    assert [str(match) for match in found if match.rule.id[0] in "EW"] == []


def fits_its_worker(template: Any, worker: str) -> dict[str, Any]:
    """Return the job that the worker makes of a job template; raise when the worker refuses it."""
    variables = template["variables"]
    given = {name: value["default"] for name, value in variables["properties"].items() if "default" in value}
    Draft202012Validator(variables | {"required": []}).validate(given)
    module, name = worker.rsplit(".", 1)
    configuration = getattr(importlib.import_module(module), name).job_configuration
    job = asyncio.run(configuration.from_template_and_values(template, IMAGE, client=AsyncMock()))
    return job.model_dump()


def test_pools_fit_their_workers_and_misspelt_job_variables_are_found(
    render: Render, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("IMAGE_TAG", "1")
    monkeypatch.setattr(google.auth, "default", lambda *_, **__: (AnonymousCredentials(), "project"))
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
            if "worker" in row:
                for one in (pool, *others):
                    job = fits_its_worker(one["base_job_template"], row["worker"])
                    if one["type"] == "kubernetes":
                        kubernetes_validate.validate(job["job_manifest"], KUBERNETES, strict=True)
            else:
                (fault,) = mine.check_provisioned(pool, {})
                assert f"prefect work-pool create --type {row['type']}" in fault
        misspell(project / "prefect.yaml")
        with monkeypatch.context() as patch, imported(project, patch) as module:
            mine = declared(module)
            if "worker" not in row:  # then it is the server that has the template
                mine.faults += mine.check_provisioned(pool, {"base_job_template": {"variables": PUSH}})
            assert [fault for fault in mine.faults if "did you mean" in fault] == [
                f"deployment {name}: unknown job variable evn, did you mean env?"
                for name in ("etl-daily", "ml-training")
            ], answers


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
