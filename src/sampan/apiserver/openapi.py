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
_PROTOBUF = (
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
)
"""The name that clients ask for, and the one that is answered: `@` has no place in a media type."""
_V3 = "/openapi/v3"
_FOR_EVER = (("Cache-Control", "public, immutable, max-age=31536000"),)


def handle(request: Request, without: frozenset[str] = frozenset()) -> Response | None:
    """Answer `/openapi/v2` and `/openapi/v3/...`; None for a path without a document. Raises StatusError 406 where
    the client accepts no form that the document has."""
    path = request.raw_path.rstrip("/")
    if path == "/openapi/v2":
        return _version_2(request, without)
    if path == _V3:
        _check_accepts(request)
        return _answer(request, openapi.v3_index(without), openapi.index_etag(without))
    name = path.removeprefix(f"{_V3}/")
    if name == path or name not in openapi.v3_paths(without):
        return None
    _check_accepts(request)
    given, current = request.param("hash"), openapi.document_hash(name)
    if given and given != current:
        return Response(301, b"", _JSON, (("Location", f"{path}?hash={current}"),))
    return _answer(request, openapi.v3(name) or b"", openapi.etag(name), _FOR_EVER if given else ())


def _version_2(request: Request, without: frozenset[str]) -> Response:
    for media_type in discovery.accepted(request):
        if discovery.is_json(media_type):
            return _answer(request, openapi.v2(without), openapi.etag("v2", without))
        if media_type in _PROTOBUF:
            tag = f'{openapi.etag("v2", without)[:-1]}-protobuf"'
            return _answer(request, openapi.v2_protobuf(without), tag, content_type=_PROTOBUF[1])
    raise _not_acceptable(_JSON, *_PROTOBUF)


def _check_accepts(request: Request) -> None:
    if not any(discovery.is_json(t) for t in discovery.accepted(request)):
        raise _not_acceptable(_JSON)


def _not_acceptable(*types: str) -> StatusError:
    return StatusError(
        406, "NotAcceptable", f"only the following media types are accepted: {', '.join(types)}"
    )


def _answer(
    request: Request,
    body: bytes,
    tag: str,
    headers: tuple[tuple[str, str], ...] = (),
    content_type: str = _JSON,
) -> Response:
    headers = (("ETag", tag), ("Vary", "Accept"), *headers)
    if tag in request.headers.get("if-none-match", ""):
        return Response(304, b"", content_type, headers)
    return Response(200, body, content_type, headers)
