"""How long `make check` and the import of the flows take in the default project, against `import prefect` alone.

In turns on this machine, with warm caches; medians. The import is what a run pays before its flow starts.

    .venv/bin/python benchmarks/project_check.py
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from demo import render, without_prefect_settings  # noqa: E402

PYTHON = (".venv/bin/python", "-c")
COMMANDS = {
    "import prefect": (*PYTHON, "import prefect"),
    "import prefect, flow, task": (*PYTHON, "from prefect import flow, task"),
    "import flows.etl": (*PYTHON, "import flows.etl"),
    "import flows.ml_training": (*PYTHON, "import flows.ml_training"),
    "make lint": ("make", "--silent", "lint"),
    "make check": ("make", "--silent", "check"),
}


def main(rounds: int = 5) -> None:
    env = without_prefect_settings({k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"})
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "my-flows"
        render(project, "project_name=my-flows")
        subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
        subprocess.run(["make", "--silent", "check"], cwd=project, env=env, check=True, capture_output=True)
        for _ in range(rounds):
            for name, command in COMMANDS.items():
                started = time.monotonic()
                subprocess.run(command, cwd=project, env=env, check=True, capture_output=True)
                found[name].append(time.monotonic() - started)
    floor = statistics.median(found["import prefect, flow, task"])
    for name, times in found.items():
        print(f"{name:28} {statistics.median(times):5.2f} s   {statistics.median(times) / floor:.1f} x")


if __name__ == "__main__":
    main()
