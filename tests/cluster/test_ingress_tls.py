"""HTTPS on a real cluster: the local authority, certificates that are no good, a browser, and an ACME server's challenge."""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which

import pytest
from cryptography import x509

from tests.cluster import acme, pebble
from tests.cluster.front_door import NEEDED, FrontDoor, eventually, outside, tls_secret
from tests.real_cluster import run, sampan

pytestmark = NEEDED
PAGE = b"""<!doctype html><title>site</title><script>
const socket = new WebSocket("wss://" + location.host + "/socket");
socket.onmessage = m => fetch("/seen?" + m.data + "," + window.isSecureContext);
socket.onerror = () => fetch("/seen?error");
</script>"""
SOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


class Site(ThreadingHTTPServer):
    """A site with a page that opens a WebSocket and tells what it got. `files` are further paths that it answers."""

    daemon_threads = True

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), _Handler)
        self.seen = ""
        self.told = threading.Event()
        self.files: dict[str, bytes] = {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def do_GET(self) -> None:
        if self.headers.get("Upgrade") == "websocket":
            self._socket()
            return
        if self.path.startswith("/seen?"):
            self.server.seen = self.path.partition("?")[2]
            self.server.told.set()
        body = self.server.files.get(self.path, PAGE)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _socket(self) -> None:
        accept = base64.b64encode(
            hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + SOCKET_GUID).digest()
        ).decode()
        self.send_response(101)
        for name, value in (
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"\x81\x05hello")
        self.rfile.read(1)
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(front_door: FrontDoor) -> Iterator[Site]:
    server = Site(front_door.cluster.config.bridge_address)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    front_door.apply(*outside("site", *server.server_address[:2]))  # type: ignore[arg-type]
    yield server
    server.shutdown()


@pytest.fixture
def door(front_door: FrontDoor, site: Site) -> FrontDoor:
    return front_door


@pytest.fixture
def authority(door: FrontDoor) -> str:
    return sampan("ca", "--name", door.cluster.name, kubeconfig=door.cluster.kubeconfig).strip()


def have(
    door: FrontDoor,
    name: str,
    host: str,
    secret: str = "",
    path: str = "/",
    kind: str = "Prefix",
    **annotations: str,
) -> None:
    """An Ingress that leads to the site."""
    given = {f"sampan.io/{k.replace('_', '-')}": v for k, v in annotations.items()}
    given["cert-manager.io/cluster-issuer"] = "any"
    tls = [{"hosts": [host], "secretName": secret}] if secret else []
    door.apply(door.ingress(name, [(host, path, kind, "site")], annotations=given, tls=tls))


def shown(address: str, host: str) -> x509.Certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((address, 443), 5) as raw,
        context.wrap_socket(raw, server_hostname=host) as connection,
    ):
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")


def test_the_local_authority_makes_certificates(door: FrontDoor, authority: str) -> None:
    address = door.address
    have(door, "local", "local.test", tls="local")
    door.until("local.test", "/", "200", "--cacert", authority, scheme="https")
    first = shown(address, "local.test")
    # Made anew when it is gone, and shown at once.
    door.kubectl("delete", "secret", "local-local-tls")
    eventually(lambda: shown(address, "local.test"), lambda now: now != first and now.issuer != now.subject)
    door.until("local.test", "/", "200", "--cacert", authority, scheme="https")
    default = shown(address, "nobody.test")
    assert default.issuer == default.subject


def test_certificates_that_are_no_good_are_told_of_and_in_nobodys_way(door: FrontDoor) -> None:
    address = door.address
    ca = acme.Authority()
    now = datetime.datetime.now(datetime.UTC)
    soon = now + datetime.timedelta(seconds=4)
    pairs = {
        "good": ca.pair("good.test"),
        "other": ca.pair("elsewhere.test"),
        "expired": ca.pair("expired.test", until=now - datetime.timedelta(days=1)),
        "soon": ca.pair("soon.test", until=soon),
        "broken": (ca.pair("broken.test")[0], ca.pair("broken.test")[1]),
    }
    for name, pair in pairs.items():
        door.apply(tls_secret(f"{name}-tls", *pair))
        have(door, name, f"{name}.test", f"{name}-tls")
    have(door, "absent", "absent.test", "absent-tls")
    assert "does not belong to tls.crt" in door.wait_event("broken", "BadCertificate")
    assert "expired at" in door.wait_event("expired", "CertificateExpired")
    assert "is not for other.test" in door.wait_event("other", "CertificateOfAnotherHost")
    assert f"there is no Secret {door.namespace}/absent-tls" in door.wait_event("absent", "SecretNotFound")
    assert "expired at" in door.wait_event("soon", "CertificateExpired")
    assert datetime.datetime.now(datetime.UTC) > soon - datetime.timedelta(seconds=1)
    assert shown(address, "good.test").issuer == ca.certificate.subject
    assert shown(address, "broken.test").issuer != ca.certificate.subject
    door.until("broken.test", "/", "200", "-k", scheme="https")
    # Mended and renewed: in force without anybody doing more.
    for name in ("broken", "absent", "good"):
        pair = ca.pair(f"{name}.test")
        door.apply(tls_secret(f"{name}-tls", *pair))
        wanted = x509.load_pem_x509_certificate(pair[0].encode())
        eventually(partial(shown, address, f"{name}.test"), wanted.__eq__)
    cluster = door.cluster
    assert "PRIVATE" not in sampan("ingress", "routes", "--name", cluster.name, kubeconfig=cluster.kubeconfig)


@pytest.mark.skipif(not (which("chromium") and which("certutil")), reason="chromium or certutil is missing")
def test_a_browser_trusts_the_local_authority_and_opens_a_websocket(
    door: FrontDoor, site: Site, authority: str, tmp_path: Path
) -> None:
    have(door, "browser", "browser.test", tls="local", https_redirect="true")
    door.until("browser.test", "/", "200", "--cacert", authority, scheme="https")
    door.until("browser.test", "/", "308 https://browser.test/")
    store = tmp_path / ".pki/nssdb"
    store.mkdir(parents=True)
    run(["certutil", "-N", "-d", f"sql:{store}", "--empty-password"])
    added = run(["certutil", "-A", "-d", f"sql:{store}", "-n", "local", "-t", "C,,", "-i", authority])
    assert added.code == 0, added.err
    browser = subprocess.Popen(
        [
            *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-dev-shm-usage", f"--user-data-dir={tmp_path}/profile"),
            *(f"--host-resolver-rules=MAP browser.test {door.address}", "http://browser.test/"),
        ],
        env={**os.environ, "HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert site.told.wait(60)
        assert site.seen == "hello,true"
    finally:
        os.killpg(browser.pid, 9)
        browser.wait()


@pytest.mark.skipif(bool(pebble.missing()), reason=pebble.missing())
def test_an_acme_server_is_answered(door: FrontDoor, site: Site, tmp_path: Path) -> None:
    """As cert-manager does it, with Pebble: an Ingress for the challenge beside one that redirects, then the certificate in the Secret."""
    host = "acme.test"
    have(door, "acme", host, "acme-tls", https_redirect="true", hsts="3600")
    door.until(host, "/", "308")
    with pebble.running(door.address, tmp_path) as server:
        client = acme.AcmeClient(server.directory, server.trusted)
        challenge = client.order(host)
        site.files[challenge.path] = challenge.answer.encode()
        have(door, "cm-acme-http-solver", host, path=challenge.path, kind="Exact")
        door.until(host, challenge.path, "200")
        chain, key = client.finish(challenge)
    door.kubectl("delete", "ingress", "cm-acme-http-solver")
    door.apply(tls_secret("acme-tls", chain, key))
    door.until(host, "/", "200", "--cacert", str(server.root), scheme="https")
    door.until(host, challenge.path, "308")
