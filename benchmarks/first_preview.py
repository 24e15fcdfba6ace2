"""How much the configurator loads, and how long a first, a second visit and a switch take, in headless Chromium."""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from bootstrap import UPSTREAM  # noqa: E402
from configurator import build  # noqa: E402
from scripts.browser import chromium, served  # noqa: E402


def visit(context: BrowserContext, url: str) -> tuple[float, float, float]:
    """Return the seconds to the form, to the first preview and for one switch."""
    page = context.new_page()
    page.set_default_timeout(300_000)
    started = time.monotonic()
    page.goto(url, wait_until="commit")
    page.wait_for_selector("#pool_type-docker")
    form = time.monotonic() - started
    page.wait_for_selector("body[data-state=ready]")
    preview = time.monotonic() - started
    started = time.monotonic()
    page.check("#pool_type-docker")
    page.wait_for_selector("[data-file='Dockerfile']")
    switch = time.monotonic() - started
    page.close()
    return form, preview, switch


def size(folder: Path) -> int:
    """Return the bytes of what a first visit loads: all of the page apart from the licenses."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "licenses.txt")


def measure(browser: Browser, url: str, rounds: int) -> None:
    first, second = [], []
    for _ in range(rounds):
        context = browser.new_context()
        first.append(visit(context, url))
        second.append(visit(context, url))
        context.close()
    for name, visits in {"first visit": first, "second visit": second}.items():
        form, preview, switch = (statistics.median(column) for column in zip(*visits, strict=True))
        print(f"{name}: form {form:.1f} s, first preview {preview:.1f} s, a switch {switch:.2f} s")
    ratio = statistics.median(one[1] / other[1] for one, other in zip(first, second, strict=True))
    print(f"first preview, first visit to second: {ratio:.2f}")


def main(rounds: int = 5) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        build.build(Path(scratch), UPSTREAM, build.version())
        print(f"a first visit loads {size(Path(scratch)) / 1e6:.1f} MB")
        with served(Path(scratch)) as url, chromium() as browser:
            measure(browser, url, rounds)


if __name__ == "__main__":
    main()
