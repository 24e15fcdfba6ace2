"""Make the pictures of the documents: the configurator, Prefect's interface, an alert and the first minute, all real.

python scripts/pictures.py                  all of them, into docs/images
python scripts/pictures.py configurator     one: configurator, first-minute with the run, or alert
"""

import base64
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from html import escape
from itertools import pairwise
from pathlib import Path

from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/live")]
from ops_server import Server  # noqa: E402
from receiver import Receiver  # noqa: E402

from bootstrap import UPSTREAM  # noqa: E402
from configurator import build  # noqa: E402
from demo import Dev, render, run_deployment, without_prefect_settings  # noqa: E402
from scripts.browser import chromium, served  # noqa: E402

WIDTH = 108  # characters
LONGEST = 2.5  # s, that nothing happens in the terminal
IMAGES = ROOT / "docs/images"
PACK = """async (data) => {
  const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${data}`)).blob());
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d").drawImage(image, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/webp", quality: 0.85 });
  return btoa(Array.from(new Uint8Array(await blob.arrayBuffer()), (byte) => String.fromCharCode(byte)).join(""));
}"""


def save(page: Page, name: str) -> None:
    """Write what the page shows as docs/images/NAME.webp: the browser itself packs it."""
    shot = base64.b64encode(page.screenshot()).decode()
    blank = page.context.new_page()
    file = IMAGES / f"{name}.webp"
    file.write_bytes(base64.b64decode(blank.evaluate(PACK, shot)))
    blank.close()
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size // 1024} KB")


def configurator() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        build.build(Path(scratch), UPSTREAM, build.version())
        with served(Path(scratch)) as url, chromium() as browser:
            page = browser.new_context(viewport={"width": 1360, "height": 850}).new_page()
            page.set_default_timeout(120_000)
            page.goto(url)
            page.wait_for_selector("body[data-state=ready]")
            page.check("#pool_type-docker")
            page.wait_for_selector("body[data-state=ready] [data-file='compose.yaml']")
            page.click("[data-file='prefect.yaml']")
            page.wait_for_selector(".line.added")
            page.evaluate("() => document.querySelector('.line.added').scrollIntoView({block: 'center'})")
            page.evaluate("() => scrollTo(0, 0)")
            save(page, "configurator")


Line = tuple[float, str]


def first_minute() -> list[Line]:
    """Make a project, run it and let it fail; return what the terminal showed, each line with its second."""
    lines: list[Line] = []
    started = time.monotonic()

    def say(text: str) -> None:
        lines.append((time.monotonic() - started, text))

    env = without_prefect_settings(dict(os.environ))
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch, "my-flows")
        say(f"$ uvx copier copy --defaults {UPSTREAM} my-flows && cd my-flows")
        render(project)
        count = sum(path.is_file() for path in project.rglob("*"))
        say(f"# {count} files: flows, tests, ops, CI")
        say("$ make dev")
        dev = Dev(project, env, show=False)
        seen = 0

        def hear(pattern: str, seconds: float) -> str:
            nonlocal seen
            found = dev.wait_for(pattern, seconds)
            for line in dev.lines[seen:]:
                again = line.rstrip() == lines[-1][1]
                if not again and not re.match(
                    r"\s*$|\s|Traceback|The above|During|\d\d:", line
                ):  # a failed run's is long
                    say(line.rstrip())
            seen = len(dev.lines)
            return found

        try:
            hear("^Ready", 300)
            hear(r"^First run +\w+$", 120)
            interface(dev.wait_for("^First run +http", 5).split()[-1])
            say('$ make run ARGS="--param source=missing.csv"   # in a second terminal: let one fail')
            run_deployment(project, env, "--param source=missing.csv")
            hear("^ALERT", 90)
        finally:
            dev.stop()
    return lines


def interface(url: str) -> None:
    """Take the picture of a run: its page in Prefect's interface."""
    with chromium() as browser:
        page = browser.new_context(viewport={"width": 1280, "height": 760}).new_page()
        page.set_default_timeout(60_000)
        page.goto(url)
        page.get_by_text("Completed").first.wait_for()
        page.wait_for_timeout(15_000)  # the graph of its tasks moves into place
        save(page, "run")


MESSAGE = """<!doctype html><body style="margin:24px;font:15px/1.5 system-ui,sans-serif;color:#1d1c1d;background:#fff">
<div style="border-left:4px solid {color};padding:2px 0 2px 14px;max-width:620px;overflow-wrap:anywhere">
<b>{title}</b><div style="white-space:pre-wrap">{text}</div></div></body>"""


def alert() -> None:
    """Let a run fail, and take what Slack's receiver got and the page of the automation that sent it."""
    env = without_prefect_settings(dict(os.environ))
    with tempfile.TemporaryDirectory() as scratch:
        project, home = Path(scratch, "my-flows"), Path(scratch, "server")
        home.mkdir()
        render(project, "alert_channels=[slack]", "alert_on=[failure]", "user_name=Data Team")
        subprocess.run(["make", "--silent", ".venv/.synced"], cwd=project, env=env, check=True)
        python = project / ".venv/bin/python"
        receiver, server = Receiver(), Server(home, env)
        receiver.start()
        server.env |= {"PYTHONPATH": str(ROOT / "tests/live/redirect"), "TEST_RECEIVER": receiver.address}
        server.env |= {"PREFECT_SERVER_UI_API_URL": "/api", "PREFECT_UI_URL": f"http://127.0.0.1:{server.port}"}
        del server.env["PREFECT_SERVER_API_AUTH_STRING"]  # else the interface asks for it
        here = {"cwd": project, "env": env | receiver.settings() | {"PREFECT_API_URL": server.url}}
        with server:
            subprocess.run([python, "-m", "ops", "apply", "--yes"], check=True, **here)
            worker = subprocess.Popen([python, "-m", "ops", "worker"], **here)
            try:
                deployment = server("GET", "/deployments/name/etl/etl-daily")
                failing = {"parameters": {"source": "missing.csv"}}
                server("POST", f"/deployments/{deployment['id']}/create_flow_run", failing)
                deadline = time.monotonic() + 240
                while not receiver.alerts:
                    if time.monotonic() > deadline:
                        raise TimeoutError("no alert arrived")
                    time.sleep(0.5)
                (automation,) = server("POST", "/automations/filter", {})
                with chromium() as browser:
                    (attachment,) = receiver.alerts[0].body["attachments"]
                    shown = {name: escape(attachment[name]) for name in ("color", "title", "text")}
                    message = browser.new_context().new_page()
                    message.set_content(MESSAGE.format_map(shown))
                    message.set_viewport_size(
                        {"width": 700, "height": message.evaluate("Math.ceil(document.body.offsetHeight) + 48")}
                    )
                    save(message, "alert-message")
                    page = browser.new_context(viewport={"width": 1280, "height": 760}).new_page()
                    page.set_default_timeout(60_000)
                    page.goto(f"{server.env['PREFECT_UI_URL']}/automations/automation/{automation['id']}")
                    page.wait_for_function("name => document.body.innerText.includes(name)", arg=automation["name"])
                    page.wait_for_timeout(5_000)
                    save(page, "alert-automation")
            finally:
                worker.terminate()
                worker.wait()


def shorten(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 2]} …"


def cast(lines: list[Line]) -> str:
    """Return the lines as a picture of a terminal in which they appear one by one, long waits shortened."""
    width, row = 940, 21
    shown = [0.0]
    for (before, _), (second, _) in pairwise(lines):
        shown.append(shown[-1] + min(max(second - before, 0.15), LONGEST))
    lines = [(second, text) for second, (_, text) in zip(shown, lines, strict=True)]
    height = row * len(lines) + 56
    end = lines[-1][0] + 6
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img"'
        ' aria-label="A terminal: copier copy, make dev, a completed run, a failed run and its alert">',
        "<style>text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#d7dae0;white-space:pre}"
        ".typed{fill:#fff;font-weight:600}.good{fill:#7ee2a0}.bad{fill:#ffb4ab}.said{fill:#8b93a1}"
        f"@media(prefers-reduced-motion:no-preference){{.line{{animation:show {end:.0f}s step-end infinite}}}}",
    ]
    for number, (second, _) in enumerate(lines):
        parts.append(f"@keyframes show{number}{{0%{{opacity:0}}{100 * second / end:.1f}%{{opacity:1}}}}")
        parts.append(f"#l{number}{{animation-name:show{number}}}")
    parts.append(f'</style><rect width="{width}" height="{height}" rx="10" fill="#16181d"/>')
    parts += [f'<circle cx="{20 + 18 * n}" cy="18" r="5.5" fill="#3a404a"/>' for n in range(3)]
    for number, (_, text) in enumerate(lines):
        kind = "typed" if text[0] == "$" else "said" if text[0] == "#" else "good" if "Completed" in text else ""
        kind = "bad" if text.startswith("ALERT") else kind
        y = 50 + row * number
        parts.append(f'<text id="l{number}" x="18" y="{y}" class="line {kind}">{escape(shorten(text))}</text>')
    return "".join(parts) + "</svg>\n"


def terminal() -> None:
    file = IMAGES / "first-minute.svg"
    file.write_text(cast(first_minute()), "utf-8")
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size // 1024} KB")


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    known: dict[str, Callable[[], None]] = {"configurator": configurator, "first-minute": terminal, "alert": alert}
    for name, make in known.items():
        if len(sys.argv) < 2 or name in sys.argv:
            make()


if __name__ == "__main__":
    main()
