"""What is spoken with backends: HTTP/2 without and with TLS (as gRPC does), and TLS with a certificate that is looked at."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from shutil import which

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sampan.api.errors import Object
from sampan.ingress.ingresses import contribution
from sampan.ingress.types import Endpoint
from tests.ingress.door import open_door
from tests.ingress.http2 import Answered, Http2Upstream, call
from tests.ingress.objects import ingress, set_backends
from tests.ingress.test_options import ROOT, Site

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]
PEM = serialization.Encoding.PEM


class HttpUpstream(Http2Upstream):
    """The same without HTTP/2."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")
        writer.close()


class Authority:
    """A CA and its server's certificate."""

    def __init__(self, directory: Path, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.pem = self._sign("CN of a CA", self._key, ca=True).public_bytes(PEM).decode()
        self._directory, self._name = directory, name

    def context(self, *protocols: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        path = self._directory / "server.pem"
        path.write_bytes(
            self._sign(self._name, key).public_bytes(PEM)
            + key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, ca: bool = False) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CN of a CA")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=10))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if not ca:
            names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_door(tmp_path) as door:
        yield Site(door, {})


async def lead_to(site: Site, endpoint: Endpoint) -> None:
    set_backends(site.door.table, {"s": [endpoint]})
    await site.door.settle()


async def test_http2_by_annotation_and_by_the_services_port(site: Site) -> None:
    async with Http2Upstream() as upstream:
        await site.have(backend_protocol="grpc", to={})
        await lead_to(site, upstream.endpoint)
        assert "two /x" in (await site.get("/x")).body
        assert await call(site.door.port) == Answered("200", "two /pkg.Svc/Call", {"grpc-status": "0"})

        def service(namespace: str, name: str) -> Object:
            port = {"port": 80, "appProtocol": "kubernetes.io/h2c"}
            return {"metadata": {"namespace": namespace, "name": name}, "spec": {"ports": [port]}}

        site.door.table.update(("Ingress", "a", "i"), contribution(ingress("i", ROOT), service))
        await site.door.settle()
        assert "two /y" in (await site.get("/y")).body
        assert site.door.driver.reloads == 0


async def test_tls_is_verified_where_an_authority_is_named(site: Site, tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path, "in.test"), Authority(tmp_path, "in.test")
    for name, one in (("ca", authority), ("other", stranger)):
        site.secrets[name] = {"data": {"ca.crt": base64.b64encode(one.pem.encode()).decode()}}
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(HttpUpstream(authority.context()))
        await site.have(backend_protocol="https", to={})
        await lead_to(site, plain.endpoint)
        assert (await site.get()).body == "one"
        for given, status in (
            ({"backend-ca-secret": "ca", "backend-server-name": "in.test"}, 200),
            ({"backend-ca-secret": "ca", "backend-server-name": "out.test"}, 503),
            ({"backend-ca-secret": "other", "backend-server-name": "in.test"}, 503),
        ):
            await site.have(given, to={})
            assert (await site.get()).status == status, given
        reloads = site.door.driver.reloads
        # Endpoints come and go without a reload.
        await site.have({"backend-ca-secret": "ca", "backend-server-name": "in.test"}, to={})
        second = await stack.enter_async_context(HttpUpstream(authority.context()))
        await lead_to(site, second.endpoint)
        assert (await site.get()).status == 200
        assert site.door.driver.reloads <= reloads + 1
        two = await stack.enter_async_context(Http2Upstream(authority.context("h2")))
        await lead_to(site, two.endpoint)
        await site.have(
            {"backend-protocol": "grpcs", "backend-ca-secret": "ca", "backend-server-name": "in.test"}, to={}
        )
        assert "two /z" in (await site.get("/z")).body
        # A Secret that holds no certificate: closed, and the proxy goes on.
        site.secrets["ca"] = {
            "data": {"ca.crt": base64.b64encode(b"-----BEGIN CERTIFICATE-----\nMII=\n").decode()}
        }
        await site.have({"backend-ca-secret": "ca"}, to={})
        assert (await site.get()).status == 503
        assert "no certificate of an authority" in site.problems[0]
