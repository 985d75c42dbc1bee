"""Connecting with TLS, and without: each fault is named, and callers who give up leave no noise behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest
from postgres_tools import Server, whole_chain

from openproto import AsyncMemory, InvalidRequestError, OpenProtoError, ProviderError

HOST = "127.0.0.1"
SSL_REQUEST = 8


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for another host, its key in the same file."""
    made = tmp_path_factory.mktemp("tls") / "server.pem"
    subprocess.run(
        ["openssl", "req", "-new", "-x509", "-nodes", "-days", "2", "-subj", "/CN=elsewhere.example",
         "-addext", "subjectAltName=DNS:elsewhere.example", "-keyout", made, "-out", made.with_suffix(".crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    made.write_text(made.read_text() + made.with_suffix(".crt").read_text())
    return made


class Door:
    """A TCP port in front of the private server's socket, with TLS where a context is given."""

    def __init__(self, server: Server, tls: ssl.SSLContext | None) -> None:
        self._socket, self._tls = server.place.socket, tls
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, HOST, 0)
        self.address = f"{HOST}:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._listener.close()
        for writer in self._open:
            writer.close()
        await self._listener.wait_closed()

    def url(self, options: str = "") -> str:
        return f"postgresql://postgres:hunter2@{self.address}/postgres?{options}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._tls is not None:
                await reader.readexactly(SSL_REQUEST)
                writer.write(b"S")
                await writer.start_tls(self._tls)
            inner, out = await asyncio.open_unix_connection(self._socket)
            self._open |= {writer, out}
            await asyncio.gather(pipe(reader, out), pipe(inner, writer))
        except (OSError, asyncio.IncompleteReadError):
            writer.close()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


@pytest.fixture
async def plain(server: Server, nothing_left: None) -> AsyncIterator[Door]:
    async with Door(server, None) as door:
        yield door


@pytest.fixture
async def secured(server: Server, certificate: Path, nothing_left: None) -> AsyncIterator[Door]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with Door(server, context) as door:
        yield door


async def error_of(url: str) -> OpenProtoError:
    with pytest.raises(OpenProtoError) as caught:
        async with AsyncMemory("postgres", url=url, embedder="none", retries=0):
            pass
    assert "hunter2" not in whole_chain(caught.value)
    return caught.value


async def test_a_certificate_that_is_trusted_opens(secured: Door, certificate: Path, schema: str) -> None:
    url = secured.url(f"sslmode=verify-ca&sslrootcert={certificate.with_suffix('.crt')}")
    async with AsyncMemory("postgres", url=url, schema=schema, embedder="none") as memory:
        assert (await memory.add("in", user_id="ada")).content == "in"


async def test_faults_of_tls_are_named(
    plain: Door, secured: Door, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    trusted = f"sslrootcert={certificate.with_suffix('.crt')}"
    other = Path(__file__).parents[1] / "passthrough" / "localhost.pem"
    for url, kind, words in (
        (secured.url("sslmode=verify-full"), InvalidRequestError, ("no root certificate", "sslrootcert=")),
        (secured.url(f"sslmode=verify-full&{trusted}"), ProviderError, (secured.address, "certificate", "mismatch")),
        (secured.url(f"sslmode=verify-ca&sslrootcert={other}"), ProviderError, (secured.address, "not trusted")),
        (secured.url(f"sslmode=require&sslrootcert={tmp_path}/no.crt"), InvalidRequestError, ("sslrootcert=",)),
        (plain.url("sslmode=require"), ProviderError, (plain.address, "speaks no TLS", "postgresql.conf")),
    ):
        error = await error_of(url)
        assert type(error) is kind
        assert all(word in error.message for word in words), error.message


async def test_settings_that_the_server_does_not_know_are_named(dsn: str) -> None:
    error = await error_of(f"{dsn}&pgbouncer=true")
    assert "after '?' in url=" in error.message


async def test_callers_who_give_up_while_connections_open_leave_the_log_silent(
    secured: Door, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url = secured.url("sslmode=require")
    waits = random.Random(34)
    async with AsyncMemory("postgres", url=url, schema=schema, embedder="none", pool_min=0, pool_max=4) as memory:
        for _ in range(25):
            calls = [asyncio.create_task(memory.list("ada")) for _ in range(8)]
            await asyncio.sleep(waits.uniform(0, 0.02))
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            await memory._session.provider._pool._pool.expire_connections()  # type: ignore[attr-defined]
        await memory.list("ada")
    gc.collect()
    await asyncio.sleep(0)
    assert caplog.records == []
