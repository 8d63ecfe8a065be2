"""Lines of the logs: as objects for programs, and never with what is secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from sampan.cluster import logs
from tests.apiserver.running import running

SECRET = "a-hidden-word"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the root logger writes, at its most talkative."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("json", stream)
    root.setLevel(logging.DEBUG)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def test_json_lines(written: io.StringIO) -> None:
    log = logging.getLogger("sampan.x")
    log.info("two\nlines %s", "é")
    log.warning("careful")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    first, second, third = map(json.loads, written.getvalue().splitlines())
    assert (first["msg"], first["logger"], first["v"]) == ("two\nlines é", "sampan.x", 0)
    assert first["ts"] > 1.7e12
    assert second["level"] == "warning"
    assert (third["level"], third["err"]) == ("error", "ValueError: why")
    assert "test_logs.py" in third["stacktrace"]


def test_nothing_secret_is_logged(written: io.StringIO) -> None:
    """Secrets and tokens, well-formed and not, in bodies, headers and queries, through success, refusal and failure."""
    secrets = "/api/v1/namespaces/default/secrets"
    with running() as server:
        body = {"metadata": {"name": "s"}, "stringData": {"k": SECRET}}
        token = server.ok("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", {"spec": {}}, Content_Type="application/json")["status"]["token"]  # fmt: skip
        for method, target, given in (
            ("POST", secrets, body),
            ("POST", secrets, {**body, "data": {"a": f"{SECRET}?"}}),
            ("POST", secrets, f'{{"stringData":{{"k":"{SECRET}'.encode()),
            ("PUT", f"{secrets}/s", {**body, "type": SECRET}),
            ("PATCH", f"{secrets}/s", {"stringData": {"k": SECRET * 2}}),
            ("GET", f"{secrets}/s", b""),
            ("GET", f"{secrets}?watch=1", b""),
            ("DELETE", f"{secrets}/s", b""),
            ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": token}}),
            ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": SECRET}}),
        ):
            media = "application/merge-patch+json" if method == "PATCH" else "application/json"
            server(method, target, given, Content_Type=media)
        for bearer in (token, SECRET, token[:-3] + "xyz", f"{SECRET}.{SECRET}.{SECRET}"):
            server("GET", secrets, Authorization=f"Bearer {bearer}")
            server("GET", f"{secrets}?watch=1&x={SECRET}", Sec_WebSocket_Protocol=f"base64url.bearer.authorization.k8s.io.{bearer}")  # fmt: skip
        logging.getLogger("sampan").info("the end")
    text = written.getvalue()
    assert "the end" in text
    for word in (SECRET, token, token.rpartition(".")[2], "YS1oaWRkZW4td29yZA", "Bearer "):
        assert word not in text
