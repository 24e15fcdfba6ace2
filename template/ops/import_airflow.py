"""`python -m ops import-airflow FILE...`: what Airflow exported becomes declarations in ops/imported.py.

It reads what `airflow connections export`, `variables export` and `pools export` of Airflow 2 and 3 write: JSON, YAML
and .env. What is or looks like a secret goes to `.env`, and the code names it. Nothing that is there already changes.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

import yaml
from dotenv import dotenv_values
from prefect.types import SecretDict
from pydantic import SecretStr, ValidationError

from ops.blocks import BLOCKS
from ops.limits import GLOBAL_CONCURRENCY_LIMITS
from ops.settings import ROOT, OpsError, problems
from ops.variables import VARIABLES

KINDS = ("connections", "variables", "pools")
# In the name of a variable or of a field, as Airflow itself decides what to hide in its user interface.
SECRET_NAME = re.compile(
    r"access_?key|api_?key|auth_header|authori[sz]ation|bearer|connection_string|credential|dsn|key_?file_?dict"
    r"|pass(phrase|wd|word)|private_?key|prox(y|ies)|pwd|secret|service_(account|key)|token|webhook_url",
    re.IGNORECASE,
)
SECRET_VALUE = re.compile(r"://[^/\s:@]*:[^/\s@]+@|-----BEGIN [A-Z ]*PRIVATE KEY-----|hooks\.slack\.com/services/")


class NotImported(Exception):
    """Why an entry of an export is left out."""


class Unneeded(NotImported):
    """Why nothing is lost by that."""


class NoBlock(Exception):
    """Why a connection does not fit into the block of its type."""


# --- what is declared ----------------------------------------------------------------------------------


AS_TEXT = "{}.get_secret_value()"
AS_DICT = "SecretDict(json.loads({}.get_secret_value()))"
FORMS: dict[str, Callable[[str], Any]] = {
    "{}": SecretStr,
    AS_TEXT: str,
    AS_DICT: lambda text: SecretDict(json.loads(text)),
}


@dataclass
class FromEnv:
    """A secret, which the code reads from the variable `name` of the environment or of `.env`.

    Attributes:
        name: of the variable
        value: its text
        form: what a block takes, as code: one of FORMS
    """

    name: str
    value: str
    form: str = "{}"

    def build(self) -> Any:
        return FORMS[self.form](self.value)

    def code(self) -> str:
        return self.form.format(f'imported_secret("{self.name}")')


@dataclass
class New:
    """An object of Prefect's: built to see whether Prefect accepts it, then written as code.

    Attributes:
        path: of its class, such as prefect_aws.AwsCredentials
        arguments: by name, or "" for one without; those that are None are left out
    """

    path: str
    arguments: dict[str, Any]

    @property
    def class_name(self) -> str:
        return self.path.rpartition(".")[2]

    def given(self) -> dict[str, Any]:
        return {name: value for name, value in self.arguments.items() if value is not None}

    def build(self) -> Any:
        built = {name: each.build() if isinstance(each, New | FromEnv) else each for name, each in self.given().items()}
        unnamed = [built.pop("")] if "" in built else []
        return getattr(import_module(self.path.rpartition(".")[0]), self.class_name)(*unnamed, **built)

    def code(self) -> str:
        texts = {
            name: each.code() if isinstance(each, New | FromEnv) else repr(each) for name, each in self.given().items()
        }
        return f"{self.class_name}({', '.join(f'{name}={text}' if name else text for name, text in texts.items())})"

    def parts(self) -> "Iterator[New | FromEnv]":
        yield self
        for value in self.given().values():
            if isinstance(value, New):
                yield from value.parts()
            elif isinstance(value, FromEnv):
                yield value

    def imports(self) -> Iterator[str]:
        """Yield the import statements that the code needs."""
        for part in self.parts():
            if isinstance(part, New):
                yield f"from {part.path.rpartition('.')[0]} import {part.class_name}"
            else:
                yield "from ops.settings import imported_secret"
                if part.form == AS_DICT:
                    yield from ("import json", "from prefect.types import SecretDict")


@dataclass
class Declaration:
    """One entry of an export as it is declared.

    Attributes:
        container: the name in ops/imported.py that takes it
        name: of the object
        new: the object
        comment: what Airflow had as its description
        packages: what it needs: module -> requirement
        notes: what is worth knowing about it
    """

    container: str
    name: str
    new: New
    comment: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def what(self) -> str:
        kind = {"BLOCKS": f"{self.new.class_name} block", "VARIABLES": "variable", "LIMITS": "limit"}[self.container]
        return f"{kind} {self.name}"

    def check(self) -> None:
        """Raise NotImported when Prefect does not accept it."""
        try:
            built = self.new.build()
        except Exception as error:  # whatever a block raises; its own text may repeat the input, a secret
            told = problems(error.errors()) if isinstance(error, ValidationError) else [type(error).__name__]
            raise NotImported(f"is refused by {self.new.class_name}: {'; '.join(dict.fromkeys(told))}") from None
        if not len(getattr(built, "_apprise_client", "not Apprise")):
            raise NotImported(f"is refused by {self.new.class_name}: nothing can be sent to that address")

    def code(self) -> str:
        return f"lambda _: {self.new.code()}" if self.container == "BLOCKS" else self.new.code()

    def entry(self) -> str:
        """Return the lines to add to the container."""
        comment = f"# {' '.join(str(self.comment).split())}\n" if self.comment else ""
        return f'{comment}"{self.name}": {self.code()},' if self.container == "BLOCKS" else f"{comment}{self.code()},"

    def secrets(self) -> dict[str, str]:
        return {part.name: part.value for part in self.new.parts() if isinstance(part, FromEnv)}


def block_name(id: str) -> str:
    return re.sub("[^a-z0-9]+", "-", id.lower()).strip("-")


def env_name(*parts: str) -> str:
    return re.sub("[^A-Z0-9]+", "_", "_".join(("imported", *parts)).upper()).strip("_")


def secret_text(value: Any) -> str:
    """Return text from which Prefect's `Secret.get` makes `value` again: it reads as JSON what can be read so."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value)


def check_json(value: Any) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise NotImported("holds NaN, Infinity or a date, which JSON does not have") from error


def secret_block(variable: str, value: Any) -> New:
    return New("prefect.blocks.system.Secret", {"value": FromEnv(variable, secret_text(value))})


# --- variables and pools -------------------------------------------------------------------------------


def looks_secret(name: str, value: Any) -> bool:
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        with suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, dict):
        return bool(SECRET_NAME.search(name)) or any(looks_secret(str(key), each) for key, each in value.items())
    if isinstance(value, list):
        return any(looks_secret(name, each) for each in value)
    return bool(SECRET_NAME.search(name) or (isinstance(value, str) and SECRET_VALUE.search(value)))


def variable(id: str, value: Any) -> Declaration:
    comment = ""
    if isinstance(value, dict) and value.keys() == {"value", "description"}:  # how Airflow 3 writes a description
        value, comment = value["value"], value["description"] or ""
    if value is None:
        raise Unneeded("is null, which Variable.get gives for what is not there")
    check_json(value)
    if looks_secret(id, value):
        notes = [f'looks like a secret, so it is a block: Secret.load("{block_name(id)}").get()']
        return Declaration("BLOCKS", block_name(id), secret_block(env_name("var", id), value), comment, notes=notes)
    name = re.sub("[^a-z0-9_-]+", "_", id.lower()).strip("_")
    notes = [] if name == id else [f'is called {name} here: Variable.get("{name}")']
    new = New("prefect.client.schemas.actions.VariableCreate", {"name": name, "value": value})
    return Declaration("VARIABLES", name, new, comment, notes=notes)


def pool(id: str, fields: Any) -> Declaration:
    slots = fields.get("slots") if isinstance(fields, dict) else None
    if not isinstance(slots, int) or isinstance(slots, bool):
        raise NotImported("has no whole number of slots")
    if id == "default_pool":
        raise Unneeded(
            "holds every task that names no other; here, concurrency_limit in ops/work_pools.py limits all runs"
        )
    if slots < 0:
        raise Unneeded("has no limit, so it needs none here")
    name = re.sub(r"[/%&><]+", "-", id)
    notes = [] if name == id else [f'is called {name} here: concurrency("{name}", strict=True)']
    if fields.get("include_deferred"):
        notes.append("include_deferred has no equivalent: flow code holds its slots until it leaves the `with`")
    if fields.get("team_name"):
        notes.append("team_name has no equivalent: a limit holds for the whole server or workspace")
    new = New("prefect.client.schemas.actions.GlobalConcurrencyLimitCreate", {"name": name, "limit": slots})
    return Declaration("LIMITS", name, new, fields.get("description") or "", notes=notes)


# --- connections ---------------------------------------------------------------------------------------


class Connection:
    """A connection of Airflow. What a mapping takes is gone from `fields`; what is left has no place in its block.

    Args:
        id: Airflow's conn_id
        found: the connection as an export has it: its fields, or a URI

    Raises:
        NotImported: it is none
    """

    def __init__(self, id: str, found: Any) -> None:
        if isinstance(found, str):
            found = from_json_or_uri(found)
        if not isinstance(found, dict) or not isinstance(found.get("conn_type"), str) or not found["conn_type"]:
            raise NotImported("has no conn_type")
        self.id = id
        self.type = found["conn_type"].lower().replace("-", "_").replace("postgresql", "postgres")
        self.comment = found.get("description") or ""
        port = found.get("port")
        if not re.fullmatch("[0-9]{0,5}", str(port or "")):
            raise NotImported("has a port that is no number")
        named = {name: found.get(name) for name in ("host", "login", "password", "schema")}
        self.fields: dict[str, Any] = {name: str(value) for name, value in named.items() if value not in (None, "")}
        self.fields |= {"port": int(port)} if port else {}
        extra = found.get("extra") or {}
        if isinstance(extra, str):
            with suppress(ValueError):
                extra = json.loads(extra)
        check_json(extra)
        if not isinstance(extra, dict):  # an older Airflow took any text
            extra = {"": extra}
        for name, value in extra.items():
            if value not in (None, ""):
                self.fields["extra." + name.removeprefix(f"extra__{self.type}__")] = value

    def take(self, *names: str) -> Any:
        """Return the first of these fields that is there, and take all of them out."""
        found = [self.fields.pop(name) for name in names if name in self.fields]
        return found[0] if found else None

    def secret(self, *names: str, form: str = "{}") -> FromEnv | None:
        value = self.take(*names)
        name = env_name(self.id, names[0].removeprefix("extra."))
        return None if value is None else FromEnv(name, value if isinstance(value, str) else json.dumps(value), form)

    def rest(self, prefix: str = "extra.") -> dict[str, Any]:
        """Take out the fields that begin so, apart from those that look secret."""
        names = [name for name in self.fields if name.startswith(prefix) and not looks_secret(name, self.fields[name])]
        return {name.removeprefix(prefix): self.fields.pop(name) for name in names}


def from_json_or_uri(text: str) -> dict[str, Any]:
    """Return the fields of a connection that Airflow wrote in one line."""
    if text.startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            raise NotImported("is neither JSON nor a URI") from None
    kind, _, rest = text.partition("://")
    protocol = re.match(r"([a-z]+)://", rest)  # a host may have one of its own
    try:
        parts = urlsplit("//" + rest[protocol.end() if protocol else 0 :])
        port = parts.port
    except ValueError:
        raise NotImported("is no URI that can be read") from None
    host = unquote(re.sub(":[0-9]*$", "", parts.netloc.rpartition("@")[2]))
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return {
        "conn_type": kind if "://" in text else "",
        "login": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "host": f"{protocol[1]}://{host}" if protocol else host,
        "port": port,
        "schema": unquote(parts.path.removeprefix("/")),
        "extra": query.get("__extra__", query),
    }


def address(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # checked when it is read
    except ValueError:
        raise NotImported("has a host that is no address") from None
    return parts


def sqlalchemy(connection: Connection, driver: str, connect_args: dict[str, Any], database: str = "schema") -> New:
    components = {
        "driver": driver,
        "username": connection.take("login"),
        "password": connection.secret("password"),
        "database": connection.take(database),
        "host": connection.take("host"),
        "port": connection.take("port"),
    }
    info = New("prefect_sqlalchemy.ConnectionComponents", components)
    arguments = {"connection_info": info, "connect_args": connect_args or None}
    return New("prefect_sqlalchemy.SqlAlchemyConnector", arguments)


def postgres(connection: Connection) -> New:
    ours = (
        "iam",
        "redshift",
        "redshift-serverless",
        "cursor",
        "cluster-identifier",
        "workgroup-name",
        "aws_conn_id",
        "azure_conn_id",
        "sqlalchemy_scheme",
        "sqlalchemy_query",
    )
    kept = {f"extra.{name}": connection.take(f"extra.{name}") for name in ours}  # Airflow's own; libpq gets the rest
    connect_args = connection.rest()
    connection.fields |= {name: value for name, value in kept.items() if value is not None}
    return sqlalchemy(connection, "postgresql+psycopg", connect_args)


def mysql(connection: Connection) -> New:
    names = ("charset", "unix_socket", "ssl")
    found = {name: connection.take(f"extra.{name}") for name in names}
    if isinstance(found["ssl"], str):
        with suppress(ValueError):
            found["ssl"] = json.loads(found["ssl"])
    return sqlalchemy(connection, "mysql+pymysql", {name: value for name, value in found.items() if value is not None})


def sqlite(connection: Connection) -> New:
    return sqlalchemy(connection, "sqlite+pysqlite", {}, database="host")


def aws(connection: Connection) -> New:
    endpoint, external = connection.take("extra.endpoint_url"), connection.take("extra.external_id")
    arguments = {
        "aws_access_key_id": connection.secret("login", "extra.aws_access_key_id", form=AS_TEXT),
        "aws_secret_access_key": connection.secret("password", "extra.aws_secret_access_key"),
        "aws_session_token": connection.secret("extra.aws_session_token", form=AS_TEXT),
        "profile_name": connection.take("extra.profile_name"),
        "region_name": connection.take("extra.region_name"),
        "aws_client_parameters": endpoint and New("prefect_aws.AwsClientParameters", {"endpoint_url": endpoint}),
        "assume_role_arn": connection.take("extra.role_arn"),
        "assume_role_kwargs": external
        and New("prefect_aws.assume_role_parameters.AssumeRoleParameters", {"ExternalId": external}),
    }
    return New("prefect_aws.AwsCredentials", arguments)


def google(connection: Connection) -> New:
    key = connection.secret("extra.keyfile_dict", form=AS_DICT)
    return New("prefect_gcp.GcpCredentials", {"project": connection.take("extra.project"), "service_account_info": key})


def wasb(connection: Connection) -> New:
    block = "prefect_azure.AzureBlobStorageCredentials"
    login, host = connection.take("login"), connection.take("host") or ""
    url = host if "://" in host else f"https://{host}" if "." in host else None
    if tenant := connection.take("extra.tenant_id"):
        who = {"client_id": login, "tenant_id": tenant, "client_secret": connection.secret("password")}
        return New(block, {"account_url": url, **who})
    url = url or (login and f"https://{login}.blob.core.windows.net")
    text = connection.take("extra.connection_string")
    if not text and (sas := connection.take("extra.sas_token")):
        if sas.startswith("https://"):
            url, _, sas = sas.partition("?")
        text = url and f"BlobEndpoint={url.rstrip('/')};SharedAccessSignature={sas.removeprefix('?')}"
    if not text and url and (key := connection.take("password", "extra.account_key", "extra.shared_access_key")):
        parts = address(url)
        account = login or parts.path.strip("/") or parts.netloc.partition(".")[0]
        text = f"AccountName={account};AccountKey={key};BlobEndpoint={url.rstrip('/')}"
    if text:
        return New(block, {"connection_string": FromEnv(env_name(connection.id, "connection_string"), text)})
    return New(block, {"account_url": url})


def slack(connection: Connection) -> New:
    return New("prefect_slack.SlackCredentials", {"token": connection.secret("password")})


def slack_webhook(connection: Connection) -> New:
    host, scheme = connection.take("host") or "hooks.slack.com/services", connection.take("schema") or "https"
    token = str(connection.take("password", "extra.webhook_token") or "")  # without one, the host has it
    base = host if "://" in host else f"{scheme}://{host}"
    url = token if "://" in token else f"{base.rstrip('/')}/{token.lstrip('/')}".rstrip("/")
    return New("prefect.blocks.notifications.SlackWebhook", {"url": FromEnv(env_name(connection.id, "url"), url)})


def snowflake(connection: Connection) -> New:
    if "extra.private_key_content" in connection.fields:  # its password is the key's
        raise NoBlock("extra.private_key_content has no place in SnowflakeCredentials")
    account, region = connection.take("extra.account"), connection.take("extra.region")
    key = connection.take("extra.private_key_file")
    credentials = New(
        "prefect_snowflake.SnowflakeCredentials",
        {
            "account": f"{account}.{region}" if account and region else account,
            "user": connection.take("login"),
            "private_key_path": key and New("pathlib.Path", {"": key}),
            "private_key_passphrase" if key else "password": connection.secret("password"),
            "authenticator": connection.take("extra.authenticator"),
            "role": connection.take("extra.role"),
        },
    )
    if not {"schema", "extra.database", "extra.warehouse"} <= connection.fields.keys():
        return credentials
    names = {name: connection.take(f"extra.{name}") for name in ("database", "warehouse")}
    arguments = {"credentials": credentials, **names, "schema_": connection.take("schema")}
    return New("prefect_snowflake.SnowflakeConnector", arguments)


def http(connection: Connection) -> New:
    """Return a secret with the arguments of httpx.Client: Prefect has no block for it, and headers are often secrets."""
    host, scheme = connection.take("host") or "localhost", connection.take("schema") or "http"
    parts = address(host if "://" in host else f"{scheme}://{host}")
    login, port = connection.take("login"), connection.take("port") or parts.port
    user, at, place = parts.netloc.rpartition("@")
    if login:
        user, at = f"{quote(login, safe='')}:{quote(connection.take('password') or '', safe='')}", "@"
    place = re.sub(":[0-9]*$", "", place) + (f":{port}" if port else "")
    base_url = parts._replace(netloc=user + at + place, query="", fragment="").geturl()
    options = {
        "params": parts.query or None,
        "timeout": connection.take("extra.timeout"),
        "verify": connection.take("extra.verify", "extra.verify_ssl"),
    }
    for_requests = (
        "stream",
        "cert",
        "proxies",
        "proxy",
        "allow_redirects",
        "max_redirects",
        "check_response",
        "trust_env",
    )
    names = [n for n in connection.fields if n.startswith("extra.") and n.removeprefix("extra.") not in for_requests]
    headers = {name.removeprefix("extra."): str(connection.fields.pop(name)) for name in names}
    value = {"base_url": base_url, "headers": headers, **options}
    return secret_block(env_name(connection.id), {name: each for name, each in value.items() if each not in (None, {})})


def other(connection: Connection) -> New:
    """Return a secret with all fields, for a type that has no block of its own."""
    value = {name.removeprefix("extra."): each for name, each in connection.fields.items()}
    connection.fields.clear()
    return secret_block(env_name(connection.id), value)


DATABASE = {"prefect_sqlalchemy": "prefect-sqlalchemy"}
# Type in Airflow -> what makes the block, and the packages that it needs beside Prefect: module -> requirement.
BLOCK_TYPES: dict[str, tuple[Callable[[Connection], New], dict[str, str]]] = {
    "aws": (aws, {"prefect_aws": "prefect-aws"}),
    "google_cloud_platform": (google, {"prefect_gcp": "prefect-gcp"}),
    "http": (http, {}),
    "mysql": (mysql, DATABASE | {"pymysql": "pymysql"}),
    "postgres": (postgres, DATABASE | {"psycopg": "psycopg[binary]"}),
    "slack": (slack, {"prefect_slack": "prefect-slack"}),
    "slackwebhook": (slack_webhook, {}),
    "snowflake": (snowflake, {"prefect_snowflake": "prefect-snowflake"}),
    "sqlite": (sqlite, DATABASE),
    "wasb": (wasb, {"prefect_azure": "prefect-azure[blob_storage]"}),
}


def connection(id: str, found: Any, refused: str = "") -> Declaration:
    """Return the declaration of a connection; a secret with its fields where Prefect `refused` the fitting block."""
    source = Connection(id, found)
    name = block_name(id)
    make, packages = (other, {}) if refused else BLOCK_TYPES.get(source.type, (other, {}))
    try:
        new = make(source)
    except NoBlock as why:
        return connection(id, found, refused=str(why))
    notes = [f"{field} has no place in {new.class_name}" for field in source.fields]
    if make is http:
        notes.append(f'flows use it so: httpx.Client(**Secret.load("{name}").get())')
    elif make is other:
        why = refused or f"is of the type {source.type}, which has no block here"
        notes.append(f'{why}; Secret.load("{name}").get() gives its fields, as a dictionary')
    return Declaration("BLOCKS", name, new, source.comment, packages, notes)


# --- reading -------------------------------------------------------------------------------------------

MAKE: dict[str, Callable[[str, Any], Declaration]] = {"connections": connection, "variables": variable, "pools": pool}


Entry = tuple[str, str, Any]  # kind, id, content


def read(file: Path, kind: str, notes: list[str]) -> list[Entry]:
    """Return the entries of an export.

    Args:
        file: its name tells its form
        kind: connections, variables or pools; empty: what the content looks like, or else what the file's name says
        notes: takes what is worth knowing about the file

    Raises:
        OpsError: it cannot be read, or its kind does not show
    """
    parsers: dict[str, Callable[[str], Any]] = {
        ".env": lambda text: from_env(text, notes),
        ".json": json.loads,
        ".yaml": yaml.safe_load,
        ".yml": yaml.safe_load,
    }
    if not (parse := parsers.get(file.suffix)):
        raise OpsError(f"{file}: its name must end in .json, .yaml or .env, whichever it is")
    try:
        found = parse(file.read_text("utf-8")) or {}
    except json.JSONDecodeError as error:  # told without the text, which may be a secret
        raise OpsError(f"{file}: line {error.lineno} is no JSON: {error.msg}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise OpsError(f"{file}: {f'line {mark.line + 1} ' if mark else ''}is no YAML") from None
    except OpsError as error:
        raise OpsError(f"{file}: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OpsError(f"{file}: {getattr(error, 'strerror', None) or 'is no text'}") from None
    if isinstance(found, dict):
        found = [("", str(id), content) for id, content in found.items()]
    elif file.suffix != ".env":
        raise OpsError(f"{file}: is no export: use `airflow connections export FILE`, which is not what `list` prints")
    likely = {looks_like(content, file.suffix) for known, _, content in found if not known}
    named = {each for each in KINDS if each[:-1] in file.stem.lower()}
    told = {kind} if kind else set().union(*(each for each in (likely, named) if len(each) == 1))
    if len(told) == 1:
        return [(known or next(iter(told)), id, content) for known, id, content in found]
    if not likely:
        return found
    raise OpsError(f"{file}: does not show whether it holds connections, variables or pools: say so with --as")


# A line of a .env file, or more of them, when its value has quotes around it; the next one begins where it ends.
ENV_LINE = re.compile(
    r"""[ \t]*(?:\#.*|(?:export[ \t]+)?(?P<id>[^\s='"{},]+)=(?:
        (?:'(?P<single>(?s:.*?))'|"(?P<double>(?s:(?:\\.|[^\\])*?))")(?:[ \t]+\#.*|[ \t]*)$ | (?P<bare>(?!['"]).*)
    ))?[ \t]*(?:\n|\Z)""",
    re.MULTILINE | re.VERBOSE,
)
PREFIXES = {"AIRFLOW_CONN_": "connections", "AIRFLOW_VAR_": "variables"}


def from_env(text: str, notes: list[str]) -> list[Entry]:
    """Return the entries of a .env file: an export of Airflow, or an environment, of which Airflow's prefixes count."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        if not (line := ENV_LINE.match(text, at)):
            raise OpsError(f"line {text.count(chr(10), 0, at) + 1} is no NAME=value")
        if line["id"]:
            double = line["double"] and re.sub(r'\\(["\\$`])', r"\1", line["double"])
            found.append((line["id"], double or line["single"] or line["bare"] or ""))
        at = line.end()
    if not any(id.startswith("AIRFLOW_") for id, _ in found):
        return [("", id, content) for id, content in found]
    entries = [
        (kind, id.removeprefix(prefix).lower(), content)
        for id, content in found
        for prefix, kind in PREFIXES.items()
        if id.startswith(prefix)
    ]
    if others := len(found) - len(entries):
        notes.append(f"settings whose names begin with neither {' nor '.join(PREFIXES)} are left out: {others}")
    return entries


def looks_like(content: Any, suffix: str) -> str:
    if isinstance(content, dict):
        return "connections" if "conn_type" in content else "pools" if "slots" in content else "variables"
    in_one_line = suffix == ".env" and re.match(r"[a-z][a-z0-9+.-]*://|{.*\"conn_type\"", str(content))
    return "connections" if in_one_line else "variables"


# --- writing -------------------------------------------------------------------------------------------


class Imported:
    """ops/imported.py as text, to which declarations can be added. What is there stays, comments too."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.text = file.read_bytes()
        self.tree = ast.parse(self.text)
        self.containers: dict[str, ast.Dict | ast.List] = {}
        for node in self.tree.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict | ast.List):
                self.containers[ast.unparse(node.target)] = node.value
        if missing := {"BLOCKS", "VARIABLES", "LIMITS"} - self.containers.keys():
            raise OpsError(f"{file}: {', '.join(sorted(missing))} is missing, where imports go: restore it from git")

    def entries(self, container: str) -> dict[str, ast.expr]:
        """Return the code of each entry by the name of its object."""
        node = self.containers[container]
        if isinstance(node, ast.Dict):
            return {ast.literal_eval(key): value for key, value in zip(node.keys, node.values, strict=True) if key}
        words = [(word, call) for call in node.elts if isinstance(call, ast.Call) for word in call.keywords]
        return {ast.literal_eval(word.value): call for word, call in words if word.arg == "name"}

    def add(self, declarations: list[Declaration]) -> None:
        """Add them at the end of their containers, with the imports that they need, and write the file."""
        starts = [0, *(found.end() for found in re.finditer(rb"\n", self.text))]

        def end_of(node: ast.expr) -> int:
            return starts[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)

        text = self.text
        for name, container in sorted(self.containers.items(), key=lambda item: -item[1].lineno):  # the last one first
            entries = container.values if isinstance(container, ast.Dict) else container.elts
            bracket = end_of(container) - 1
            last = end_of(entries[-1]) if entries else bracket
            after = text[last:bracket]
            comma = b"," if entries and b"," not in re.sub(rb"#.*", b"", after) else b""
            added = "".join(f"\n{each.entry()}\n" for each in declarations if each.container == name).encode()
            text = text[:last] + (comma + after + added if added else after) + text[bracket:]
        known = {ast.unparse(node) for node in self.tree.body if isinstance(node, ast.Import)}
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom):
                known |= {f"from {node.module} import {alias.name}" for alias in node.names}
        first = next(node for node in self.tree.body if isinstance(node, ast.Import | ast.ImportFrom))
        imports = "".join(
            f"{line}\n" for line in sorted({i for each in declarations for i in each.new.imports()} - known)
        )
        at = starts[first.lineno - 1]
        self.file.write_bytes(formatted(text[:at] + imports.encode() + text[at:]))


def formatted(code: bytes) -> bytes:
    """Return code as `make lint` wants it, if ruff is installed."""
    for arguments in (["check", "--select=I", "--fix-only"], ["format"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--quiet", "--stdin-filename=ops/imported.py", "-"]
        done = subprocess.run(command, cwd=ROOT, input=code, capture_output=True)
        code = done.stdout if done.returncode == 0 else code
    return code


def add_secrets(file: Path, secrets: dict[str, str]) -> list[str]:
    """Add those to .env that it does not have; return the names of those that have another value there, and keep it."""
    there = {name: value for name, value in dotenv_values(file, interpolate=False).items() if value}
    quoted = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in secrets.items()}
    lines = [f"{name}='{value}'\n" for name, value in quoted.items() if name not in there]
    if lines:
        before = file.read_text("utf-8") if file.exists() else ""
        end = "\n" * (bool(before) + bool(before and not before.endswith("\n")))
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as env:
            os.fchmod(env.fileno(), 0o600)  # of one that was there, too
            env.write(f"{end}# From Airflow: secrets of ops/imported.py\n{''.join(lines)}")
    return [name for name, value in secrets.items() if there.get(name, value) != value]


# --- the command ---------------------------------------------------------------------------------------


def import_files(files: list[Path], kind: str, tell: Callable[[str], None], root: Path = ROOT) -> int:
    """Declare what the files hold, tell what became of each entry, and what to do next.

    Args:
        files: exports of Airflow
        kind: what they hold; empty: whatever shows
        tell: prints a line
        root: the project

    Returns:
        0, or 2 when something was left out

    Raises:
        OpsError: a file cannot be used; nothing was written then
    """
    if kind and kind not in KINDS:
        raise OpsError(f"--as {kind}: choose one of {', '.join(KINDS)}")
    imported = Imported(root / "ops/imported.py")
    there: dict[str, dict[str, str]] = {  # container -> name -> its code; empty, when it is declared elsewhere
        "BLOCKS": dict.fromkeys(BLOCKS, ""),
        "VARIABLES": {each.name: "" for each in VARIABLES},
        "LIMITS": {each.name: "" for each in GLOBAL_CONCURRENCY_LIMITS},
    }
    for container, names in there.items():
        names |= {name: ast.dump(code) for name, code in imported.entries(container).items()}
    new: list[Declaration] = []
    owners: dict[tuple[str, str], str] = {}  # container and name, or a secret's name -> the entry that has it
    secrets: dict[str, str] = {}
    notes: list[str] = []
    left_out: list[str] = []
    missing: dict[str, list[str]] = {}  # requirement -> what needs it
    waiting: list[str] = []
    same = 0
    for each, id, content in [entry for file in files for entry in read(file, kind, notes)]:
        origin = f"{each[:-1]} {id}"
        try:
            declaration = MAKE[each](id, content)
            if not declaration.name:
                raise NotImported("has no letter a-z and no digit in its name: rename it")
            if packages := [package for module, package in declaration.packages.items() if not find_spec(module)]:
                waiting.append(origin)
                for package in packages:
                    missing.setdefault(package, []).append(origin)
                continue
            try:
                declaration.check()
            except NotImported as why:
                if each != "connections":
                    raise
                declaration = connection(id, content, refused=str(why))
            claims = [(declaration.container, declaration.name), *(("secret", name) for name in declaration.secrets())]
            if clash := next((owners[claim] for claim in claims if claim in owners), ""):
                raise NotImported(f"would have the name of {clash}, {declaration.name}: rename one of the two")
            owners |= dict.fromkeys(claims, origin)
        except Unneeded as why:
            notes.append(f"{origin} {why}")
        except NotImported as why:
            left_out.append(f"{origin} {why}")
        else:
            notes += [f"{origin}: {note}" for note in declaration.notes]
            code = ast.dump(ast.parse(declaration.code(), mode="eval").body)
            if (found := there[declaration.container].get(declaration.name)) is None:
                new.append(declaration)
            elif found == code:
                same += 1
            else:
                notes.append(f"{origin}: {declaration.what} is declared already, in another way, and stays as it is")
                continue
            secrets |= declaration.secrets()
    kept = add_secrets(root / ".env", secrets)
    if new:
        imported.add(new)

    for declaration in new:
        tell(f"+ {declaration.what}")
    for note in [*notes, *(f"{name} has another value in .env, which stays" for name in kept)]:
        tell(f"! {note}")
    for package, origins in missing.items():
        tell(f"- left out, as {package} is not installed: {', '.join(origins)}")
    for why in left_out:
        tell(f"- left out: {why}")
    tell(f"{len(new)} declared in ops/imported.py, {same} there already, {len(left_out) + len(waiting)} left out")
    steps = []
    if missing:
        uv = "uv" if shutil.which("uv") else ".uv/bin/uv"
        steps.append(f"{uv} add {shlex.join(missing)}    # then this command again: it adds what was left out")
    if new:
        steps += ["git diff ops/imported.py    # read what was declared; change what does not fit", "make plan"]
    if secrets:
        steps.append("set the IMPORTED_ variables of ops/imported.py wherever else `make deploy` runs, such as in CI")
    steps.append(f"at the end, delete {', '.join(map(str, files))}: exports hold secrets as plain text")
    for step in steps:
        tell(f"Next: {step}")
    return 2 if left_out or missing else 0
