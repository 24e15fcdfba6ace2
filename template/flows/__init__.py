"""The flows. What their modules log with logging.getLogger(__name__) goes to the log of the run, too."""

import logging

from prefect.settings import PREFECT_LOGGING_LEVEL

from runtime import metrics  # noqa: F401 - starts the traces of flow and task runs, where they are wanted

logging.getLogger(__name__).setLevel(PREFECT_LOGGING_LEVEL.value())
