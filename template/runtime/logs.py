"""Logs as one JSON object per line, for what ships the output of containers. The Dockerfile turns it on."""

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any


class JsonFormatter(logging.Formatter):
    """Gives time, level, logger and message, the run with its flow, deployment and ids, and the traceback of an error."""

    def __init__(self, *_: Any) -> None:
        super().__init__()  # of the format that Prefect's logging.yml hands over, nothing is used

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **run_of(record),
        }
        if record.exc_info:
            entry["exception"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def run_of(record: logging.LogRecord) -> dict[str, str]:
    """Return what is known of the run that a record belongs to: Prefect's loggers say it, for others its context does."""
    from prefect.context import FlowRunContext, TaskRunContext  # not above: Prefect sets up logs while it is imported

    found: dict[str, Any] = {"flow_run_id": os.environ.get("PREFECT__FLOW_RUN_ID")}
    if (flow := FlowRunContext.get()) and flow.flow_run:
        found |= {"flow_run_id": flow.flow_run.id, "flow_run_name": flow.flow_run.name}
        found |= {"flow_name": flow.flow and flow.flow.name, "deployment_id": flow.flow_run.deployment_id}
    if task := TaskRunContext.get():
        found |= {"task_run_id": task.task_run.id, "task_run_name": task.task_run.name}
    for name in ("flow_name", "flow_run_name", "flow_run_id", "deployment_name", "task_run_name", "task_run_id"):
        found[name] = getattr(record, name, None) or found.get(name)
    return {name: str(value) for name, value in found.items() if value}
