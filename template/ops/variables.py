"""Variables: values that flows read at run time, and that change without a new image. Never a secret: those are blocks.

A flow reads one with `Variable.get("name")`.
"""

from prefect.client.schemas.actions import VariableCreate

VARIABLES: list[VariableCreate] = []
