"""Build the configurator: one static page that brings everything it needs along."""

import gzip
import hashlib
import importlib.metadata
import io
import json
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import yaml

from configurator.render import Template, commands

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MODULES = HERE / "node_modules"
PYTHON = {  # the package, and what it is imported as
    "jinja2": "jinja2",
    "markupsafe": "markupsafe",
    "jinja2-ansible-filters": "jinja2_ansible_filters",
    "pyyaml": "yaml",
    "pathspec": "pathspec",
}
LANGUAGES = ["bash", "dockerfile", "ini", "json", "makefile", "markdown", "python", "yaml"]


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def version() -> str:
    """Return the version of the template as Copier tells it."""
    return git("describe", "--tags", "--always")


def install() -> None:
    """Fetch the packages of package.json."""
    wanted = (HERE / "package.json").read_text("utf-8")
    stamp = MODULES / ".installed"
    if stamp.exists() and stamp.read_text("utf-8") == wanted:
        return
    if not (npm := shutil.which("npm")):
        sys.exit("npm is needed to build the configurator: install Node.js")
    options = ["--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    subprocess.run([npm, "install", *options], cwd=HERE, check=True)
    stamp.write_text(wanted, "utf-8")


def template_files() -> list[Path]:
    """Return what Copier reads of this repository."""
    parts = ["copier.yml", "UPGRADING.md", "data", "includes", "template"]
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *parts).split("\0")
    return sorted(path for name in listed if name and (path := ROOT / name).is_file())


def bundle() -> bytes:
    """Return a zip file with the template, its renderer and the Python packages that this imports."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:

        def add(name: str, path: Path) -> None:
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = stat.S_IMODE(path.stat().st_mode) << 16
            out.writestr(info, path.read_bytes())

        for path in template_files():
            add(f"template/{path.relative_to(ROOT).as_posix()}", path)
        add("lib/render.py", HERE / "render.py")
        for package, module in PYTHON.items():
            folder = Path(str(importlib.metadata.distribution(package).locate_file(module)))
            for path in sorted(folder.rglob("*.py")):  # the compiled halves are for this machine, and optional
                add(f"lib/{module}/{path.relative_to(folder).as_posix()}", path)
    return buffer.getvalue()


def licenses() -> str:
    """Return what the licenses of the packages ask to be handed on."""
    parts = []
    for package in PYTHON:
        found = importlib.metadata.distribution(package)
        texts = [Path(str(file.locate())) for file in found.files or [] if "LICENSE" in file.name.upper()]
        name = found.metadata.get("License-Expression") or found.metadata.get("License") or ""
        parts.append((f"{package} {found.version}", name, texts))
    for package in json.loads((HERE / "package.json").read_text("utf-8"))["dependencies"]:
        about = json.loads((MODULES / package / "package.json").read_text("utf-8"))
        parts.append((f"{package} {about['version']}", about["license"], sorted((MODULES / package).glob("LICENSE*"))))
    return "\n\n".join(
        "\n\n".join([f"{title}\n{name.splitlines()[0] if name else ''}", *(path.read_text("utf-8") for path in texts)])
        for title, name, texts in parts
    )


def build(out: Path, upstream: str, commit: str) -> None:
    """Write the page into the folder `out`.

    Args:
        out: is made, or emptied
        upstream: the address that the projects are updated from
        commit: the version of the template, in Copier's spelling
    """
    install()
    shutil.rmtree(out, ignore_errors=True)
    lock = json.loads((MODULES / "pyodide/pyodide-lock.json").read_text("utf-8"))
    parts = {
        "bundle.zip": bundle(),
        "python_stdlib.zip": (MODULES / "pyodide/python_stdlib.zip").read_bytes(),
        "pyodide.asm.wasm": (MODULES / "pyodide/pyodide.asm.wasm").read_bytes(),
        "pyodide-lock.json": json.dumps(lock | {"packages": {}}).encode(),  # none of those is loaded
        "pyodide.mjs": (MODULES / "pyodide/pyodide.mjs").read_bytes(),
        "pyodide.asm.mjs": (MODULES / "pyodide/pyodide.asm.mjs").read_bytes(),
        "worker.js": (HERE / "worker.js").read_bytes(),
    }
    # A folder for each content: what a browser has kept is never mixed with what is new.
    folder = out / hashlib.sha256(b"".join(parts.values())).hexdigest()[:12]
    folder.mkdir(parents=True)
    packed = {}
    for name, content in parts.items():
        if name.endswith((".zip", ".wasm")):  # packed here: not every host packs these
            content = gzip.compress(content, mtime=0)
            packed[name] = len(content)
            name += ".gz"
        (folder / name).write_bytes(content)

    template = Template(ROOT)
    asked = template.ask({})
    page = {
        "assets": folder.name,
        "packed": packed,
        "source": upstream,
        "commit": commit,
        "presets": yaml.safe_load((HERE / "presets.yml").read_text("utf-8")),
        "form": asked.form,
        "commands": commands(template, asked, upstream),
    }
    data = json.dumps(page, ensure_ascii=False).replace("<", "\\u003c")
    (out / "index.html").write_text((HERE / "index.html").read_text("utf-8").replace("{{ data }}", data), "utf-8")
    for name in ("page.js", "style.css"):
        shutil.copy(HERE / name, out)
    highlight = MODULES / "@highlightjs/cdn-assets/es"
    (out / "highlight").mkdir()
    shutil.copy(highlight / "core.min.js", out / "highlight/core.js")
    for language in LANGUAGES:
        shutil.copy(highlight / f"languages/{language}.min.js", out / f"highlight/{language}.js")
    (out / "licenses.txt").write_text(licenses(), "utf-8")
