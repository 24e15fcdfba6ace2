"""The command line: `python -m ops COMMAND`."""

import asyncio
import gc
import json
import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from ops.settings import OpsError, Settings, faults_of

if TYPE_CHECKING:  # at run time the commands import it: --help stays fast, and `dev` sets its environment first
    from prefect.client.orchestration import PrefectClient

    from ops.reconcile import Change, Declared, Plan

app = typer.Typer(
    help="Make the Prefect server hold what this repository declares: work pools and queues, limits, variables,"
    " blocks, deployments, automations. PREFECT_API_URL says which server, PREFECT_ENV which environment.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Result = TypeVar("Result")
Only = Annotated[str, typer.Option(metavar="KIND[:NAME]", help="Leave everything else alone.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def run(work: "Callable[[PrefectClient], Awaitable[Result]]") -> "Result":
    """Do `work` with a client of the API."""
    from ops.reconcile import connect

    async def main() -> Result:
        async with connect() as client:
            return await work(client)

    try:
        return asyncio.run(main())
    except KeyboardInterrupt:
        errors.print("Stopped. What was written stays: run the command again to finish")
        raise typer.Exit(130) from None


def make_plan(only: str = "") -> "tuple[Declared, Plan]":
    from ops.reconcile import Declared, make_plan

    declared = Declared(Settings())
    return declared, run(lambda client: make_plan(client, declared, only))


@app.command()
def plan(
    only: Only = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print it for programs.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print it for a pull request.")] = False,
) -> None:
    """Show what `apply` would do. Exit code 0: nothing, 2: changes, 1: an error."""
    from ops import report

    _, found = make_plan(only)
    if as_json:
        print(json.dumps(report.as_json(found), indent=2))
    elif as_markdown:
        print(report.as_markdown(found))
    else:
        report.print_plan(found, console)
    raise typer.Exit(2 if found.pending or found.undeclared else 0)


@app.command()
def check() -> None:
    """Tell whether the server differs from the repository, for CI and cron. Exit code 2 and the plan when it does."""
    plan(only="", as_json=False, as_markdown=False)


@app.command()
def apply(
    only: Only = "",
    yes: Yes = False,
    skip_build: Annotated[bool, typer.Option("--skip-build", help="The image of IMAGE_TAG has been built.")] = False,
) -> None:
    """Make the server hold what is declared. Nothing is written unless everything is right.

    It shows the plan and asks, on a terminal. If prefect.yaml says how to build an image, that comes first.
    """
    from ops import deployments, reconcile, report

    declared, found = make_plan(only)
    pending, undeclared = found.pending, found.undeclared
    asks = pending and not yes and sys.stdin.isatty()
    (report.print_plan if asks else report.print_notes)(found, console)
    if asks and not typer.confirm(f"Write these {len(pending)}?"):
        console.print("Nothing was written")
        raise typer.Exit(1)
    if pending:
        if not skip_build and any(change.kind.label == "deployment" for change in pending):
            asyncio.run(deployments.build(console.print))
        show = partial(report.print_change, console=console)
        run(lambda client: reconcile.apply(client, declared, found, show))
    kept = len(found.changes) - len(pending) - len(undeclared)
    left = f", {len(undeclared)} not declared any more (prune deletes them)" if undeclared else ""
    console.print(f"{len(pending)} written, {kept} unchanged{left}")


def remove(pick: "Callable[[Plan], list[Change]]", yes: bool) -> None:
    from ops import reconcile, report

    if not (chosen := pick(make_plan()[1])):
        console.print("Nothing to delete")
        return
    for change in chosen:
        report.print_change(change, console)
    if not yes and not (sys.stdin.isatty() and typer.confirm(f"Delete these {len(chosen)}?")):
        console.print("Nothing was deleted: answer yes, or give --yes")
        raise typer.Exit(2)
    run(lambda client: reconcile.delete(client, chosen, lambda change: None))
    console.print(f"{len(chosen)} deleted")


@app.command()
def prune(yes: Yes = False) -> None:
    """Delete what this project once created and no longer declares. Without a terminal it only shows, unless --yes."""
    remove(lambda found: found.undeclared, yes)


@app.command()
def destroy(yes: Yes = False) -> None:
    """Delete everything that this project owns on the server, for environments that are thrown away."""
    remove(lambda found: found.owned, yes)


@app.command()
def doctor() -> None:
    """Check settings, API, declarations and workers; say what to do about each thing that is wrong."""
    from ops.doctor import findings

    async def main() -> int:
        sound = True
        async for right, line in findings():
            sound = sound and right
            console.print(f"{'[green]ok   ' if right else '[red]wrong'}[/] {escape(line)}")
        return 0 if sound else 1

    raise typer.Exit(asyncio.run(main()))


@app.command()
def worker(
    pool: Annotated[str, typer.Argument(help="One that ops/work_pools.py declares; else the first.")] = "",
) -> None:
    """Start a worker for this project's work pool, here; Ctrl-C stops it."""
    from ops.declared import Declared

    settings = Settings()
    pools = Declared(settings).objects["work pool"]
    name = pool or next(iter(pools))
    if name not in pools:
        raise OpsError(f"work pool {name} is not declared in ops/work_pools.py: choose one of {', '.join(pools)}")
    if "base_job_template" not in pools[name]:
        raise OpsError(f"Prefect Cloud starts the runs of the work pool {name} itself: it needs no worker")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", name, "--type", pools[name]["type"]]
    os.environ |= settings.for_runs()
    os.environ["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"  # it starts runs with it
    os.execv(sys.executable, [*command, "--no-create-pool-if-not-found"])  # noqa: S606


@app.command()
def flow(name: str) -> None:
    """Add a flow, its test and its deployment."""
    from ops.flow import add

    for written in add(name):
        console.print(f"[green]wrote[/] {escape(written)}")
    console.print("Make them yours, then: make check")


@app.command()
def dev() -> None:
    """Run everything here: a server, its worker, the deployments. Ctrl-C stops it all."""
    from ops.dev import start

    start(console)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def local(context: typer.Context) -> None:
    """Run a prefect command against the server of `dev`: `python -m ops local flow-run ls`."""
    from ops.dev import run_against

    raise typer.Exit(run_against(context.args))


def main() -> None:
    gc.set_threshold(50_000)  # importing Prefect makes many objects and no garbage
    try:
        app()
    except (OpsError, ValidationError) as error:
        for fault in faults_of(error):
            errors.print(f"[red]{escape(fault)}[/]")
        sys.exit(1)


if __name__ == "__main__":
    main()
