"""What came from Airflow. `python -m ops import-airflow` adds to it, and leaves alone what is here: edit it freely."""

from collections.abc import Callable

from prefect.blocks.core import Block
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, VariableCreate

from ops.settings import Settings

# Connections, and variables that look like secrets. The values of their secrets are in .env or the environment.
BLOCKS: dict[str, Callable[[Settings], Block]] = {}

VARIABLES: list[VariableCreate] = []

# Pools, taken by name in flow code: `with concurrency("name", occupy=1, strict=True)`.
LIMITS: list[GlobalConcurrencyLimitCreate] = []
