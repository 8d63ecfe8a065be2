"""HTTPS on a real cluster: the local authority, certificates that are no good, a browser, and an ACME server's challenge."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which

import pytest
from cryptography import x509

from sampan.cluster import config as configuration
from tests.cluster import acme
from tests.real_cluster import Cluster, Kubectl, Result, missing, run, sampan

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]
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


def service(name: str, address: str, port: int) -> str:
    """A Service that leads to a server outside of the cluster."""
    meta = {"name": name}
    ports = [{"name": "http", "port": port}]
    return json.dumps(
        {"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Service", "metadata": meta,
             "spec": {"ports": [{"name": "http", "port": 80, "targetPort": port}]}},
            {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
             "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
             "endpoints": [{"addresses": [address]}], "ports": ports},
        ]}
    )  # fmt: skip


def ingress(
    name: str, host: str, secret: str = "", path: str = "/", kind: str = "Prefix", **annotations: str
) -> str:
    backend = {"service": {"name": "site", "port": {"number": 80}}}
    rule = {"host": host, "http": {"paths": [{"path": path, "pathType": kind, "backend": backend}]}}
    spec: dict[str, object] = {"rules": [rule]}
    if secret:
        spec["tls"] = [{"hosts": [host], "secretName": secret}]
    given = {f"sampan.io/{k.replace('_', '-')}": v for k, v in annotations.items()}
    meta = {"name": name, "annotations": {**given, "cert-manager.io/cluster-issuer": "any"}}
    return json.dumps(
        {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": spec}
    )


def secret(name: str, chain: str, key: str) -> str:
    meta = {"name": name}
    data = {"tls.crt": chain, "tls.key": key}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": meta,
            "stringData": data,
        }
    )


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("tls")
    config_file, name = home / "kubeconfig", f"pytest-tls-{os.getpid()}"
    try:
        sampan("up", "--name", name, kubeconfig=config_file)
        yield Cluster(configuration.existing(name))
    finally:
        if configuration.load(name) is not None:
            sampan("delete", "--name", name, kubeconfig=config_file)


@pytest.fixture(scope="module")
def site(owner: Cluster) -> Iterator[Site]:
    server = Site(owner.config.bridge_address)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    owner.kubectl()("apply", "-f", "-", stdin=service("site", *server.server_address[:2]))  # type: ignore[arg-type]
    yield server
    server.shutdown()


@pytest.fixture
def kubectl(owner: Cluster, site: Site) -> Kubectl:
    return owner.kubectl()


@pytest.fixture
def authority(owner: Cluster) -> str:
    return sampan("ca", "--name", owner.name, kubeconfig=owner.kubeconfig).strip()


@pytest.fixture
def address(kubectl: Kubectl) -> str:
    wanted = "--for=jsonpath={.status.loadBalancer.ingress[0].ip}"
    kubectl("wait", "service/sampan-ingress", "-n", "kube-system", wanted, "--timeout=30s")
    path = "jsonpath={.status.loadBalancer.ingress[0].ip}"
    return kubectl("get", "service", "sampan-ingress", "-n", "kube-system", "-o", path).strip()


def ask(address: str, url: str, *more: str) -> Result:
    command = ["curl", "-s", "-m", "5", "--connect-to", f"::{address}:", "-o", "/dev/null", *more]
    return run([*command, "-w", "%{http_code} %{redirect_url}", url])


def until(address: str, url: str, wanted: str, *more: str) -> None:
    deadline = time.monotonic() + 20
    while not (got := ask(address, url, *more)).out.startswith(wanted):
        assert time.monotonic() < deadline, got


def shown(address: str, host: str) -> x509.Certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((address, 443), 5) as raw,
        context.wrap_socket(raw, server_hostname=host) as connection,
    ):
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")


def wait_event(kubectl: Kubectl, name: str, reason: str) -> str:
    """The message of the event of this reason about an Ingress."""
    selector = f"involvedObject.name={name},reason={reason}"
    deadline = time.monotonic() + 20
    while not (
        found := kubectl("get", "events", "--field-selector", selector, "-o", "jsonpath={..message}").strip()
    ):
        assert time.monotonic() < deadline, kubectl("get", "events")
    return found


def test_the_local_authority_makes_certificates(kubectl: Kubectl, address: str, authority: str) -> None:
    kubectl("apply", "-f", "-", stdin=ingress("local", "local.test", tls="local"))
    until(address, "https://local.test/", "200", "--cacert", authority)
    first = shown(address, "local.test")
    # Made anew when it is gone, and shown at once.
    kubectl("delete", "secret", "local-local-tls")
    deadline = time.monotonic() + 10
    while (now := shown(address, "local.test")) == first or now.issuer == now.subject:
        assert time.monotonic() < deadline
    until(address, "https://local.test/", "200", "--cacert", authority)
    default = shown(address, "nobody.test")
    assert default.issuer == default.subject


def test_certificates_that_are_no_good_are_told_of_and_in_nobodys_way(
    owner: Cluster, kubectl: Kubectl, address: str
) -> None:
    ca = acme.Authority()
    now = datetime.datetime.now(datetime.UTC)
    soon = now + datetime.timedelta(seconds=6)
    pairs = {
        "good": ca.pair("good.test"),
        "other": ca.pair("elsewhere.test"),
        "expired": ca.pair("expired.test", until=now - datetime.timedelta(days=1)),
        "soon": ca.pair("soon.test", until=soon),
        "broken": (ca.pair("broken.test")[0], ca.pair("broken.test")[1]),
    }
    for name, pair in pairs.items():
        kubectl("apply", "-f", "-", stdin=secret(f"{name}-tls", *pair))
        kubectl("apply", "-f", "-", stdin=ingress(name, f"{name}.test", f"{name}-tls"))
    kubectl("apply", "-f", "-", stdin=ingress("absent", "absent.test", "absent-tls"))
    assert "does not belong to tls.crt" in wait_event(kubectl, "broken", "BadCertificate")
    assert "expired at" in wait_event(kubectl, "expired", "CertificateExpired")
    assert "is not for other.test" in wait_event(kubectl, "other", "CertificateOfAnotherHost")
    assert "there is no Secret default/absent-tls" in wait_event(kubectl, "absent", "SecretNotFound")
    assert "expired at" in wait_event(kubectl, "soon", "CertificateExpired")
    assert datetime.datetime.now(datetime.UTC) > soon - datetime.timedelta(seconds=1)
    assert shown(address, "good.test").issuer == ca.certificate.subject
    assert shown(address, "broken.test").issuer != ca.certificate.subject
    until(address, "https://broken.test/", "200", "-k")
    # Mended and renewed: in force without anybody doing more.
    for name in ("broken", "absent", "good"):
        pair = ca.pair(f"{name}.test")
        kubectl("apply", "-f", "-", stdin=secret(f"{name}-tls", *pair))
        wanted = x509.load_pem_x509_certificate(pair[0].encode())
        deadline = time.monotonic() + 10
        while shown(address, f"{name}.test") != wanted:
            assert time.monotonic() < deadline, name
    assert "PRIVATE" not in sampan("ingress", "routes", "--name", owner.name, kubeconfig=owner.kubeconfig)


@pytest.mark.skipif(not (which("chromium") and which("certutil")), reason="chromium or certutil is missing")
def test_a_browser_trusts_the_local_authority_and_opens_a_websocket(
    kubectl: Kubectl, site: Site, address: str, authority: str, tmp_path: Path
) -> None:
    kubectl("apply", "-f", "-", stdin=ingress("browser", "browser.test", tls="local", https_redirect="true"))
    until(address, "https://browser.test/", "200", "--cacert", authority)
    until(address, "http://browser.test/", "308 https://browser.test/")
    store = tmp_path / ".pki/nssdb"
    store.mkdir(parents=True)
    run(["certutil", "-N", "-d", f"sql:{store}", "--empty-password"])
    added = run(["certutil", "-A", "-d", f"sql:{store}", "-n", "local", "-t", "C,,", "-i", authority])
    assert added.code == 0, added.err
    browser = subprocess.Popen(
        [
            *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-dev-shm-usage", f"--user-data-dir={tmp_path}/profile"),
            *(f"--host-resolver-rules=MAP browser.test {address}", "http://browser.test/"),
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


def test_an_acme_server_is_answered(kubectl: Kubectl, site: Site, address: str, tmp_path: Path) -> None:
    """As cert-manager does it: an Ingress for the challenge beside one that redirects, then the certificate in the Secret."""
    host = "acme.test"
    kubectl("apply", "-f", "-", stdin=ingress("acme", host, "acme-tls", https_redirect="true", hsts="3600"))
    until(address, f"http://{host}/", "308")
    with acme.server(resolve={host: address}) as server:
        client = acme.AcmeClient(server.directory)
        challenge = client.order(host)
        site.files[challenge.path] = challenge.answer.encode()
        kubectl(
            "apply", "-f", "-", stdin=ingress("cm-acme-http-solver", host, path=challenge.path, kind="Exact")
        )
        until(address, f"http://{host}{challenge.path}", "200")
        chain, key = client.finish(challenge)
        trusted = acme.write(server.authority, tmp_path / "root.pem")
    kubectl("delete", "ingress", "cm-acme-http-solver")
    kubectl("apply", "-f", "-", stdin=secret("acme-tls", chain, key))
    until(address, f"https://{host}/", "200", "--cacert", str(trusted))
    until(address, f"http://{host}{challenge.path}", "308")
