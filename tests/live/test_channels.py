"""Every alert channel with every kind of alert on every backend: written to a server and found there as declared."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from answers import ROOT, Render
from ops_server import AUTH, SETTINGS, Forks, Server
from receiver import Receiver
from test_cloud import CHANNELS, KINDS, Cloud

pytestmark = pytest.mark.live

BACKENDS = list(yaml.safe_load((ROOT / "data/backends.yml").read_text("utf-8")))
NIGHTLY = {"cloud"}  # test_cloud.py applies all channels and kinds at once there, with each change


@pytest.fixture(
    scope="module", params=[pytest.param(one, marks=[pytest.mark.slow] * (one in NIGHTLY)) for one in BACKENDS]
)
def backend(request: pytest.FixtureRequest, project: Path, server: Server) -> Iterator[tuple[str, Forks]]:
    """A backend, and what runs `ops` against it: a real server, for Prefect Cloud behind the stand-in."""
    receiver = Receiver()
    receiver.start()
    of_server = {"PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": AUTH}
    here = Cloud(server).env if request.param == "cloud" else of_server
    forks = Forks(project / ".venv/bin/python", server.env | SETTINGS | receiver.settings() | here)
    yield request.param, forks
    forks.stop()


@pytest.mark.parametrize("channel", CHANNELS)
def test_what_is_applied_is_found_as_declared(
    channel: str, backend: tuple[str, Forks], render: Render, tmp_path: Path
) -> None:
    name, forks = backend
    for kind in KINDS:
        answers = {"prefect_backend": name, "alert_channels": [channel], "alert_on": [kind]}
        project = render(into=tmp_path / kind, **answers)
        applied, plan = (forks.run(project, command, {}) for command in (["apply", "--yes"], ["plan"]))
        assert applied.code == 0, f"{kind}: {applied.out}{applied.err}"
        assert " automation my-flows: " in applied.out
        # What only the combinations before declared is there still.
        assert "0 to create, 0 to update, " in plan.out, f"{kind}: {plan.out}{plan.err}"
