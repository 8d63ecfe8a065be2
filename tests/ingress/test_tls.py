"""TLS at the front door, on the real HAProxy: which certificate is shown to whom, what is spoken, and changes while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from shutil import which

import pytest
from cryptography import x509

from sampan.ingress.ingresses import Wishes, contribution
from sampan.ingress.route_options import NO_OPTIONS, Options
from sampan.ingress.types import INGRESS_SCOPE, NOTHING, Certificate, Contribution, Host, HostKind, Source
from tests.ingress.door import Answer, Door, Upstream, open_door, parse
from tests.ingress.objects import Rule, ingress, service, set_backends
from tests.ingress.test_certificates import make

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]
ROOT: list[Rule] = [("a.test", "/", "Prefix", "s"), ("b.test", "/", "Prefix", "s")]


def certificate(host: str, pair: tuple[str, str] | None = None, scope: str = INGRESS_SCOPE) -> Certificate:
    chain, key = pair or make(host)
    return Certificate(scope, Host.of_ingress(host), chain, key, Source("Ingress", "a", host))


class Site:
    def __init__(self, door: Door, up: Upstream) -> None:
        self.door, self.up = door, up

    async def have(self, host: str, *certificates: Certificate) -> None:
        """These certificates as what one Ingress brings, in force."""
        owner = ("Ingress", "a", host)
        self.door.table.update(owner, Contribution(certificates=certificates) if certificates else NOTHING)
        await self.door.settle()

    async def route(self, rules: list[Rule], options: Options = NO_OPTIONS, name: str = "i") -> None:
        self.door.table.update(
            ("Ingress", "a", name), contribution(ingress(name, rules), service, Wishes(options=options))
        )
        set_backends(self.door.table, {"s": [self.up.endpoint]})
        await self.door.settle()

    async def shown(self, name: str | None) -> list[str]:
        """The names of the certificate that is shown to who asks for this one."""
        _, writer = await self.connect(name)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        return list(names.value.get_values_for_type(x509.DNSName))

    async def connect(
        self, name: str | None, context: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = context or anybody()
        return await asyncio.open_connection(
            "127.0.0.1", self.door.tls_port, ssl=context, server_hostname=name or ""
        )

    async def get(self, sni: str | None, host: str, path: str = "/") -> Answer:
        reader, writer = await self.connect(sni)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        try:
            return parse((await reader.read(-1)).decode())
        finally:
            writer.close()


def anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        up = await stack.enter_async_context(Upstream("one"))
        yield Site(await stack.enter_async_context(open_door(tmp_path, tls=True)), up)


async def test_the_name_decides_exact_before_wildcard_before_default(site: Site) -> None:
    await site.have("a.test", certificate("a.test"))
    await site.have("*.a.test", certificate("*.a.test"))
    await site.have("x.a.test", certificate("x.a.test"))
    assert await site.shown("a.test") == ["a.test"]
    assert await site.shown("A.TEST") == ["a.test"]
    assert await site.shown("x.a.test") == ["x.a.test"]
    assert await site.shown("y.a.test") == ["*.a.test"]
    default = ["sampan-ingress.invalid"]
    assert (
        await site.shown("z.y.a.test") == await site.shown("other.test") == await site.shown(None) == default
    )
    assert site.door.driver.reloads == 0


async def test_a_certificate_of_a_scope_without_host_is_its_default(site: Site) -> None:
    anyone = Certificate(INGRESS_SCOPE, Host(HostKind.ANY), *make("all.test"), Source("Gateway", "a", "g"))
    await site.have("g", anyone)
    assert await site.shown("other.test") == ["all.test"]
    await site.have("g")
    assert await site.shown("other.test") == ["sampan-ingress.invalid"]


async def test_a_change_is_in_force_at_once_and_open_connections_live(site: Site) -> None:
    await site.route(ROOT)
    await site.have("a.test", certificate("a.test"))
    reader, writer = await site.connect("a.test")
    await site.have("a.test", certificate("a.test", make("a.test", "new.test")))
    assert await site.shown("a.test") == ["a.test", "new.test"]
    await site.have("a.test")
    assert await site.shown("a.test") == ["sampan-ingress.invalid"]
    await site.have("a.test", certificate("a.test"))
    assert await site.shown("a.test") == ["a.test"]
    writer.write(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
    assert parse((await reader.read(-1)).decode()).body.startswith("one")
    assert site.door.driver.reloads == 0


async def test_they_are_there_after_a_new_start(site: Site) -> None:
    await site.have("a.test", certificate("a.test"))
    site.door.serving.clear()
    os.kill(site.door.process.worker, 9)
    async with asyncio.timeout(10):
        await site.door.serving.wait()
    assert await site.shown("a.test") == ["a.test"]
    files = [site.door.files.default_certificate, *site.door.files.named.iterdir()]
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}


async def test_one_that_haproxy_refuses_is_in_nobodys_way(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    broken = make("b.test")[0], make("b.test")[1]  # a key of another
    await site.have("b.test", certificate("b.test", broken), certificate("a.test"))
    assert await site.shown("a.test") == ["a.test"]
    assert await site.shown("b.test") == ["sampan-ingress.invalid"]
    site.door.serving.clear()
    os.kill(site.door.process.worker, 9)
    async with asyncio.timeout(10):
        await site.door.serving.wait()
    assert await site.shown("a.test") == ["a.test"]
    assert "the certificate for b.test" in caplog.text
    assert "PRIVATE" not in caplog.text


async def test_what_is_spoken(site: Site) -> None:
    await site.route(ROOT)
    for offered, chosen in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], None)):
        context = anybody()
        if offered:
            context.set_alpn_protocols(offered)
        _, writer = await site.connect("a.test", context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
        writer.close()
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        old = anybody()
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = old.maximum_version = version
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await site.connect("a.test", old)
    for cipher in ("AES128-SHA", "ECDHE-ECDSA-AES128-SHA"):  # no forward secrecy; CBC
        weak = anybody()
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers(f"{cipher}:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await site.connect("a.test", weak)


async def test_sessions_are_taken_up_again_and_clients_do_not_renegotiate(site: Site) -> None:
    assert await asyncio.to_thread(taken_up, site.door.tls_port) == [False, True, True, True]
    connect = f"openssl s_client -connect 127.0.0.1:{site.door.tls_port} -servername a.test -tls1_2"
    # `R` has s_client ask for another handshake.
    refused = await shell(f"(echo R; exec cat /dev/zero) 2>/dev/null | timeout 10 {connect}")
    assert "RENEGOTIATING" in refused
    assert "no renegotiation" in refused


def taken_up(port: int) -> list[bool]:
    """Of four connections one after another with the session of the last: whether it was taken up. Each waits for an answer: only then is
    it sure that the session is kept."""
    context, found = anybody(), []
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    session: ssl.SSLSession | None = None
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", port), 10) as raw:
            with context.wrap_socket(raw, server_hostname="a.test", session=session) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
                while connection.recv(4096):
                    pass
                found.append(bool(connection.session_reused))
                session = connection.session
    return found


async def shell(command: str) -> str:
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return out.decode(errors="replace")


async def test_no_host_and_no_pem_breaks_out_of_a_list_or_a_command(site: Site) -> None:
    chain, key = make("a.test")
    noise = "\n\nshow info;shutdown sessions\n"
    await site.have(
        "a.test", certificate("a.test", (noise + chain + noise + chain + noise, noise + key + noise))
    )
    pair = chain, key
    hosts = [
        "x y",
        "x\ny.pem *",
        "!x",
        "[alpn h2] x",
        "#x",
        "x;show info",
        "<<",
        "*",
        "*.*",
        "-",
        "",
        "x\0",
        "é.test",
    ]
    await site.have(
        "hostile",
        *(
            Certificate(INGRESS_SCOPE, Host(HostKind.EXACT, h), *pair, Source("Ingress", "a", "b"))
            for h in hosts
            if h
        ),
    )
    assert await site.shown("a.test") == ["a.test"]
    assert await site.shown("x") == ["sampan-ingress.invalid"]
    site.door.serving.clear()
    os.kill(site.door.process.worker, 9)
    async with asyncio.timeout(10):
        await site.door.serving.wait()
    assert await site.shown("a.test") == ["a.test"]
    assert len(next(site.door.files.named.glob("*.crt-list")).read_text().splitlines()) == 2


async def test_a_chain_too_long_for_a_command_takes_a_reload(site: Site) -> None:
    chain, key = make("long.test")
    more = "".join(make(f"{i}.test")[0] for i in range(40))
    await site.have("long.test", certificate("long.test", (chain + more, key)))
    assert await site.shown("long.test") == ["long.test"]
    assert site.door.driver.reloads == 1


async def test_http_2_and_forwarded_headers(site: Site) -> None:
    await site.route(ROOT)
    await site.have("a.test", certificate("a.test"))
    said = await curl(site, "https://a.test", "--http2", "-w", "\n%{http_version}")
    assert said.startswith("one\n")
    assert said.endswith("\n2")
    assert "x-forwarded-proto: https" in said.lower()
    assert "x-forwarded-port: 443" in said.lower()


async def curl(site: Site, url: str, *more: str) -> str:
    to = f"::127.0.0.1:{site.door.tls_port}"
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sk", "-m", "10", "--connect-to", to, url, *more), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode()


async def test_a_connection_for_another_certificate_is_misdirected(site: Site) -> None:
    await site.route([*ROOT, ("x.c.test", "/", "Prefix", "s"), ("y.c.test", "/", "Prefix", "s")])
    both = make("a.test", "b.test")
    await site.have("both", certificate("a.test", both), certificate("b.test", both))
    await site.have("*.c.test", certificate("*.c.test"))
    assert (await site.get("a.test", "b.test")).status == 200  # one certificate for the two
    assert (await site.get("x.c.test", "y.c.test")).status == 200
    assert (await site.get("a.test", "a.test:443")).status == 200
    assert (await site.get("a.test", "x.c.test")).status == 421
    assert (await site.get("unknown.test", "a.test")).status == 421
    assert (await site.get(None, "a.test")).status == 200  # came for an address
    said = await curl(site, "https://a.test", "-H", "Host: x.c.test", "--http2", "-w", "%{http_code}")
    assert said.endswith("421")


async def test_redirect_to_https_and_hsts(site: Site) -> None:
    await site.route(ROOT, Options(https_only=True, hsts=3600))
    solver: list[Rule] = [("a.test", "/.well-known/acme-challenge/token", "Exact", "s")]
    await site.route(solver, name="solver")
    answer = await site.door.get("a.test:8080", "/x?y=1")
    assert (answer.status, answer.headers["location"]) == (308, "https://a.test/x?y=1")
    assert "strict-transport-security" not in answer.headers
    secure = await site.get("a.test", "a.test", "/x")
    assert (secure.status, secure.headers["strict-transport-security"]) == (200, "max-age=3600")
    assert (await site.door.get("a.test", "/.well-known/acme-challenge/token")).status == 200
    await site.route([("", "/", "Prefix", "s")], Options(https_only=True), name="all")
    for head in (b"GET /x HTTP/1.0\r\n\r\n", b"GET /x HTTP/1.0\r\nHost:\r\n\r\n"):
        assert (await site.door.raw(head)).status == 400, "there is nowhere to send it"
    # A solver's path in the Ingress itself, as cert-manager's edit-in-place has it.
    own: list[Rule] = [("b.test", "/.well-known/acme-challenge/own", "Exact", "s")]
    await site.route([*ROOT, *own], Options(https_only=True))
    assert (await site.door.get("b.test", "/.well-known/acme-challenge/own")).status == 200
    assert (await site.door.get("b.test", "/other")).status == 308


async def test_a_thousand_certificates(site: Site) -> None:
    pair = make("all.test")
    many = [certificate(f"h{i}.test", pair) for i in range(1000)]
    for one in many:
        site.door.table.update(("Ingress", "a", one.host.name), Contribution(certificates=(one,)))
    await site.door.settle()
    assert await site.shown("h999.test") == ["all.test"]
    await site.have("h999.test", certificate("h999.test"))
    assert await site.shown("h999.test") == ["h999.test"]
    assert await site.shown("h0.test") == ["all.test"]
    with contextlib.suppress(FileNotFoundError):
        assert "PRIVATE KEY" not in site.door.log.read_text()
