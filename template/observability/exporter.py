"""Prometheus metrics of this project's runs, queues and workers, read from the Prefect API at each scrape.

    .venv/bin/python observability/exporter.py

PREFECT_API_URL and its credential say which API, as for all of Prefect. It needs nothing but Prefect itself, so that it
also runs in Prefect's own image (compose.yaml). Prefect's server has no metrics of runs; its client metrics are no
way either: with PREFECT_CLIENT_METRICS_ENABLED, each run wants the same port, and the runs of a process worker crash.
"""

import argparse
import re
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Metric,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily

PAGE = 200
ONGOING = ("Late", "Pending", "Running")  # given for each deployment, also when there are none
ENDED = ("Completed", "Failed", "Crashed", "TimedOut", "Cancelled")
SECONDS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
LATE_NEWS = timedelta(minutes=5)  # the API may learn of an end so long after it


class Runs:
    """A collector of the runs of the deployments with one tag, their queues and their workers."""

    def __init__(self, project: str) -> None:
        self.tags = {"tags": {"all_": [f"project:{project}"]}}
        self.lock = threading.Lock()
        self.started = datetime.now(UTC)
        self.counted: dict[str, datetime] = {}  # ids of runs that ended lately
        ended = "Runs that have ended since the exporter started"
        self.ended = Counter("prefect_flow_runs_ended", ended, ["deployment", "state"], registry=None)
        took = "From start to end of a run, of those that have ended"
        self.took = Histogram("prefect_flow_run_duration_seconds", took, ["deployment"], buckets=SECONDS, registry=None)
        waited = "From the time for which a run was scheduled to its start, of those that have ended"
        self.waited = Histogram(
            "prefect_flow_run_start_delay_seconds", waited, ["deployment"], buckets=SECONDS, registry=None
        )

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("prefect_api_up", "Whether the Prefect API answered")
        with self.lock:
            try:
                # No second try: the next scrape is one.
                with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
                    found = [*self.read(client)]
            except Exception as error:  # whatever goes wrong: no values are better than old ones
                told = re.sub("//[^/]*@", "//", str(error))  # without a login in the address
                print(f"The Prefect API gave no answer: {told}", file=sys.stderr)
                found = []
        up.add_metric([], bool(found))
        yield from (up, *found)

    def read(self, client: SyncPrefectClient) -> Iterator[Metric]:
        now = datetime.now(UTC)
        declared = ask(client, "/deployments/filter", {"deployments": self.tags})
        flows = {flow["id"]: flow["name"] for flow in ask(client, "/flows/filter", {"deployments": self.tags})}
        names = {one["id"]: f"{flows[one['flow_id']]}/{one['name']}" for one in declared if one["flow_id"] in flows}

        # What is scheduled for later is left out: it is what schedules say, and no work yet.
        due = {**self.tags, "expected_start_time": {"before_": str(now)}}
        types = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")
        ongoing = ask(client, "/flow_runs/filter", {"flow_runs": {**due, "state": {"type": {"any_": types}}}})
        states = dict.fromkeys([(name, state) for name in names.values() for state in ONGOING], 0.0)
        late, longest = dict.fromkeys(names.values(), 0.0), dict.fromkeys(names.values(), 0.0)
        depth = dict.fromkeys([(one["work_pool_name"], one["work_queue_name"]) for one in declared], 0.0)
        for run in ongoing:
            name, state = names.get(run["deployment_id"], ""), run["state_name"]
            states[name, state] = states.get((name, state), 0) + 1
            if run["state_type"] == "SCHEDULED":
                waiting = now - moment(run["next_scheduled_start_time"] or run["expected_start_time"])
                if waiting > timedelta():  # else it waits for its next try
                    late[name] = max(late.get(name, 0), waiting.total_seconds())
                    queue = run["work_pool_name"], run["work_queue_name"]
                    depth[queue] = depth.get(queue, 0) + 1
            elif run["start_time"]:
                running = now - moment(run["start_time"])
                longest[name] = max(longest.get(name, 0), running.total_seconds())
        labels = ["deployment", "state"]
        yield gauge("prefect_flow_runs", "Runs that are due and have not ended, by state", labels, states)
        lateness = "How long the run has waited that has waited longest for its start"
        yield gauge("prefect_flow_run_lateness_seconds", lateness, labels[:1], late)
        oldest = "How long the run has run that has run longest and has not ended"
        yield gauge("prefect_flow_run_longest_seconds", oldest, labels[:1], longest)
        queued = "Runs that are due and that no worker has taken"
        yield gauge("prefect_work_queue_depth", queued, ["work_pool", "work_queue"], depth)

        self.count_ended(client, now, names)
        for metric in (self.ended, self.took, self.waited):
            yield from metric.collect()
        yield from workers(client, {one["work_pool_name"] for one in declared if one["work_pool_name"]})

    def count_ended(self, client: SyncPrefectClient, now: datetime, names: dict[str, str]) -> None:
        """Count the runs that have ended since the exporter started, each once."""
        for name in names.values():  # from 0 on, so that Prometheus sees the first one as an increase
            for state in ENDED:
                self.ended.labels(name, state)
        since = max(self.started, max(self.counted.values(), default=self.started) - LATE_NEWS)
        wanted = {**self.tags, "end_time": {"after_": str(since)}}
        for run in ask(client, "/flow_runs/filter", {"flow_runs": wanted}):
            if run["id"] in self.counted:
                continue
            self.counted[run["id"]] = moment(run["end_time"])
            name = names.get(run["deployment_id"], "")
            self.ended.labels(name, run["state_name"]).inc()
            if run["start_time"]:  # one that was cancelled before has none
                started, expected = moment(run["start_time"]), moment(run["expected_start_time"])
                self.took.labels(name).observe((moment(run["end_time"]) - started).total_seconds())
                self.waited.labels(name).observe(max(0.0, (started - expected).total_seconds()))
        self.counted = {id: ended for id, ended in self.counted.items() if ended > since - LATE_NEWS}


def workers(client: SyncPrefectClient, pools: set[str]) -> Iterator[Metric]:
    """Yield the metrics of the workers of work pools; a pool that Prefect Cloud serves itself has none."""
    found = ask(client, "/work_pools/filter", {"work_pools": {"name": {"any_": sorted(pools)}}})
    served = [one["name"] for one in found if ":" not in one["type"]]
    all_workers = {name: ask(client, f"/work_pools/{name}/workers/filter", {}) for name in served}
    online = {name: sum(one["status"] == "ONLINE" for one in some) for name, some in all_workers.items()}
    beats = {name: [moment(one["last_heartbeat_time"]) for one in some] for name, some in all_workers.items()}
    last = {name: max(some).timestamp() for name, some in beats.items() if some}
    yield gauge("prefect_workers_online", "Workers whose heartbeat is fresh", ["work_pool"], online)
    heard = "When a worker of the pool was last heard of, in seconds since 1970"
    yield gauge("prefect_worker_last_heartbeat_timestamp_seconds", heard, ["work_pool"], last)


def ask(client: SyncPrefectClient, path: str, filter: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all that a filter of the API finds, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        page = client.request("POST", path, json={**filter, "limit": PAGE, "offset": len(found)}).json()
        found += page
        if len(page) < PAGE:
            return found


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def gauge(name: str, what: str, labels: list[str], values: dict[Any, float]) -> Metric:
    metric = GaugeMetricFamily(name, what, labels=labels)
    for key, value in values.items():
        metric.add_metric([str(part) for part in (key if isinstance(key, tuple) else (key,))], value)
    return metric


def main() -> None:
    toml = Path(__file__).resolve().parents[1] / "pyproject.toml"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=9105, help="port to listen on (%(default)s)")
    given = parser.parse_args()
    disable_created_metrics()  # the time when each counter began, as one series more
    registry = CollectorRegistry()
    registry.register(Runs(tomllib.loads(toml.read_text("utf-8"))["project"]["name"]))
    start_http_server(given.port, given.host, registry)
    print(f"Metrics at http://{given.host}:{given.port}/metrics", flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
