"""The connection to the Prefect API; what goes wrong there is told in one line, with the remedy."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from json import JSONDecodeError

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectAlreadyExists, PrefectException
from prefect.settings import get_current_settings
from pydantic import AnyHttpUrl, ValidationError

from ops.settings import OpsError, problems

NO_ADDRESS = (ValidationError, httpx.InvalidURL)
FAILURES = (httpx.HTTPError, PrefectException, JSONDecodeError)  # of a request: Prefect wraps some answers


def api_url() -> str:
    """Return the address of the API to show, without a login in it.

    Raises:
        OpsError: none is set, so Prefect would start a server and lose it; or it is no address
    """
    url = get_current_settings().api.url
    if not url:
        raise OpsError("PREFECT_API_URL is not set: set it in .env or in the environment (`make dev` needs none)")
    try:
        AnyHttpUrl(url)  # httpx takes a port that is none
        return str(httpx.URL(url).copy_with(userinfo=b""))
    except NO_ADDRESS:  # their texts may repeat the login
        raise OpsError("PREFECT_API_URL is no address: correct it in .env or in the environment") from None


@asynccontextmanager
async def connect(waits: bool = False) -> AsyncGenerator[PrefectClient]:
    """Give a client of the API at PREFECT_API_URL.

    Args:
        waits: whether a write waits for seconds while the server is too busy for it; else it fails at once

    Raises:
        OpsError: nothing answers there, it refuses the credentials, or it refuses a request
    """
    api_url()
    hooks = {"response": [] if waits else [refuse_to_wait]}
    settings = get_current_settings()
    settings.client.max_retries = 3  # 14 seconds: by default it tries a dead server for a minute
    # It tries to connect 16 times in all: what a firewall drops is told after a minute.
    timeout = httpx.Timeout(settings.api.request_timeout, connect=3)
    try:
        async with get_client(httpx_settings={"event_hooks": hooks, "timeout": timeout}) as client:
            yield client
    except FAILURES as error:
        raise OpsError(explain(error)) from error


async def refuse_to_wait(response: httpx.Response) -> None:
    """Raise when the server is too busy for a write, as SQLite is during another: Prefect would wait for seconds."""
    request = response.request
    if response.status_code == 503 and request.method != "GET" and not request.url.path.endswith("/filter"):
        await response.aread()
        response.raise_for_status()


def is_busy(error: Exception) -> bool:
    """Return whether the same may succeed in a moment, also because another `apply` has just done a part of it."""
    return isinstance(error, ObjectAlreadyExists) or (
        isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 503
    )


def explain(error: Exception) -> str:
    """Return a failed request in one line."""
    url, error = api_url(), getattr(error, "http_exc", error)
    if isinstance(error, JSONDecodeError):
        return f"{url} answers with a page that is no JSON: is there a login before it? Correct PREFECT_API_URL in .env"
    if not isinstance(error, httpx.HTTPError):
        return " ".join(str(error).split())
    if not isinstance(error, httpx.HTTPStatusError):
        what = "does not answer in time" if isinstance(error, httpx.TimeoutException) else "does not answer"
        return f"The Prefect API at {url} {what}: start it, or correct PREFECT_API_URL in .env"
    status, path = error.response.status_code, error.request.url.path
    if status in (401, 403):
        return f"The Prefect API at {url} refuses the key: check PREFECT_API_KEY or PREFECT_API_AUTH_STRING in .env"
    if status == 404 and path.endswith(("/filter", "/version")):
        return f"{url} is not a Prefect API: correct PREFECT_API_URL in .env, it ends in /api or in a workspace id"
    detail = error.response.reason_phrase
    with suppress(ValueError, AttributeError, LookupError, TypeError):  # of an answer that is not Prefect's
        answer = error.response.json()
        told = answer.get("detail") or answer.get("exception_detail") or answer.get("exception_message") or detail
        detail = "; ".join(problems(told)) if isinstance(told, list) else told
    return f"The Prefect API answers {status} to {error.request.method} {path}: {' '.join(str(detail).split())}"
