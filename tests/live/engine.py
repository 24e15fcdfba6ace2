"""A Docker engine for the tests, and a base image where no registry can be reached."""

import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
NEEDED = [
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "findutils",
    "grep",
    "libc-bin",
    "passwd",
    "sed",
    "tar",
    "python3",
    "python3-venv",
]
NOT_NEEDED = re.compile(r"/usr/share/(man|doc|locale|info|lintian|bug)(/|$)")


def docker(*arguments: str, timeout: float = 60, **options) -> str:
    """Run the docker command and return what it printed; its errors are raised with what it said."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout, **options)
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
    return done.stdout.strip()


def missing() -> str:
    """Return why no image can be built and run here, or nothing."""
    if not shutil.which("docker"):
        return "needs Docker: there is no docker command"
    for part, command in {"an engine": ["version"], "the plugin buildx": ["buildx", "version"]}.items():
        try:
            docker(*command, timeout=30)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            return f"needs Docker with {part}: {str(error)[:200]}"
    return ""


def provide(image: str, folder: Path) -> None:
    """Make `image` known to the engine: from its registry, else out of this machine's own Debian packages."""
    try:
        docker("image", "inspect", image)
    except RuntimeError:
        try:
            docker("pull", "--quiet", image, timeout=120)
        except (RuntimeError, subprocess.TimeoutExpired):
            import_host(image, folder)


def import_host(image: str, folder: Path) -> None:
    """Import Debian's Python and what it needs as `image`, with the certificates that this machine trusts."""
    installed, provided = packages()
    wanted, chosen = list(NEEDED), set()
    while wanted:
        name = wanted.pop()
        name = name if name in installed else provided.get(name, "")
        if name and name not in chosen:
            chosen.add(name)
            wanted += re.findall(r"(?:^|[,|]) *([a-z0-9.+-]+)", installed[name])
    listed = subprocess.run(
        ["dpkg", "-L", *sorted(chosen)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    # With the folders resolved: in the packages some files are still in /lib, which is a link today.
    paths = {os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)) for path in listed}
    paths |= {"/bin", "/lib", "/lib64", "/sbin", CERTIFICATES}
    paths -= {"/", "/tmp", "/etc/passwd", "/etc/group", "/etc/shadow", "/usr/bin/python"}  # noqa: S108 - ours follow
    archive = folder / "base.tar"
    with tarfile.open(archive, "w") as tar:
        for path in sorted(path for path in paths if os.path.lexists(path) and not NOT_NEEDED.search(path)):
            tar.add(path, path.lstrip("/"), recursive=False)
        for name, text in {"passwd": "root:x:0:0::/root:/bin/sh\n", "group": "root:x:0:\n", "shadow": ""}.items():
            (folder / name).write_text(text)
            tar.add(folder / name, f"etc/{name}")
        for name in ("usr/bin/python", "usr/local/bin/python"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "/usr/bin/python3"
            tar.addfile(link)
        scratch = tarfile.TarInfo("tmp")
        scratch.type, scratch.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(scratch)
    env = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    env |= {"SSL_CERT_FILE": CERTIFICATES, "PIP_CERT": CERTIFICATES}
    changes = [word for name, value in env.items() for word in ("--change", f"ENV {name}={value}")]
    docker("import", *changes, str(archive), image)


def packages() -> tuple[dict[str, str], dict[str, str]]:
    """Return what each installed package depends on, and which package provides a name."""
    fields = "${Package}\t${Depends}, ${Pre-Depends}\t${Provides}\t${db:Status-Status}\n"
    found = subprocess.run(["dpkg-query", "-Wf", fields], capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in found.splitlines() if line.endswith("\tinstalled")]
    depends = {name: re.sub(r"\([^)]*\)|:any", "", needs) for name, needs, _, _ in rows}
    return depends, {alias: name for name, _, aliases, _ in rows for alias in re.findall(r"[a-z0-9.+-]{2,}", aliases)}


def size(image: str) -> float:
    """Return the size of an image in MB."""
    return json.loads(docker("image", "inspect", image))[0]["Size"] / 1e6
