"""Write build/reports/report.md from what pytest noted in build/reports/*.xml, and print it: `make report`."""

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

REPORTS = Path(__file__).resolve().parents[1] / "build/reports"


def result(case: ElementTree.Element) -> str:
    """Return `passed`, `failed` or `skipped`, with the reason of a skip."""
    if (skip := case.find("skipped")) is not None:
        return f"skipped: {skip.get('message', '').splitlines()[0]}"
    return "passed" if case.find("failure") is None and case.find("error") is None else "failed"


def seconds(cases: list[ElementTree.Element]) -> float:
    return sum(float(case.get("time", 0)) for case in cases)


def files(cases: list[ElementTree.Element]) -> Iterator[str]:
    """Yield one line of a table per file of tests: how many had which result, and their time."""
    by_file = defaultdict(list)
    for case in cases:
        by_file[case.get("classname", "")].append(case)
    yield "| Tests | Passed | Failed | Skipped | Seconds |\n| --- | --: | --: | --: | --: |\n"
    for name, found in sorted(by_file.items()):
        results = [result(case).split(":")[0] for case in found]
        counts = " | ".join(str(results.count(kind)) for kind in ("passed", "failed", "skipped"))
        yield f"| `{name.replace('.', '/')}.py` | {counts} | {seconds(found):.0f} |\n"


def report(folder: Path) -> str:
    """Return the report on the runs that are noted in `folder`, in Markdown."""
    lines = ["# Report of the tests\n"]
    for file in sorted(folder.glob("*.xml")):
        suite = ElementTree.parse(file).getroot().find("testsuite")  # noqa: S314
        if suite is None:
            continue
        cases = list(suite.iter("testcase"))
        lines.append(f"\n## `make {file.stem}`, {suite.get('timestamp', '')[:16]}\n\n")
        lines.append(f"{len(cases)} tests in {float(suite.get('time', 0)):.0f} s.\n")
        sums: dict[str, int] = defaultdict(int)
        for noted in suite.iter("property"):
            sums[noted.get("name", "")] += int(noted.get("value", 0))
        if sums:
            lines.append(f"\nRendered and checked: {', '.join(f'{number} {name}' for name, number in sums.items())}.\n")
        lines += ["\n", *files(cases)]
        if file.stem == "live":
            lines.append("\n| Scenario | Result | Seconds |\n| --- | --- | --: |\n")
            lines += [
                f"| {case.get('name', '').removeprefix('test_').replace('_', ' ').replace('|', '/')}"
                f" | {result(case)} | {seconds([case]):.1f} |\n"
                for case in cases
            ]
    return "".join(lines)


def main() -> None:
    if not list(REPORTS.glob("*.xml")):
        sys.exit("Nothing to report on: run `make test` or `make live` first.")
    text = report(REPORTS)
    (REPORTS / "report.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
