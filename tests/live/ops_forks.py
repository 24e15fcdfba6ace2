"""Runs `python -m ops` many times but imports Prefect once: each command is a fork of this process.

Started with a project's Python. Each line of standard input is a JSON object: `folder` of the project,
`arguments` and `env`; it is answered with a line: exit `code`, `out`, `err` and the `requests` made.
"""

import json
import os
import runpy
import sys
import tempfile
import traceback
from typing import Any

import httpx
import jsonschema  # noqa: F401
import prefect.automations
import prefect.blocks.notifications
import prefect.client.orchestration
import prefect.workers.process  # noqa: F401
import rich.console  # noqa: F401
import typer  # noqa: F401


def run(arguments: list[str], requests: Any) -> int:
    """Run `python -m ops ARGUMENTS` in this process; write each request that it makes to `requests`."""
    send = httpx.AsyncClient.send

    async def recorded(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        print(request.method, request.url.path, file=requests, flush=True)
        return await send(self, request, **options)

    httpx.AsyncClient.send = recorded
    sys.argv = ["ops", *arguments]
    sys.path[0] = os.getcwd()
    try:
        runpy.run_module("ops", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        with (
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as err,
            tempfile.TemporaryFile("w+") as log,
        ):
            if not (child := os.fork()):
                os.chdir(command["folder"])
                os.environ.update(command["env"])
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                code = run(command["arguments"], log)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            texts = []
            for file in (out, err, log):
                file.seek(0)
                texts.append(file.read())
        answer = {"code": code, "out": texts[0], "err": texts[1], "requests": texts[2].splitlines()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
