"""Plans and changes as people and programs read them. Of what may be secret only a name shows, never a value."""

import re
from typing import Any

from rich.console import Console
from rich.markup import escape

from ops.kinds import canonical
from ops.reconcile import Change, Plan

SIGNS = {"create": "+", "update": "~", "unchanged": "=", "undeclared": "-"}
STYLES = {"create": "green", "update": "yellow", "unchanged": "dim", "undeclared": "red"}


def print_plan(plan: Plan, console: Console) -> None:
    """Print each object that differs with the fields that differ, the notes, and a line that sums it up."""
    for change in plan.changes:
        if change.action != "unchanged":
            print_change(change, console)
    print_notes(plan, console)
    console.print(summary(plan))


def print_change(change: Change, console: Console) -> None:
    style = STYLES[change.action]
    console.print(f"[{style}]{SIGNS[change.action]} {change.kind.label}[/] {escape(change.name)}")
    for line in describe(change):
        console.print(f"    {escape(line)}")


def print_notes(plan: Plan, console: Console) -> None:
    for note in plan.notes:
        console.print(f"[yellow]![/] {escape(note)}")


def summary(plan: Plan) -> str:
    count = {action: sum(change.action == action for change in plan.changes) for action in SIGNS}
    return (
        f"{count['create']} to create, {count['update']} to update, {count['unchanged']} unchanged,"
        f" {count['undeclared']} not declared any more"
    )


def describe(change: Change) -> list[str]:
    """Return a line for each value of `change` that differs: `field: old -> new`."""
    leaves = [leaf for field, (old, new) in change.differs.items() for leaf in differing(field, old, new)]
    is_block = change.kind.label == "block"
    return [
        f"{path} changes" if is_block or may_be_secret(path, new) else f"{path}: {short(old)} -> {short(new)}"
        for path, old, new in leaves
    ]


def may_be_secret(path: str, new: Any) -> bool:
    """Return whether a value can be one, on the server, too: `prefect deploy` puts it where we have a reference to it."""
    return path.startswith("pull_steps") or bool(re.search(r"\.env(\.|$)", path)) or "prefect.blocks." in str(new)


def differing(path: str, old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """Return the innermost parts in which two values differ, each with its path."""
    before, after = parts(old), parts(new)
    if before is None or after is None:
        return [] if canonical(old) == canonical(new) else [(path, old, new)]
    keys = dict.fromkeys([*before, *after])
    return [leaf for key in keys for leaf in differing(f"{path}.{key}", before.get(key), after.get(key))]


def parts(value: Any) -> dict[Any, Any] | None:
    """Return the parts of a dictionary or of a list of dictionaries, by slug if they have one; None for other values."""
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        return {part.get("slug") or position: part for position, part in enumerate(value)}
    return value if isinstance(value, dict) else None


def short(value: Any) -> str:
    text = "nothing" if value is None else " ".join(str(value).split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def as_json(plan: Plan) -> dict[str, Any]:
    """Return the plan for programs: `changes` with kind, name, action and what differs, `notes`, `summary`."""
    changes = [
        {"kind": change.kind.label, "name": change.name, "action": change.action, "differs": describe(change)}
        for change in plan.changes
    ]
    return {"changes": changes, "notes": plan.notes, "summary": summary(plan)}


def as_markdown(plan: Plan) -> str:
    """Return the plan for a comment on a pull request."""
    lines = [f"**Prefect plan**: {summary(plan)}", ""]
    if changes := [change for change in plan.changes if change.action != "unchanged"]:
        lines += ["```diff"]
        for change in changes:
            sign = {"update": "!"}.get(change.action, SIGNS[change.action])
            lines += [f"{sign} {change.kind.label} {change.name}", *(f"    {line}" for line in describe(change))]
        lines += ["```"]
    return "\n".join([*lines, *(f"- {note}" for note in plan.notes)])
