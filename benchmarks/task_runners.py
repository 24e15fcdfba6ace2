"""What each task runner costs and gains: the training flow with little and with much to compute, on one server.

.venv/bin/python benchmarks/task_runners.py
"""

import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

import yaml
from first_run import ROOT, machine
from rich.console import Console
from rich.table import Table

from demo import Dev, render, without_prefect_settings

WORK = {"little: 8 tasks of some ms": 20, "much: 8 tasks of about 3 s": 100_000}  # epochs
RUN = """\
import sys, time
from flows.ml_training import ml_training
started = time.monotonic()
ml_training(learning_rates=[0.1] * 8, epochs=int(sys.argv[1]), points=500)
print(time.monotonic() - started)
"""


def measure(project: Path, env: dict[str, str], epochs: int) -> float:
    """Return the seconds of one run, from the call of the flow to its end."""
    command = [project / ".venv/bin/python", "-c", RUN, str(epochs)]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main(rounds: int = 3, work: dict[str, int] = WORK) -> None:
    console = Console()
    runners = yaml.safe_load((ROOT / "data/task_runners.yml").read_text("utf-8"))
    env = without_prefect_settings(dict(os.environ))
    with tempfile.TemporaryDirectory() as folder:
        projects = {name: Path(folder) / name for name in runners}
        for name, project in projects.items():
            render(project, "project_name=my-flows", f"task_runner={name}")
            subprocess.run(["make", "--silent", ".venv/.synced"], cwd=project, env=env, check=True)
        dev = Dev(projects["threads"], env, show=False)
        try:
            dev.wait_for("^First run +Completed", 300)
            env |= json.loads((projects["threads"] / ".prefect/dev.json").read_text("utf-8"))["env"]
            seconds: dict[tuple[str, str], list[float]] = {}
            for _ in range(rounds):  # in turn, so that a slow minute meets them all
                for name, project in projects.items():
                    for much, epochs in work.items():
                        seconds.setdefault((name, much), []).append(measure(project, env, epochs))
        finally:
            dev.stop()
    table = Table("task_runner", *work, title=f"Seconds, medians of {rounds}; {machine()}")
    for name in runners:
        table.add_row(name, *(f"{statistics.median(seconds[name, much]):.1f}" for much in work))
    console.print(table)


if __name__ == "__main__":
    main()
