"""What runs say, and where it arrives: datagrams, spans, JSON lines, and metrics that Prometheus reads."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from ops_server import AUTH, Server, free_port, run_ops
from prometheus_client.parser import text_string_to_metric_families
from test_live import end_of, eventually, start_run

from demo import render

pytestmark = [pytest.mark.live, pytest.mark.slow]

CHATTY = """\
import logging

from prefect import flow, task

logger = logging.getLogger(__name__)


@task
def whisper() -> None:
    logger.info("from a task, by a logger of our own")
    logging.getLogger("somebody.else").warning("not ours")


@flow
def chatty() -> None:
    logger.debug("too low")
    logger.info("by a logger of our own")
    whisper()
    try:
        raise ValueError("all is lost")
    except ValueError:
        logger.exception("by a logger of our own")
"""
CHATTY_DEPLOYMENT = """
  - name: chatty
    entrypoint: flows.chatty.chatty
    work_pool: *work_pool
"""
Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


class Receiver:
    """A statsd server, two of them, and an OTLP collector, on loopback: they keep what arrives."""

    def __init__(self) -> None:
        self.datagrams: dict[str, list[str]] = {"STATSD_ADDRESS": [], "DD_DOGSTATSD_URL": []}
        self.spans: list[Any] = []
        self.metrics: list[Any] = []
        self.settings: dict[str, str] = {}
        for name, kept in self.datagrams.items():
            listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            listener.bind(("127.0.0.1", 0))
            self.settings[name] = ("udp://" if name.endswith("URL") else "") + f"127.0.0.1:{listener.getsockname()[1]}"
            threading.Thread(target=self.listen, args=(listener, kept), daemon=True).start()
        receiver = self

        class Collector(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    receiver.spans += ExportTraceServiceRequest.FromString(body).resource_spans
                elif self.path == "/v1/metrics":
                    receiver.metrics += ExportMetricsServiceRequest.FromString(body).resource_metrics
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"

    def listen(self, listener: socket.socket, kept: list[str]) -> None:
        while True:
            kept += listener.recv(65535).decode().splitlines()


@contextmanager
def exporter(project: Path, env: dict[str, str]) -> Iterator[str]:
    """Run the project's exporter and give the address of its metrics."""
    port = free_port()
    command = [project / ".venv/bin/python", project / "observability/exporter.py", "--port", str(port)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        eventually(lambda: answers(url), 60, "metrics")
        yield url
    finally:
        process.kill()
        process.communicate()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=30).is_success
    except httpx.TransportError:
        return False


def scrape(url: str) -> Samples:
    """Return the value of each sample by its name and labels."""
    found: Samples = {}
    for family in text_string_to_metric_families(httpx.get(url, timeout=30).text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def labels(**given: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(given.items()))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, env: dict[str, str]) -> Path:
    """A project with every kind of observability, for containers, and a flow with a logger of its own."""
    folder = tmp_path_factory.mktemp("observability") / "seen"
    everything = "observability=[prometheus, opentelemetry, datadog]"
    render(folder, "project_name=seen", "pool_type=docker", "alert_channels=[]", everything)
    (folder / "flows/chatty.py").write_text(CHATTY)
    with (folder / "prefect.yaml").open("a") as file:
        file.write(CHATTY_DEPLOYMENT)
    subprocess.run(["make", "--silent", ".venv/.synced"], cwd=folder, env=env, check=True)
    return folder


@pytest.fixture(scope="module")
def receiver() -> Receiver:
    return Receiver()


def console_of_containers(project: Path) -> dict[str, str]:
    """Return the settings of logs in the Dockerfile."""
    text = (project / "Dockerfile").read_text().replace("\\\n", " ")
    return dict(re.findall(r"(PREFECT_LOGGING_\w+)=(\S+)", text))


@pytest.fixture(scope="module")
def told(seen: Path, server: Server, receiver: Receiver) -> Iterator[dict[str, Any]]:
    """What three runs of a worker left: the runs, the worker's output, and metrics before and after."""
    env = settings_of(server) | receiver.settings | {"IMAGE_TAG": "4711"}
    applied = run_ops(seen, env, "apply", "--yes", "--skip-build")
    assert applied.returncode == 0, applied.stderr
    with exporter(seen, env) as url:
        runs = {
            "loaded": start_run(server, "etl/etl-daily"),
            "chatty": start_run(server, "chatty/chatty"),
            "trained": start_run(server, "ml-training/ml-training", epochs=20),
        }
        before = eventually(lambda: waiting(url, 3), 30, "runs in the queue")
        worker = subprocess.run(
            [seen / ".venv/bin/python", "-m", "prefect", "worker", "start", "--pool", "seen-local", "--run-once"],
            env=env | console_of_containers(seen) | {"PATH": f"{seen / '.venv/bin'}:{env['PATH']}"},
            cwd=seen.parent,
            capture_output=True,
            text=True,
            timeout=300,
        )
        states = {name: end_of(server, run, 30) for name, run in runs.items()}
        yield {
            "runs": runs,
            "states": states,
            "output": worker.stdout,
            "errors": worker.stderr,
            "before": before,
            "url": url,
            "after": scrape(url),
        }


def settings_of(server: Server) -> dict[str, str]:
    """Return the environment in which the project is used with the server."""
    return server.env | {"PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": AUTH, "PREFECT_ENV": "dev"}


def waiting(url: str, count: int) -> Samples | None:
    found = scrape(url)
    return found if sum(found["prefect_work_queue_depth"].values()) == count else None


def test_runs_complete(told: dict[str, Any]) -> None:
    assert set(told["states"].values()) == {"Completed"}, told["output"] + told["errors"]


@pytest.mark.parametrize("setting", ["STATSD_ADDRESS", "DD_DOGSTATSD_URL"])
def test_statsd_gets_the_metrics_of_flows_with_unified_tags(
    setting: str, told: dict[str, Any], receiver: Receiver
) -> None:
    metrics = {line.partition("|#")[0]: set(line.partition("|#")[2].split(",")) for line in receiver.datagrams[setting]}
    unified = {"service:seen", "env:dev", "version:4711"}
    assert metrics["flows.orders_loaded:6|c"] == {"flow:etl", "deployment:etl-daily"} | unified
    assert metrics["flows.orders_rejected:2|c"] == {"flow:etl", "deployment:etl-daily"} | unified
    (error,) = [tags for metric, tags in metrics.items() if re.fullmatch(r"flows\.model_error:0\.\d+\|g", metric)]
    assert error == {"flow:ml-training", "deployment:ml-training"} | unified


def text_of(attributes: Any) -> dict[str, str]:
    return {one.key: one.value.string_value for one in attributes}


def test_opentelemetry_gets_a_span_for_each_run_with_the_ids_of_prefect(
    told: dict[str, Any], receiver: Receiver
) -> None:
    assert {text_of(one.resource.attributes)["service.name"] for one in receiver.spans} == {"seen"}
    assert {text_of(one.resource.attributes)["deployment.environment.name"] for one in receiver.spans} == {"dev"}
    spans = [span for one in receiver.spans for scope in one.scope_spans for span in scope.spans]
    flows = {text_of(span.attributes)["prefect.run.id"]: span for span in spans if kind(span) == "flow"}
    assert flows.keys() == {run["id"] for run in told["runs"].values()}
    loaded = flows[told["runs"]["loaded"]["id"]]
    tasks = [span for span in spans if kind(span) == "task" and span.trace_id == loaded.trace_id]
    assert {re.sub("-.*", "", text_of(span.attributes)["prefect.run.name"]) for span in tasks} == {
        "extract",
        "transform",
        "load",
    }
    assert {span.parent_span_id for span in tasks} == {loaded.span_id}


def kind(span: Any) -> str:
    return text_of(span.attributes).get("prefect.run.type", "")


def test_opentelemetry_gets_the_metrics_of_flows_and_of_their_processes(
    told: dict[str, Any], receiver: Receiver
) -> None:
    found = {
        metric.name: metric
        for one in receiver.metrics
        for scope in one.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("flows.") or "process.cpu" in metric.name
    }
    (loaded,) = found["flows.orders_loaded"].sum.data_points
    assert (loaded.as_int, text_of(loaded.attributes)) == (6, {"flow": "etl", "deployment": "etl-daily"})
    assert found["flows.orders_loaded"].sum.aggregation_temporality == 1  # delta
    (error,) = found["flows.model_error"].gauge.data_points
    assert 0 < error.as_double < 1
    assert "process.cpu.utilization" in found


def test_containers_log_json_with_the_ids_of_the_run(told: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in told["output"].splitlines() if line.startswith("{")]
    run = told["runs"]["chatty"]
    ours = [line for line in lines if line["logger"] == "flows.chatty"]
    assert [line["level"] for line in ours] == ["INFO", "INFO", "ERROR"]
    for line in ours:
        assert line["flow_run_id"] == run["id"]
        assert line["flow_run_name"] == run["name"]
        assert line["deployment_id"] == run["deployment_id"]
        assert line["flow_name"] == "chatty"
    assert "task_run_id" in ours[1]
    assert "task_run_id" not in ours[0]
    assert "ValueError: all is lost" in ours[2]["exception"]
    assert any(line["message"].endswith("Completed()") for line in lines if line.get("flow_run_id") == run["id"])


def test_own_loggers_reach_the_log_of_the_run(told: dict[str, Any], server: Server) -> None:
    wanted = {"logs": {"flow_run_id": {"any_": [told["runs"]["chatty"]["id"]]}}, "limit": 200, "sort": "TIMESTAMP_ASC"}
    records = server("POST", "/logs/filter", wanted)
    ours = [record for record in records if record["name"] == "flows.chatty"]
    assert [record["message"].splitlines()[0] for record in ours] == [
        "by a logger of our own",
        "from a task, by a logger of our own",
        "by a logger of our own",
    ]
    assert ours[1]["task_run_id"]
    assert not [record for record in records if "not ours" in record["message"]]


def test_the_exporter_tells_what_operators_need(told: dict[str, Any]) -> None:
    etl, pool = "etl/etl-daily", "seen-local"
    before, after = told["before"], told["after"]
    assert before["prefect_api_up"] == after["prefect_api_up"] == {(): 1}
    assert before["prefect_work_queue_depth"] == {labels(work_pool=pool, work_queue="default"): 3}
    assert before["prefect_workers_online"] == {labels(work_pool=pool): 0}
    assert before["prefect_flow_run_lateness_seconds"][labels(deployment=etl)] > 0
    assert before["prefect_flow_runs_ended_total"][labels(deployment=etl, state="Completed")] == 0
    assert after["prefect_work_queue_depth"] == {labels(work_pool=pool, work_queue="default"): 0}
    assert after["prefect_workers_online"] == {labels(work_pool=pool): 1}
    heard = after["prefect_worker_last_heartbeat_timestamp_seconds"][labels(work_pool=pool)]
    assert 0 < time.time() - heard < 300
    assert after["prefect_flow_runs_ended_total"][labels(deployment=etl, state="Completed")] == 1
    assert after["prefect_flow_runs_ended_total"][labels(deployment=etl, state="Failed")] == 0
    assert after["prefect_flow_run_duration_seconds_count"][labels(deployment=etl)] == 1
    assert 0 < after["prefect_flow_run_duration_seconds_sum"][labels(deployment=etl)] < 120
    assert after["prefect_flow_run_start_delay_seconds_sum"][labels(deployment=etl)] > 0
    assert after["prefect_flow_runs"][labels(deployment=etl, state="Running")] == 0
    assert scrape(told["url"])["prefect_flow_runs_ended_total"] == after["prefect_flow_runs_ended_total"]  # once


def test_the_exporter_shows_no_login_of_an_address(seen: Path, server: Server) -> None:
    login = {"PREFECT_API_URL": server.url.replace("//", "//user:s3cret@"), "PREFECT_API_AUTH_STRING": ""}
    scraped = "import exporter; list(exporter.Runs('seen').collect())"
    done = subprocess.run(
        [seen / ".venv/bin/python", "-c", scraped],
        env=settings_of(server) | login,
        cwd=seen / "observability",
        capture_output=True,
        text=True,
    )
    assert "gave no answer: Client error '401 Unauthorized'" in done.stderr
    assert "s3cret" not in done.stderr


@pytest.mark.skipif(not shutil.which("prometheus"), reason="needs Prometheus (apt-get install prometheus)")
def test_prometheus_reads_the_exporter_and_the_rules(told: dict[str, Any], seen: Path, tmp_path: Path) -> None:
    shutil.copytree(seen / "observability", tmp_path / "observability")
    config = tmp_path / "observability/prometheus.yml"
    address = told["url"].split("/")[2]
    config.write_text(config.read_text().replace("127.0.0.1:9105", address).replace("30s", "1s"))
    here = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address={here}",
        ],
        stderr=subprocess.DEVNULL,
    )

    def ask(query: str) -> Any:
        try:
            answer = httpx.get(f"http://{here}/api/v1/query", params={"query": query}).json()
        except httpx.TransportError:
            return None
        return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]

    try:
        query = 'prefect_flow_runs_ended_total{state="Completed", deployment="etl/etl-daily"}'
        ((_, value),) = eventually(lambda: ask(query), 60, "answer of Prometheus")
        assert value == 1
        rules = httpx.get(f"http://{here}/api/v1/rules").json()["data"]["groups"][0]["rules"]
        assert {rule["name"] for rule in rules} >= {"PrefectApiDown", "PrefectNoWorker", "PrefectRunFailed"}
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    finally:
        process.kill()
        process.wait()


def test_without_the_api_the_exporter_says_so_and_nothing_else(seen: Path, env: dict[str, str]) -> None:
    with exporter(seen, env) as url:  # whose API address leads nowhere
        started = time.monotonic()
        assert scrape(url) == {"prefect_api_up": {(): 0}}
        assert time.monotonic() - started < 10  # Prometheus waits no longer


def test_a_run_completes_without_its_receivers(seen: Path, server: Server) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    settings = {"STATSD_ADDRESS": nobody, "DD_DOGSTATSD_URL": "udp://no-such-host.invalid:8125"}
    started = time.monotonic()
    done = subprocess.run(
        [".venv/bin/python", "-m", "flows.ml_training"],
        cwd=seen,
        env=settings_of(server) | settings | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{nobody}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 60
