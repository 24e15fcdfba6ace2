"""Limits: how much may happen at once, over all runs and workers."""

from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

# Occupied by name in flow code: `with concurrency("etl-load", strict=True)`.
GLOBAL_CONCURRENCY_LIMITS = [
    GlobalConcurrencyLimitCreate(name="etl-load", limit=2),
]

# How many task runs with a tag may run at once: tag -> limit.
TAG_LIMITS: dict[str, int] = {}
