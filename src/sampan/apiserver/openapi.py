"""The OpenAPI documents as clients ask for them: `/openapi/v2`, the list `/openapi/v3` and the documents below it.

The hash in a document's address stands for its content, so that clients may keep it for ever.

Upstream: `k8s.io/kube-openapi/pkg/{handler,handler3}`.
"""

from __future__ import annotations

from sampan.api import openapi
from sampan.api.errors import StatusError
from sampan.apiserver import discovery
from sampan.transport.types import Request, Response

_JSON = "application/json"
_V3 = "/openapi/v3"
_FOR_EVER = (("Cache-Control", "public, immutable, max-age=31536000"),)


def handle(request: Request) -> Response | None:
    """Answer `/openapi/v2` and `/openapi/v3/...`; None for a path without a document. Raises StatusError 406 where
    the client accepts no form that the document has."""
    path = request.raw_path.rstrip("/")
    if path == "/openapi/v2":
        _check_accepts(request)
        return _answer(request, openapi.v2(), openapi.etag("v2"))
    if path == _V3:
        _check_accepts(request)
        return _answer(request, openapi.v3_index(), openapi.index_etag())
    name = path.removeprefix(f"{_V3}/")
    if name == path or name not in openapi.v3_paths():
        return None
    _check_accepts(request)
    given, current = request.param("hash"), openapi.document_hash(name)
    if given and given != current:
        return Response(301, b"", _JSON, (("Location", f"{path}?hash={current}"),))
    return _answer(request, openapi.v3(name) or b"", openapi.etag(name), _FOR_EVER if given else ())


def _check_accepts(request: Request) -> None:
    if not any(discovery.is_json(t) for t in discovery.accepted(request)):
        raise StatusError(406, "NotAcceptable", f"only the following media types are accepted: {_JSON}")


def _answer(request: Request, body: bytes, tag: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    headers = (("ETag", tag), ("Vary", "Accept"), *headers)
    if tag in request.headers.get("if-none-match", ""):
        return Response(304, b"", _JSON, headers)
    return Response(200, body, _JSON, headers)
