"""What flows use at run time and the template looks after. It is installed where flows run, and never imports `ops`."""

import os

from rich.console import Console


def print_to_nobody(self: Console) -> None:
    """Go on when what a run prints cannot be read any more: the worker that started it is gone. rich would exit."""
    nobody = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nobody, 1)
    os.dup2(nobody, 2)
    os.close(nobody)


Console.on_broken_pipe = print_to_nobody
