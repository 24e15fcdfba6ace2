"""Where flows keep files."""

import os
from pathlib import Path


def data_folder() -> Path:
    """Return the folder for the flows' files: DATA_DIR, else `data/` in the repository.

    It is absolute because a worker runs each flow in a scratch directory of its own. In a container it is in /tmp, and
    gone when the run ends.
    """
    return Path(os.environ.get("DATA_DIR") or Path(__file__).resolve().parents[1] / "data")
