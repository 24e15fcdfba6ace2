"""How fast `copier copy` and `copier update` of the default project are, against their floor.

The floor is Jinja2 alone: the same templates with the same answers, rendered and written by one loop. All in one
run, taking turns; medians of processor seconds and their ratio. Processes are started anew each time, as by a user; to
tell what Copier's own import costs, that is timed, too, and a copy inside one process.

    .venv/bin/python benchmarks/copier_copy.py [COMMAND ...]

Each COMMAND renders another template, so that it can be compared; {} stands for the new folder:
'copier copy --defaults --quiet OTHER {}', 'cookiecutter --no-input --output-dir {} OTHER'.
"""

import filecmp
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import copier

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("copier.yml", "UPGRADING.md", "data", "includes", "template")

FLOOR = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from answers import DEFAULTS, JINJA, ROOT

for name in sys.argv[3:]:
    source, target = ROOT / "template" / name, Path(sys.argv[2], name)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.exists():
        target.write_bytes(source.read_bytes())
    else:
        target.write_text(JINJA.get_template(f"template/{name}.jinja").render(DEFAULTS), "utf-8")
"""


def seconds(action: Callable[[Path], object], folder: Path) -> float:
    """Return what an action takes of a processor, here and in what it starts: the rest of the machine counts less."""
    start = os.times()
    action(folder)
    end = os.times()
    return sum(end[:4]) - sum(start[:4])


def run(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)


def git(*arguments: str | Path, cwd: Path) -> None:
    run("git", "-c", "user.name=A", "-c", "user.email=a@example.com", *arguments, cwd=cwd)


def release(source: Path, tag: str) -> None:
    git("add", "--all", cwd=source)
    git("commit", "--quiet", "--message", tag, cwd=source)
    git("tag", tag, cwd=source)


def main(*peers: str, rounds: int = 5) -> None:
    scratch = Path(tempfile.mkdtemp())
    source = scratch / "template"
    source.mkdir()
    for part in PARTS:
        shutil.copytree(ROOT / part, source / part) if (ROOT / part).is_dir() else shutil.copy(ROOT / part, source)
    plain = shutil.copytree(source, scratch / "plain")
    git("init", "--quiet", cwd=source)
    release(source, "v1.0.0")
    project = scratch / "project/my-flows"
    run(sys.executable, "-m", "copier", "copy", "--defaults", "--quiet", source, project)
    names = [path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()]
    names.remove(".copier-answers.yml")
    git("init", "--quiet", cwd=project)
    git("add", "--all", cwd=project)
    git("commit", "--quiet", "--message", "a", cwd=project)
    with (source / "template/README.md.jinja").open("a") as file:
        file.write("\nOne line more.\n")
    release(source, "v1.1.0")

    def copy(folder: Path) -> None:
        run(sys.executable, "-m", "copier", "copy", "--defaults", "--quiet", plain, folder)

    def update(folder: Path) -> None:
        shutil.copytree(project, folder)
        run(sys.executable, "-m", "copier", "update", "--defaults", "--quiet", folder)

    def floor(folder: Path) -> None:
        run(sys.executable, "-c", FLOOR, ROOT / "tests", folder, *names)

    def inside(folder: Path) -> None:
        copier.run_copy(str(plain), folder, defaults=True, quiet=True, settings=copier.Settings())

    def nothing(_: Path) -> None:
        run(sys.executable, "-c", "import copier")

    def peer(command: str) -> Callable[[Path], None]:
        def render(folder: Path) -> None:
            folder.mkdir(parents=True)
            program, *arguments = shlex.split(command.replace("{}", str(folder)))
            run(sys.executable, "-m", program, *arguments)

        return render

    actions = {"floor": floor, "copy": copy, "update": update, "nothing": nothing, "inside": inside}
    actions |= {f"peer-{number}": peer(command) for number, command in enumerate(peers, 1)}
    found: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds):
        for name, action in actions.items():
            found[name].append(seconds(action, scratch / f"{name}-{number}" / "my-flows"))
    folders = [scratch / f"{name}-0" / "my-flows" for name in ("floor", "copy", "update")]
    assert filecmp.cmpfiles(*folders[:2], names, shallow=False)[1:] == ([], []), "the floor is of another project"
    assert filecmp.cmpfiles(*folders[1:], names, shallow=False)[1:] == (["README.md"], []), "that was no update"
    medians = {name: statistics.median(times) for name, times in found.items()}
    print(f"{'files':25} {len(names) + 1}")
    for name, meant in {
        "floor": "Jinja2 alone, a process",
        "copy": "copier copy, a process",
        "nothing": "import copier, a process",
        "inside": "copier.run_copy, inside",
        "update": "copier update, a process",
    }.items():
        print(f"{meant:25} {medians[name]:.2f} s   {medians[name] / medians['floor']:.1f} x the floor")
    for number, command in enumerate(peers, 1):
        files = sum(path.is_file() for path in (scratch / f"peer-{number}-0").rglob("*"))
        took = medians[f"peer-{number}"]
        print(f"{took:.2f} s   {1000 * took / files:.0f} ms a file of {files}   {command}")
    print(f"this template: {1000 * medians['copy'] / (len(names) + 1):.0f} ms a file")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main(*sys.argv[1:])
