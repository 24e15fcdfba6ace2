"""Logs, metrics and traces: what is rendered for each choice, and what Prometheus itself says of rules and dashboard."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from answers import CHOICES, DEFAULTS, ROOT, Render, allowed

PAGE = (ROOT / "docs/how-to/observability.md").read_text("utf-8")
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (apt-get install prometheus)")
FAILED = """\
rule_files: [alerts.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: prefect_flow_runs_ended_total{deployment="etl/etl-daily", state="Failed"}
        values: 0x9 1x50
      - series: prefect_flow_runs_ended_total{deployment="etl/etl-daily", state="Completed"}
        values: 0x9 5x50
      - series: prefect_workers_online{work_pool="flows"}
        values: 1x9 0x50
      - series: prefect_flow_run_lateness_seconds{deployment="etl/etl-daily"}
        values: 0+60x60
      - series: prefect_api_up
        values: 1x45 _x15
    alert_rule_test:
      - {eval_time: 8m, alertname: PrefectRunFailed}
      - eval_time: 12m
        alertname: PrefectRunFailed
        exp_alerts:
          - exp_labels: {severity: warning, deployment: etl/etl-daily, state: Failed}
            exp_annotations: {summary: A run of etl/etl-daily has ended as Failed}
      - {eval_time: 40m, alertname: PrefectRunFailed}
      - {eval_time: 12m, alertname: PrefectNoWorker}
      - eval_time: 16m
        alertname: PrefectNoWorker
        exp_alerts:
          - exp_labels: {severity: critical, work_pool: flows}
            exp_annotations: {summary: No worker serves the work pool flows}
      - {eval_time: 14m, alertname: PrefectRunLate}
      - eval_time: 17m
        alertname: PrefectRunLate
        exp_alerts:
          - exp_labels: {severity: warning, deployment: etl/etl-daily}
            exp_annotations: {summary: A run of etl/etl-daily waits for 17m 0s}
      - {eval_time: 40m, alertname: PrefectApiDown}
      - eval_time: 58m
        alertname: PrefectApiDown
        exp_alerts:
          - exp_labels: {severity: critical}
            exp_annotations: {summary: "The Prefect API, or the exporter that reads it, gives no answer"}
"""


def documented() -> set[str]:
    return set(re.findall(r"^\| `(prefect_\w+)`", PAGE, re.MULTILINE))


@pytest.fixture(scope="module")
def folder(render: Render) -> Path:
    return render(observability=["prometheus"]) / "observability"


def test_the_page_names_the_metrics_that_the_exporter_gives(folder: Path) -> None:
    given = set(re.findall(r'"(prefect_\w+)"', (folder / "exporter.py").read_text("utf-8")))
    assert {name.removesuffix("_total") for name in documented()} == given


def test_the_page_names_the_metrics_that_the_flows_send(project: Path) -> None:
    sent = {
        name
        for file in project.glob("flows/*.py")
        for name in re.findall(r'metrics\.(?:count|gauge)\("(\w+)"', file.read_text("utf-8"))
    }
    assert set(re.findall(r"^\| `flows\.(\w+)`", PAGE, re.MULTILINE)) == sent


def expressions(folder: Path) -> list[str]:
    board = json.loads((folder / "grafana/dashboard.json").read_text("utf-8"))
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def test_the_dashboard_asks_for_metrics_that_there_are(folder: Path) -> None:
    asked = {name for text in expressions(folder) for name in re.findall(r"\b(?:prefect|flows)_\w+", text)}
    flows = {f"flows_{name}" for name in re.findall(r"^\| `flows\.(\w+)`", PAGE, re.MULTILINE)}
    assert {re.sub("_bucket$", "", name) for name in asked} <= documented() | flows


@needs_promtool
def test_prometheus_takes_settings_rules_and_the_dashboard(folder: Path, tmp_path: Path) -> None:
    promtool("check", "config", str(folder / "prometheus.yml"))
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions(folder))]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(tmp_path / "panels.yml"))


@needs_promtool
def test_alerts_fire_when_they_should_and_only_then(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "alerts.yml", tmp_path)
    (tmp_path / "test.yml").write_text(FAILED)
    promtool("test", "rules", str(tmp_path / "test.yml"))


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def services(project: Path) -> dict[str, Any]:
    return yaml.safe_load((project / "compose.yaml").read_text("utf-8"))["services"]


@pytest.mark.parametrize("pool", ["process", "docker"])
def test_compose_brings_prometheus_and_grafana_to_this_machine_only(pool: str, render: Render) -> None:
    found = services(render(pool_type=pool, observability=["prometheus"]))
    ours = {name: found[name] for name in ("exporter", "statsd", "prometheus", "grafana")}
    for name, service in ours.items():
        assert re.search(r":v?\d+\.\d+\.\d+", service["image"]), name
        assert service.get("profiles") == (["observability"] if pool == "docker" else None)
        assert service["network_mode"] == "host"
        told = json.dumps([service.get("command", ""), service.get("environment", {})])
        assert "127.0.0.1" in told, name
        assert "0.0.0.0" not in told.replace("127.0.0.1", "")  # noqa: S104


def test_what_is_off_is_not_there(project: Path) -> None:
    text = (project / "runtime/metrics.py").read_text("utf-8") + (project / "pyproject.toml").read_text("utf-8")
    assert not re.search("datadog|opentelemetry", text)
    assert not (project / "observability").exists()
    assert DEFAULTS["observability"] == ()
    assert allowed("observability", DEFAULTS) == CHOICES["observability"]


def test_runs_get_settings_of_receivers_that_are_set_and_no_others(render: Render) -> None:
    """An image's tag is a variable of Datadog's: without its address, a new image changes no other variable of runs."""
    project = render(observability=["prometheus", "datadog"], pool_type="kubernetes")
    show = "from ops.settings import Settings, run_variables; import json; print(json.dumps(run_variables(Settings())))"

    def variables(**given: str) -> set[str]:
        env = {"PATH": os.environ["PATH"], "IMAGE_TAG": "1.2", **given}
        done = subprocess.run([sys.executable, "-c", show], cwd=project, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return {name for name in json.loads(done.stdout) if not name.startswith("PREFECT_")}

    assert variables() == set()
    assert variables(STATSD_ADDRESS="statsd:9125") == {"STATSD_ADDRESS", "DD_SERVICE", "DD_ENV"}
    datadog = {"DD_DOGSTATSD_URL", "DD_SERVICE", "DD_ENV", "DD_VERSION"}
    assert variables(DD_DOGSTATSD_URL="udp://agent:8125") == datadog


def test_datadog_gets_the_commit_as_version_wherever_it_is_deployed_from(render: Render) -> None:
    """Not only where CI sets IMAGE_TAG: else the next plan on a laptop would take it away."""
    project = render(observability=["datadog"], pool_type="kubernetes")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.com")
    for arguments in (("init", "-q"), ("add", "--all"), ("commit", "-qm", "x")):
        subprocess.run([*git, *arguments], cwd=project, check=True)
    commit = subprocess.check_output([*git, "rev-parse", "HEAD"], cwd=project, text=True).strip()
    show = (
        "import json; from ops.declared import Declared, job_variables_of; from ops.settings import Settings;"
        "pools = Declared(Settings()).objects['work pool'].values();"
        "print(json.dumps([job_variables_of(pool)['env']['default']['DD_VERSION'] for pool in pools]))"
    )
    env = {"PATH": os.environ["PATH"], "DD_DOGSTATSD_URL": "udp://agent:8125", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", show], cwd=project, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {commit}


@pytest.mark.parametrize(("pool", "backend"), [("docker", "server"), ("kubernetes", "server"), ("kubernetes", "cloud")])
def test_the_readme_says_what_compose_holds(pool: str, backend: str, render: Render) -> None:
    project = render(pool_type=pool, prefect_backend=backend, observability=["prometheus"])
    readme, found = (project / "README.md").read_text("utf-8"), services(project)
    assert ("a server and its workers for one machine" in readme) == ("worker" in found)
    assert ("a server for one machine" in readme) == ("server" in found and "worker" not in found)
    assert re.search(r"^\| .*`compose.yaml`", readme, re.MULTILINE)


PRINTS = """
import logging
import runtime
from prefect.logging.handlers import PrefectConsoleHandler
for _ in range(2):
    PrefectConsoleHandler().emit(logging.makeLogRecord({"msg": "on we go"}))
print("to the end")
"""


def test_a_run_goes_on_without_the_worker_that_reads_what_it_prints(project: Path) -> None:
    command = [sys.executable, "-c", PRINTS]
    run = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout
    assert run.stderr
    run.stdout.close()
    run.stderr.close()
    assert run.wait(60) == 0
