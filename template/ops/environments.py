"""What differs between environments. PREFECT_ENV selects the row; a server or workspace holds one of them."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Environment:
    """What one environment changes in the declarations.

    Attributes:
        schedules: whether the schedules of deployments are active
        local: whether runs are processes of this machine, whatever the type of the work pool
        pool_suffix: added to the name of every work pool
        tags: added to every deployment
        parameters: deployment name -> parameters that replace those in prefect.yaml
        log_level: from which on runs log
        preview: whether it is a guest on another environment's server: deployments alone, with PREVIEW before their
            names and in their mark, so that neither sees the other's
    """

    schedules: bool
    local: bool = False
    pool_suffix: str = ""
    tags: tuple[str, ...] = ()
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    log_level: str = "INFO"
    preview: bool = False


ENVIRONMENTS = {
    "dev": Environment(schedules=False, local=True),  # a laptop: flows run when somebody runs them
    "staging": Environment(schedules=False, tags=("staging",), log_level="DEBUG"),
    "preview": Environment(schedules=False, tags=("preview",), preview=True),  # of one change, on the server of staging
    "prod": Environment(schedules=True),
}
