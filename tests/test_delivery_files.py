"""Who may push the image without a password, and what the commands of `make` for delivery call."""

import json
import os
import re
import subprocess
from pathlib import Path

import boto3
import pytest
import yaml
from answers import DEFAULTS, Render
from cfnlint.api import lint_all

CLOUDS = {name: row for name, row in DEFAULTS["clouds"].items() if row["registries"]}
ISSUERS = {name: row for name, row in DEFAULTS["cis"].items() if row["issuer"]}
STAND_IN = '#!/bin/sh\n[ -t 0 ] || [ "$1" = buildx ] || input="$(cat)"\necho "${0##*/} $*${input:+ < $input}" >> "$CALLS"\n[ "$1" != "$FAILS" ]\n'


CREDENTIALS = {"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "hush-hush"}


def deliver(render: Render, cloud: str, **answers: str) -> Path:
    return render(pool_type="docker", image_registry=CLOUDS[cloud]["registry"], **answers)


@pytest.mark.parametrize("ci", ISSUERS)
@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_cloud_trusts_the_jobs_of_main_only(cloud: str, ci: str, render: Render) -> None:
    project = deliver(render, cloud, ci=ci)
    files = sorted(file.relative_to(project).as_posix() for file in project.glob("infra/*"))
    assert files == [CLOUDS[cloud]["trust_file"]]
    text = (project / files[0]).read_text("utf-8")
    if cloud == "aws":
        assert [str(match) for match in lint_all(text) if match.rule.id[0] in "EW"] == []
        found = re.findall(r":sub: (.+)", text)
    elif cloud == "gcp":
        flags = yaml.safe_load(text)
        assert flags["--issuer-uri"] == f"https://{ISSUERS[ci]['issuer']}"
        found = re.findall("'([^']+)'", flags["--attribute-condition"])
    else:
        resources = json.loads(text)["resources"]
        trusts = [one["properties"] for one in resources if one["type"].endswith("/federatedIdentityCredentials")]
        assert {trust["issuer"] for trust in trusts} == {f"https://{ISSUERS[ci]['issuer']}"}
        assert [trust["audiences"] for trust in trusts] == [["api://AzureADTokenExchange"]]
        found = [trust["subject"] for trust in trusts]
        names = [one["name"] for one in resources]
        assert len(names) == len(set(names))
    row = ISSUERS[ci] | ISSUERS[ci].get(f"in_{cloud}", {})
    assert found == [row["subject"]]
    assert "*" not in found[0]
    assert row["issuer"] in text
    readme = (project / "README.md").read_text("utf-8")
    assert f"Put in there what is yours:\n`{'`, `'.join(row['names'])}`." in readme
    assert all(name in text for name in row["names"])
    assert ("*Branch control*" in readme) == (ci == "azure-devops")  # its subject names no branch
    others = {other["variables"] for other in ISSUERS.values()} - {row["variables"]}
    assert (f"{row['variables']}: `" in readme) == (
        (cloud, ci) not in {("aws", "azure-devops"), ("azure", "azure-devops")}
    )
    assert not [told for told in others if told in readme]


def test_google_takes_the_token_of_a_connection_in_azure(render: Render) -> None:
    """As its documentation says: by the number of the audience, and by the end of a subject that is too long for it."""
    flags = yaml.safe_load((deliver(render, "gcp", ci="azure-devops") / "infra/registry-gcp.yaml").read_text("utf-8"))
    assert flags["--issuer-uri"].startswith("https://login.microsoftonline.com/")
    assert flags["--allowed-audiences"] == "fb60f99c-7a34-4190-8149-302f77469936"
    assert flags["--attribute-mapping"] == {"google.subject": "assertion.sub.extract('/sc/{service_connection}')"}


REGISTRIES = {
    "aws": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team",
    "gcp": "europe-docker.pkg.dev/acme/images",
    "azure": "acme.azurecr.io",
}


@pytest.mark.parametrize("ci", ["github", "none"])
@pytest.mark.parametrize("cloud", REGISTRIES)
def test_the_registry_is_made_where_its_address_says(cloud: str, ci: str, render: Render) -> None:
    project = render(pool_type="docker", image_registry=REGISTRIES[cloud], ci=ci)
    readme = (project / "README.md").read_text("utf-8").replace("\\\n", "")
    commands = [line for line in readme.splitlines() if line.startswith("$ ")]
    (make,) = [line for line in commands if re.search(r"(repository|repositories|acr) create|create-repository", line)]
    if cloud == "aws":
        assert "--region eu-west-1 --repository-name team/my-flows" in make
        assert ("IMMUTABLE_WITH_EXCLUSION" in make) == (ci == "github")  # on a laptop, the same commit is pushed twice
        cloudformation = [line for line in commands if line.startswith("$ aws cloudformation")]
        assert all("--region eu-west-1" in line for line in cloudformation)
        if ci == "github":
            policy = (project / "infra/registry-aws.yaml").read_text("utf-8")
            assert ":ecr:eu-west-1:123456789012:repository/team/my-flows" in policy
            assert [str(match) for match in lint_all(policy) if match.rule.id[0] in "EW"] == []
    elif cloud == "gcp":
        assert (
            make
            == "$ gcloud artifacts repositories create images --repository-format docker --location europe --project acme"
        )
        assert "$GCP_" not in "".join(commands)
        assert all("--project acme" in line for line in commands if line.startswith("$ gcloud"))
    else:
        assert "--name acme " in make


def test_amazon_knows_how_its_repository_is_made() -> None:
    """The arguments of the command in README.md, in the model of AWS's own library."""
    client = boto3.client("ecr", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")  # noqa: S106
    members = client.meta.service_model.operation_model("CreateRepository").input_shape.members
    assert "IMMUTABLE_WITH_EXCLUSION" in members["imageTagMutability"].enum
    assert members["imageTagMutabilityExclusionFilters"].member.members.keys() == {"filterType", "filter"}
    assert members["imageTagMutabilityExclusionFilters"].member.members["filterType"].enum == ["WILDCARD"]


@pytest.mark.parametrize("registry", ["ghcr.io/owner", "owner"])
def test_no_cloud_is_trusted_for_another_registry(registry: str, render: Render) -> None:
    assert not (render(pool_type="docker", image_registry=registry) / "infra").exists()


@pytest.mark.parametrize("ci", ISSUERS)
def test_a_team_is_told_how_a_change_comes_about(ci: str, render: Render) -> None:
    row = ISSUERS[ci]
    team = render(ci=ci, **{"github_user": "acme/data-team"} if ci == "github" else {})
    form = (team / row["form"]).read_text("utf-8")
    told = (team / "CONTRIBUTING.md").read_text("utf-8")
    assert form == (render(github_user="me") / ISSUERS["github"]["form"]).read_text("utf-8")
    assert f"A {row['request']}. " in told
    assert ("@acme/data-team is asked" in told) == (ci == "github")
    targets = re.findall(r"(?m)^([a-z-]+):", (team / "Makefile").read_text("utf-8"))
    assert set(re.findall(r"`?make ([a-z-]+)", form + told)) <= set(targets)


def test_the_dev_container_installs_the_project(render: Render) -> None:
    for version, image in DEFAULTS["versions"]["python_images"].items():
        project = render(python_version=version)
        container = json.loads((project / ".devcontainer/devcontainer.json").read_text("utf-8"))
        assert container["image"] == f"python:{image.replace('slim-', '')}"
        assert container["postCreateCommand"] == "make .venv/.synced"
        assert 4200 in container["forwardPorts"]


def make(project: Path, folder: Path, *targets: str, fails: str = "nothing", **env: str) -> tuple[int, list[str]]:
    """Run targets of `make` with stand-ins for docker and the tools of clouds; return the code and what was called."""
    calls = folder / "calls"
    calls.unlink(missing_ok=True)
    for name in ("docker", "aws", "gcloud", "az"):
        (folder / name).write_text(STAND_IN, "utf-8")
        (folder / name).chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls), "FAILS": fails, "IMAGE_TAG": "c0ffee"} | env
    done = subprocess.run(["make", "--silent", *targets], cwd=project, env=env, capture_output=True, text=True)
    assert "hush" not in done.stdout + done.stderr
    return done.returncode, calls.read_text("utf-8").splitlines() if calls.exists() else []


def test_the_image_is_built_scanned_and_pushed_under_the_name_in_prefect_yaml(render: Render, tmp_path: Path) -> None:
    project = render(pool_type="docker", image_registry="ghcr.io/owner")
    file = project / "prefect.yaml"
    file.write_text(file.read_text("utf-8").replace("ghcr.io/owner/", "ghcr.io/else/"), "utf-8")
    image = "ghcr.io/else/my-flows:c0ffee"
    code, calls = make(project, tmp_path, "image", "scan", "push")
    assert code == 0
    assert calls[0] == f"docker buildx build --load --tag {image} ."
    assert calls[1].startswith("docker run --rm ")
    assert calls[1].endswith(f" --only-fixed --fail-on high docker:{image}")
    assert calls[2].startswith("docker buildx build --push --sbom=true --provenance=mode=max ")
    assert calls[2].endswith(f" --tag {image} .")
    code, calls = make(project, tmp_path, "image", "scan", "push", fails="run")
    assert code != 0
    assert len(calls) == 2  # what the scan refuses is not pushed


@pytest.mark.parametrize(
    ("registry", "first", "login"),
    [
        ("ghcr.io/owner", "", "docker login --username me --password-stdin ghcr.io < hush-hush"),
        ("owner", "", "docker login --username me --password-stdin docker.io < hush-hush"),
        (
            CLOUDS["aws"]["registry"],
            "aws ecr get-login-password --region region",
            "docker login --username AWS --password-stdin HOST",
        ),
        (
            CLOUDS["gcp"]["registry"],
            "gcloud auth print-access-token",
            "docker login --username oauth2accesstoken --password-stdin HOST",
        ),
        (CLOUDS["azure"]["registry"], "", "az acr login --name HOST"),
    ],
)
def test_the_login_fits_the_registry(registry: str, first: str, login: str, render: Render, tmp_path: Path) -> None:
    project = render(pool_type="docker", image_registry=registry)
    code, calls = make(project, tmp_path, "login", **CREDENTIALS)
    assert code == 0
    assert sorted(calls) == sorted(filter(None, [first, login.replace("HOST", registry.split("/")[0])]))
    assert registry.split("/")[0] not in (project / "Makefile").read_text("utf-8").split()  # prefect.yaml has it


def test_gitlab_asks_google_for_the_token_of_the_account_in_json(render: Render, tmp_path: Path) -> None:
    """Its reference knows no other body; only the exchange of the job's token is a form."""
    jobs = yaml.safe_load((deliver(render, "gcp", ci="gitlab") / ".gitlab-ci.yml").read_text("utf-8"))
    (login,) = [step for step in jobs["build-image"]["script"] if "docker login" in step]
    answer = '#!/bin/sh\necho "curl $*" >> "$CALLS"\necho \'{"access_token": "of-job", "accessToken": "of-account"}\'\n'
    for name, code in {"curl": answer, "docker": STAND_IN}.items():
        (tmp_path / name).write_text(code, "utf-8")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "FAILS": ""}
    subprocess.run(["sh", "-c", login], env=env, check=True)
    exchange, account, docker = (tmp_path / "calls").read_text("utf-8").splitlines()
    assert "https://sts.googleapis.com/v1/token" in exchange
    assert "Bearer of-job" in account
    assert json.loads(account.partition("--json ")[2].partition("}")[0] + "}") == {
        "scope": ["https://www.googleapis.com/auth/cloud-platform"]
    }
    assert docker.endswith(" < of-account")
