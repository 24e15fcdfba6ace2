"""Limits: how much may happen at once, over all runs and workers."""

from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

# Taken by name in flow code. `strict=True` there makes a limit that is missing an error, else it limits nothing.
GLOBAL_CONCURRENCY_LIMITS = [
    # with concurrency("etl-load", strict=True):
    GlobalConcurrencyLimitCreate(name="etl-load", limit=2),
    # rate_limit("orders-api", strict=True): ten at once, then one a second
    GlobalConcurrencyLimitCreate(name="orders-api", limit=10, slot_decay_per_second=1.0),
]

# How many task runs with a tag may run at once: tag -> limit.
TAG_LIMITS: dict[str, int] = {
    "ml-train": 8,
}
