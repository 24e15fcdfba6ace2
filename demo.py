"""From nothing to a completed flow run and a delivered alert: what `make demo` does.

It uses the project as its owner would: `copier copy`, `make dev` in one terminal, `make run` in another.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape

TEMPLATE = Path(__file__).resolve().parent
DEMO = TEMPLATE / "demo"
RUNNING = DEMO.with_name(".demo.pid")  # of the `make dev` that this program has started, until it has stopped it
LEFTOVERS = "from rich.console import Console; from ops.dev import stop_leftovers; stop_leftovers(Console())"
TRACEBACK = re.compile(r"\s|Traceback|The above exception|During handling")  # the run that fails has a long one
console = Console(highlight=False, soft_wrap=True)


class DemoError(Exception):
    """A step that did not end as it should; the text says which and why."""


class Dev:
    """`make dev` of a project, running: its lines are shown as they come and can be waited for."""

    def __init__(self, project: Path, env: dict[str, str], show: bool = True) -> None:
        self.lines: list[str] = []
        self.news = threading.Condition()
        self.process = subprocess.Popen(
            ["make", "--silent", "dev"],
            cwd=project,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C reaches this program, which stops `make dev` in order
        )
        self.reader = threading.Thread(target=self._read, args=(show,), daemon=True)
        self.reader.start()

    def _read(self, show: bool) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if show and not TRACEBACK.match(line):
                console.print(f"  [dim]{escape(line.rstrip())}[/]")
            with self.news:
                self.lines.append(line)
                self.news.notify_all()

    def wait_for(self, pattern: str, seconds: float) -> str:
        """Return the first line that matches `pattern`; raise DemoError when `make dev` ends or `seconds` pass."""
        deadline = time.monotonic() + seconds
        with self.news:
            while not (found := next((line for line in self.lines if re.search(pattern, line)), None)):
                left = deadline - time.monotonic()
                if left <= 0 or (not self.reader.is_alive() and not self.news.wait(0.2)):
                    end = "".join(self.lines[-10:])
                    raise DemoError(
                        f"`make dev` did not print {pattern!r} within {seconds:.0f} s. It ended with:\n{end}"
                    )
                self.news.wait(min(left, 1))
        return found

    def stop(self) -> None:
        """Stop it as Ctrl-C does, and wait until everything that it started has ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(60)
        self.reader.join(5)


@contextmanager
def step(title: str) -> Iterator[None]:
    started = time.monotonic()
    console.print(f"[bold]{title}[/]")
    yield
    console.print(f"  [green]done[/] in {time.monotonic() - started:.1f} s")


def without_prefect_settings(env: dict[str, str]) -> dict[str, str]:
    """Return `env` with uv of this repository on PATH and no Prefect setting of the caller."""
    kept = {name: value for name, value in env.items() if not name.startswith(("PREFECT_", "VIRTUAL_ENV"))}
    return kept | {"PATH": f"{TEMPLATE / '.venv/bin'}{os.pathsep}{env['PATH']}"}


def render(folder: Path, *answers: str) -> None:
    """Make a project in `folder` with `copier copy`, every other answer its default."""
    data = [word for answer in answers for word in ("--data", answer)]
    command = [sys.executable, "-m", "copier", "copy", "--defaults", "--quiet", "--vcs-ref", "HEAD", *data]
    done = subprocess.run([*command, str(TEMPLATE), str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise DemoError(done.stderr.strip().splitlines()[-1])


def run_deployment(project: Path, env: dict[str, str], arguments: str = "") -> str:
    """Run the example deployment against `make dev` and return what was printed until the run ended."""
    command = ["make", "--silent", "run", f"ARGS={arguments}"]
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True).stdout


def stop_an_earlier_one() -> None:
    """Stop what a killed demo has left: its `make dev`, and the server and worker that this one started."""
    with suppress(OSError, ValueError):
        os.killpg(int(RUNNING.read_text()), signal.SIGKILL)
    if (DEMO / ".prefect/dev.json").exists():
        subprocess.run([DEMO / ".venv/bin/python", "-c", LEFTOVERS], cwd=DEMO, check=False)
    RUNNING.unlink(missing_ok=True)


def replace_demo() -> None:
    """Make the project; a Ctrl-C at any time leaves an earlier one, none or the new one, never half of one."""
    draft = DEMO.with_name(".demo.new")
    shutil.rmtree(draft, ignore_errors=True)
    render(draft / "new", "project_name=demo")
    with suppress(FileNotFoundError):
        DEMO.rename(draft / "old")
    (draft / "new").rename(DEMO)
    shutil.rmtree(draft, ignore_errors=True)


def main() -> None:
    started = time.monotonic()
    env = without_prefect_settings(dict(os.environ))
    if DEMO.exists() and not (DEMO / ".copier-answers.yml").exists():
        raise DemoError(f"{DEMO} is not an earlier demo: move it away first")

    with step("1  copier copy --defaults . demo"):
        stop_an_earlier_one()
        replace_demo()
        console.print(f"  {sum(path.is_file() for path in DEMO.rglob('*'))} files")

    console.print(
        "[bold]2  make dev[/]  (installs the project, starts a server and a worker, applies what ops/ declares, runs etl once)"
    )
    dev = Dev(DEMO, env)
    RUNNING.write_text(str(dev.process.pid))
    try:
        dev.wait_for("^Ready", 300)
        url = re.search(r"http://\S+", dev.wait_for("^Server", 5))
        assert url
        completed = dev.wait_for("^First run +http", 5).split()[-1]
        if "Completed" not in dev.wait_for(r"^First run +\w+$", 120):
            raise DemoError(f"The first run did not complete: {completed}")
        console.print(f"  [green]Completed[/]  {completed}")
        with step('3  make run ARGS="--param source=missing.csv"  (a source that does not exist, to make it fail)'):
            output = run_deployment(DEMO, env, "--param source=missing.csv")
            console.print(f"  [red]Failed[/]  {link(output, url[0])}")
            dev.wait_for("^ALERT", 60)
    finally:
        with step("4  Ctrl-C"):
            dev.stop()
            RUNNING.unlink()
    alert = dev.wait_for("^ALERT", 1).strip()
    console.print(
        f"\nIn {time.monotonic() - started:.0f} s: a project, a server, a worker, one run [green]Completed[/],"
        f" one run [red]Failed[/], and its alert delivered:\n  {alert}\n"
        "Nothing runs any more. To look around:  cd demo && make dev   then open the links above"
    )


def link(output: str, url: str) -> str:
    """Return the address of the run that `prefect deployment run` tells of in `output`."""
    found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", output)
    return f"{url}/runs/flow-run/{found[0]}" if found else url


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except DemoError as error:
        console.print(f"[red]{error}[/]")
        sys.exit(1)
