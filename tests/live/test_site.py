"""The site in a real browser: everybody can use it, it asks nobody else, and its configurator gives the bytes of Copier."""

import io
import json
import random
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import copier
import pytest
import yaml
from answers import ROOT, Answers, Render
from playwright.sync_api import Browser, Page, expect
from test_doors import sampled, tree
from test_refusals import BAD_TEXTS

from configurator.build import MODULES, build
from scripts.browser import chromium, executable, served

pytestmark = [
    pytest.mark.live,
    pytest.mark.slow,
    pytest.mark.skipif(not executable(), reason="no Chromium: install the package chromium"),
]
PRESETS = yaml.safe_load((ROOT / "configurator/presets.yml").read_text("utf-8"))
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
SLOW = 120_000  # ms: Python has to start, on a machine that may be busy


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, made from the folder that Copier renders in these tests: so both write the same address."""
    folder = tmp_path_factory.mktemp("site")
    build(folder / "configurator", upstream=str(source), commit="")
    with served(folder) as url:
        yield f"{url}configurator/"


@pytest.fixture(scope="module")
def page(browser: Browser, address: str) -> Page:
    """The page, with its first preview; what it asked for is in `page.asked`."""
    page = browser.new_context(accept_downloads=True).new_page()
    page.set_default_timeout(SLOW)
    page.asked, page.faults = [], []  # type: ignore[attr-defined]
    page.on("request", lambda request: page.asked.append(request.url))  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.faults.append(str(error)))  # type: ignore[attr-defined]
    page.goto(address)
    ready(page)
    return page


def ready(page: Page) -> None:
    page.wait_for_selector("body[data-state=ready]")


def answer(page: Page, given: Answers) -> None:
    """Open the link that has these answers."""
    words = urlencode({name: ",".join(v) if isinstance(v, (list, tuple)) else v for name, v in given.items()})
    page.evaluate("() => { document.body.dataset.state = 'waiting' }")
    page.evaluate("(words) => { location.hash = words || 'none' }", words)
    ready(page)


def downloaded(page: Page) -> dict[str, tuple[int, bytes]]:
    with page.expect_download() as download:
        page.click("#download")
    archive = zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes()))
    assert {info.filename.split("/")[0] for info in archive.infolist()} == {
        download.value.suggested_filename.removesuffix(".zip")
    }
    return {
        info.filename.split("/", 1)[1]: (stat.S_IMODE(info.external_attr >> 16), archive.read(info))
        for info in archive.infolist()
    }


def copied(render: Render, given: Answers) -> dict[str, tuple[int, bytes]]:
    return {
        name: (0o755 if mode & stat.S_IXUSR else 0o644, body) for name, (mode, body) in tree(render(**given)).items()
    }


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_gives_the_bytes_of_copier(name: str, page: Page, render: Render) -> None:
    page.evaluate("() => { document.body.dataset.state = 'waiting' }")
    page.click(f"[data-preset={name}]")
    ready(page)
    assert page.get_attribute(f"[data-preset={name}]", "aria-pressed") == "true"
    assert downloaded(page) == copied(render, PRESETS[name]["answers"])


@pytest.mark.parametrize("seed", range(200, 230))
def test_a_link_gives_the_bytes_of_copier(seed: int, page: Page, render: Render) -> None:
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in sampled(seed)[1].items()}
    answer(page, given)
    assert downloaded(page) == copied(render, given)


def test_a_link_restores_the_answers(browser: Browser, address: str, page: Page) -> None:
    answer(page, {})
    page.check("#pool_type-kubernetes")
    page.check("#alert_channels-slack")
    page.fill("#user_name", "Zoë O'Hara, R&D")
    expect(page.locator("#command")).to_contain_text("O'")
    ready(page)
    other = browser.new_page()
    other.set_default_timeout(SLOW)
    other.goto(page.url)
    ready(other)
    assert other.inner_text("#command") == page.inner_text("#command")
    assert other.is_checked("#pool_type-kubernetes")
    assert other.is_checked("#alert_channels-slack")
    assert other.input_value("#user_name") == "Zoë O'Hara, R&D"
    other.close()


def test_answers_are_refused_with_the_words_of_copier(page: Page, source: Path, tmp_path: Path) -> None:
    texts = [pair for pair in BAD_TEXTS if isinstance(pair[1], str) and "\n" not in pair[1] and pair[1].isprintable()]
    answer(page, {"pool_type": "docker"})
    for question, value in random.Random(1).sample(texts, 12):
        given = {"pool_type": "docker", question: value}
        with pytest.raises(ValueError, match=question) as refused:
            copier.run_copy(str(source), tmp_path / "my-flows", given, defaults=True, quiet=True)
        page.fill(f"#{question}", value)
        expect(page.locator("#refusal")).to_have_text(str(refused.value))
        expect(page.locator(f"#{question}-error")).to_have_text(str(refused.value).split(": ", 1)[1])
        assert page.is_disabled("#download")
        answer(page, {"pool_type": "docker"})
        expect(page.locator("#refusal")).to_be_empty()


def test_what_does_not_fit_is_greyed_out_and_says_why(page: Page) -> None:
    answer(page, {"pool_type": "ecs"})
    assert page.is_disabled("#cloud_provider-gcp")
    assert page.inner_text("#cloud_provider-gcp-reason") == "pool_type=ecs runs in aws only"
    assert page.is_visible("[data-name=image_registry]")
    answer(page, {})
    assert not page.is_visible("[data-name=image_registry]")


def test_what_a_switch_changes_is_marked(page: Page) -> None:
    answer(page, {})
    page.click("[data-file='pyproject.toml']")
    page.check("#database-postgresql")
    expect(page.locator("[data-file='pyproject.toml']")).to_have_text("pyproject.tomlchanged")
    expect(page.locator(".line.added").first).to_contain_text("prefect-sqlalchemy")
    page.check("#ci-none")
    expect(page.locator("[data-file='.github/workflows/ci.yml']")).to_be_disabled()
    page.check("#ci-github")
    expect(page.locator("[data-file='.github/workflows/ci.yml']")).to_have_text("ci.ymlnew")


def test_the_keyboard_is_enough(page: Page) -> None:
    answer(page, {})
    page.focus("#database-none")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#command")).to_contain_text("database=postgresql")
    page.focus("[data-file='Makefile']")
    page.keyboard.press("Enter")
    expect(page.locator("#file-name")).to_have_text("Makefile")
    assert page.evaluate("() => document.activeElement.dataset.file") == "Makefile"
    page.focus("[data-tool=cookiecutter]")
    page.keyboard.press("Space")
    expect(page.locator("#command")).to_contain_text("cookiecutter --no-input")
    page.click("[data-tool=copier]")


def faults(page: Page) -> list[tuple[str, list[str]]]:
    """Return the rules of WCAG that a page breaks, and where."""
    page.evaluate((MODULES / "axe-core/axe.min.js").read_text("utf-8"))
    found = page.evaluate("(rules) => axe.run({runOnly: rules})", RULES)
    assert found["passes"]
    return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]]


def fits(page: Page) -> bool:
    return page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 844), (1400, 900)], ids=["phone", "desk"])
def test_everybody_can_use_it(page: Page, scheme: str, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for given in ({"pool_type": "docker", "user_email": "nobody"}, {"pool_type": "docker"}):  # refused, and right
        answer(page, given)
        assert not (wrong := faults(page)), json.dumps(wrong, indent=2)
    answer(page, {"project_name": "a" * 50})
    downloaded(page)  # and the name stands in what to do next
    assert fits(page), "it scrolls sideways"


def test_a_second_visit_takes_python_from_the_cache(page: Page, address: str) -> None:
    again = page.context.new_page()
    again.set_default_timeout(SLOW)
    asked: list[str] = []
    again.on("request", lambda request: asked.append(request.url))
    again.goto(address)
    ready(again)
    assert asked
    assert not [url for url in asked if url.endswith(".gz")]
    again.close()


def test_nothing_else_was_asked_and_nothing_went_wrong(page: Page, address: str) -> None:
    origin = address.removesuffix("configurator/")
    assert {url for url in page.asked if not url.startswith((origin, "blob:"))} == set()  # type: ignore[attr-defined]
    assert page.faults == []  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The whole site, as `make docs` builds it."""
    subprocess.run([sys.executable, ROOT / "scripts/docs.py"], check=True, capture_output=True)
    with served(ROOT / "build/site") as url:
        yield url


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_every_page(site: str, browser: Browser, scheme: str) -> None:
    folder = ROOT / "build/site"
    pages = sorted(file.parent.relative_to(folder).as_posix() for file in folder.rglob("index.html"))
    pages.remove("configurator")  # it is tested above
    assert len(pages) > 30
    page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_default_timeout(SLOW)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    wrong: dict[str, Any] = {}
    for name in pages:
        page.set_viewport_size({"width": 1400, "height": 900})
        page.goto(f"{site}{name}/")
        found: list[Any] = [*faults(page)]
        page.set_viewport_size({"width": 390, "height": 844})
        if found := found if fits(page) else [*found, "it scrolls sideways on a phone"]:
            wrong[name] = found
    assert not wrong, json.dumps(wrong, indent=2)
    assert not [url for url in asked if not url.startswith(site)]
    page.close()


def test_search_finds_a_page(site: str, browser: Browser) -> None:
    page = browser.new_page()
    page.set_default_timeout(SLOW)
    page.goto(site, wait_until="networkidle")
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="Search").fill("priority_weight")
    page.get_by_text("Concept by concept").click()
    page.wait_for_url("**/how-to/from-airflow/**")
    page.close()
