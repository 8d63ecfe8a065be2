"""A request on its way to its answer: what is known of it beyond `transport.types.Request`, and why it may be refused."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

from sampan.api.errors import StatusError
from sampan.transport.types import Request

MOST_HEADERS = 1000
"""How many different headers a request may have."""
_HOST = re.compile(r"[-A-Za-z0-9!$%&'()*+,.:;=\[\]_~]*").fullmatch

header_names: dict[bytes, str] = {}


def header_name(raw: bytes) -> str:
    name = raw.decode("latin-1").lower()
    if len(header_names) < 512:
        header_names[raw] = name
    return name


class Refused(Exception):
    """The request that is being parsed is answered with this error, and the connection ends."""

    def __init__(self, error: StatusError) -> None:
        self.error = error


class Incoming:
    """A request with what the answer's framing depends on."""

    __slots__ = ("accepts_gzip", "error", "http10", "keep_alive", "request", "upgrade")

    def __init__(self, request: Request, keep_alive: bool, http10: bool, error: StatusError | None = None):
        self.request = request
        self.keep_alive = keep_alive
        self.http10 = http10
        self.error = error
        self.upgrade = False
        self.accepts_gzip = accepts_gzip(request.headers.get("accept-encoding", ""))

    @property
    def unread(self) -> bool:
        """Whether some of a streamed body is still to come, or was left lying: the connection cannot go on."""
        body = self.request.body_stream
        return body is not None and not body.at_eof()


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether gzip is among the encodings and not ruled out (`gzip;q=0`)."""
    if "gzip" not in accept_encoding:
        return False
    for part in accept_encoding.split(","):
        name, _, parameter = part.partition(";")
        if name.strip() == "gzip":
            return parameter.replace(" ", "").rstrip("0.") not in ("q=", "q=0")
    return False


def decode_body(request: Request, encoding: str, limit: int) -> StatusError | None:
    """Unpack a body in place. A body that unpacks to more than the limit is refused before it fills the memory."""
    if encoding == "identity" or not request.body:
        return None
    if encoding != "gzip":
        return StatusError(415, "UnsupportedMediaType", f"Content-Encoding {encoding} is not supported")
    unpacker = zlib.decompressobj(31)
    try:
        body = unpacker.decompress(request.body, limit + 1)
    except zlib.error as failure:
        return StatusError(400, "BadRequest", f"body is not valid gzip: {failure}")
    if len(body) > limit:
        return body_too_large(limit)
    if not unpacker.eof:
        return StatusError(400, "BadRequest", "body is not valid gzip: it ends early")
    request.body = body
    del request.headers["content-encoding"]
    return None


def origin_form(target: str) -> str:
    """The path of an absolute-form target (`http://host/path`), which clients send to proxies."""
    scheme, separator, rest = target.partition("://")
    if not separator or not scheme.isalpha():
        return target
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/"


def head_problem(version: str, headers: Mapping[str, str]) -> StatusError | None:
    """Why a request may not go on after its head: what others on the way could read in another way than we do, and what
    this server does not speak."""
    host = headers.get("host")
    if host is None:
        if version == "1.1":
            return malformed("missing required Host header")
    elif not _HOST(host):
        return malformed("malformed Host header")
    if version not in ("1.1", "1.0"):
        return StatusError(505, "BadRequest", f"HTTP version {version} is not supported: use HTTP/1.1")
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if version == "1.0":
            return malformed("HTTP/1.0 knows no Transfer-Encoding")
        if coding.strip().lower() != "chunked":
            return StatusError(
                501, "BadRequest", f"Transfer-Encoding {coding!r} is not supported: use chunked"
            )
    expectation = headers.get("expect")
    if expectation is not None and expectation.lower() != "100-continue":
        return StatusError(417, "ExpectationFailed", f"Expect: {expectation!r} cannot be met")
    return None


def malformed(why: str) -> StatusError:
    return StatusError(400, "BadRequest", f"malformed HTTP request: {why}")


def body_too_large(limit: int) -> StatusError:
    return StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def head_too_large(limit: int) -> StatusError:
    return StatusError(431, "RequestHeaderFieldsTooLarge", f"Request header too large: limit is {limit}")
