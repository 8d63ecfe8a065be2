"""The values of annotations, as text: each function returns what a text means, or raises ValueError with what is allowed.

What comes out has no character that could be anything but itself in a line of configuration; what has, is refused here.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import ipaddress
import re
import ssl
from collections.abc import Iterable
from urllib.parse import urlsplit

from sampan.api import quantity
from sampan.api.errors import Object
from sampan.api.validation import formats

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DURATION = re.compile(r"[0-9]+|(?:[0-9]+(?:ms|s|m|h))+")
_SPAN = re.compile(r"([0-9]+)(ms|s|m|h)?")
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_RATE = re.compile(r"([0-9]+)/(s|m|h)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_NGINX_SIZE = re.compile(r"([0-9]+)([kKmMgG])?")
_GROUP = re.compile(r"\$([0-9])")
_HASHES = ("$1$", "$5$", "$6$", "$2a$", "$2b$", "$2y$", "$y$")
_USER = re.compile(r"[A-Za-z0-9._@+-]+")
_HASH = re.compile(r"[A-Za-z0-9./$=,-]+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\*\.)?[A-Za-z0-9.-]+(?::[0-9]{1,5})?")
_LONGEST = 24 * 3_600_000
_PAGE = 12 * 1024
_STATUSES = (400, 401, 403, 404, 405, 407, 408, 410, 413, 425, 429, 500, 501, 502, 503, 504)
"""What the proxy may answer with by itself."""
_COSTS = (
    (re.compile(r"\$2[aby]\$([0-9]+)\$"), 10),
    (re.compile(r"\$[56]\$rounds=([0-9]+)\$"), 100_000),
)
_AUTHORITY = 256 * 1024
_YESCRYPT = "$y$j9T$"


def near(name: str, known: Iterable[str]) -> str:
    """What of the known names was probably meant, or ""."""
    return next(iter(difflib.get_close_matches(name, list(known), 1)), "")


def boolean(text: str) -> bool:
    return one_of(text.lower(), ("true", "false")) == "true"


def one_of(text: str, known: Iterable[str]) -> str:
    if text not in known:
        raise ValueError(f"supported values: {', '.join(known)}")
    return text


def positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**31:
        raise ValueError("expected a whole number above 0")
    return int(text)


def share(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 1_000_000:
        raise ValueError("expected a whole number, 0 or more")
    return int(text)


def milliseconds(text: str) -> int:
    """A duration: `30s`, `500ms`, `1h30m`; a number alone is seconds."""
    spans = _SPAN.findall(text) if _DURATION.fullmatch(text) else []
    value = sum(int(number) * _MILLISECONDS[unit or "s"] for number, unit in spans)
    if not 0 < value <= _LONGEST:
        raise ValueError("expected a duration from 1ms to 24h, such as 30s or 1h30m")
    return value


def seconds(text: str) -> int:
    """Seconds: a number alone, or a duration in days, hours, ... (`365d`, `12h`)."""
    found = re.fullmatch(r"([0-9]{1,9})(s|m|h|d)?", text)
    if found is None:
        raise ValueError("expected a number of seconds, or a duration such as 365d")
    return int(found[1]) * {**_SECONDS, "d": 86_400}[found[2] or "s"]


def size(text: str) -> int:
    """Bytes, as a quantity: `10Mi`."""
    try:
        value = int(quantity.parse(text))
    except ValueError:
        value = -1
    if value < 0:
        raise ValueError("expected a quantity of bytes, such as 10Mi")
    return value


def nginx_size(text: str) -> int:
    """Bytes as nginx writes them: `8m`; 0 for no limit."""
    found = _NGINX_SIZE.fullmatch(text)
    if found is None:
        raise ValueError("expected a size such as 8m")
    return int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[(found[2] or "").lower()]


def rate(text: str) -> tuple[int, int]:
    """Requests and seconds of `10/s`, `100/m` or `1000/h`."""
    found = _RATE.fullmatch(text)
    if found is None or not 0 < int(found[1]) < 2**31:
        raise ValueError("expected a rate such as 10/s, 100/m or 1000/h")
    return int(found[1]), _SECONDS[found[2]]


def networks(text: str) -> tuple[str, ...]:
    """Networks or addresses, separated by commas."""
    found = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        try:
            found.append(str(ipaddress.ip_network(part, strict=False)))
        except ValueError:
            raise ValueError(f"{part!r} is no network such as 10.0.0.0/8") from None
    if not found:
        raise ValueError("expected networks such as 10.0.0.0/8, separated by commas")
    return tuple(dict.fromkeys(found))


def token(text: str) -> str:
    """A name of a header or cookie (RFC 9110, 5.6.2)."""
    if not _TOKEN.fullmatch(text):
        raise ValueError("expected a name of letters, digits and !#$%&'*+-.^_`|~")
    return text


def tokens(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    found = tuple(token(p) for p in (p.strip() for p in text.split(",")) if p)
    if not found:
        raise ValueError("expected names, separated by commas")
    return found


def origins(text: str) -> tuple[str, ...]:
    """Origins separated by commas: `https://example.com`, `https://*.example.com`, or `*` for all."""
    found = tuple(p for p in (p.strip() for p in text.split(",")) if p)
    for one in found:
        if one != "*" and not _ORIGIN.fullmatch(one):
            raise ValueError(f"{one!r} is no origin such as https://example.com or https://*.example.com")
    if not found:
        raise ValueError("expected origins such as https://example.com, separated by commas, or *")
    return ("*",) if "*" in found else found


def words(text: str) -> str:
    """Text on one line without quotes and backslashes."""
    if not text or not text.isprintable() or any(c in text for c in '"\\') or len(text) > 200:
        raise ValueError("expected up to 200 printable characters without quotes and backslashes")
    return text


def hostname(text: str) -> str:
    if formats.dns1123_subdomain(text):
        raise ValueError("expected the name of a host")
    return text


def url(text: str) -> tuple[str, str, int, str | None]:
    """Scheme, host, port (0 for the usual one) and path of a URL; a path alone is one, too."""
    if any(c in text for c in "\"'\\ ") or not text.isascii() or not text.isprintable():
        raise ValueError("expected a URL such as https://example.com/there")
    if text.startswith("/"):
        return "", "", 0, text
    parts = urlsplit(text)
    try:
        port = parts.port or 0
    except ValueError:
        raise ValueError("expected a URL with a port from 1 to 65535") from None
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or formats.dns1123_subdomain(parts.hostname)
    ):
        raise ValueError("expected a URL such as https://example.com/there")
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, parts.hostname, port, path or None


def replacement(text: str) -> str:
    """A path in which `\\1` ... are groups of the pattern."""
    if not text.startswith(("/", "\\")) or not text.isascii() or not text.isprintable():
        raise ValueError("expected a path such as /\\1")
    if any(c in text for c in "\"' #"):
        raise ValueError("a path has no blanks, quotes and '#'")
    if re.search(r"\\(?![0-9])", text):
        raise ValueError("after a backslash comes the number of a group, as in /\\1")
    return text


def nginx_replacement(text: str) -> str:
    """The same as nginx writes it: `$1`."""
    if "\\" in text:
        raise ValueError("expected a path such as /$1")
    converted = _GROUP.sub(r"\\\1", text)
    if "$" in converted:
        raise ValueError("expected a path in which only groups ($1) are replaced")
    return replacement(converted if converted.startswith("/") else f"/{converted}")


def htpasswd(secret: Object) -> tuple[tuple[str, str], ...]:
    """Users and hashes of a Secret: its key `auth` is a file of htpasswd's. Raises ValueError, with no hash in its words."""
    try:
        text = base64.b64decode((secret.get("data") or {}).get("auth") or "", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, hashed = line.strip().partition(":")
        if not colon or not _USER.fullmatch(user):
            raise ValueError(f"line {number} of the key auth is not USER:HASH")
        if not hashed.startswith(_HASHES) or not _HASH.fullmatch(hashed):
            allowed = (
                "SHA-512 ($6$), SHA-256 ($5$), bcrypt ($2y$) or MD5 ($1$): htpasswd -B, openssl passwd -6"
            )
            raise ValueError(f"the hash of {user} is of no known kind ({allowed})")
        if not _cheap(hashed):
            allowed = "bcrypt's cost may be 10 (htpasswd -B -C 10), the rounds of SHA 100,000"
            raise ValueError(f"the hash of {user} takes too long to be checked at each visit: {allowed}")
        found[user] = hashed
    if not found:
        raise ValueError("the Secret has no users: its key auth is to be a file as htpasswd makes it")
    return tuple(found.items())


def _cheap(hashed: str) -> bool:
    """Whether a password is checked fast enough for the proxy to do it, all others waiting."""
    if hashed.startswith("$y$"):
        return hashed.startswith(_YESCRYPT)
    for pattern, most in _COSTS:
        found = pattern.match(hashed)
        if found and int(found[1]) > most:
            return False
    return True


def authority(secret: Object) -> str:
    """The certificates (PEM) of a Secret's key `ca.crt`."""
    try:
        text = base64.b64decode((secret.get("data") or {}).get("ca.crt") or "", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    if len(text) > _AUTHORITY:
        raise ValueError("the key ca.crt of the Secret is longer than 256 KiB; its backends are not trusted")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=text.encode("ascii", "ignore").decode())
        found = context.get_ca_certs(binary_form=True)
    except (ssl.SSLError, ValueError):
        found = []
    if not found:
        raise ValueError(
            "the Secret has no certificate of an authority in its key ca.crt; its backends are not trusted"
        )
    # What was understood, and nothing beside it.
    return "".join(ssl.DER_cert_to_PEM_cert(one) for one in sorted(found))


def pages(configmap: Object) -> tuple[tuple[int, str], ...]:
    """Pages by status: the keys of a ConfigMap are codes, such as 503."""
    found = []
    for key, text in sorted((configmap.get("data") or {}).items()):
        if key not in map(str, _STATUSES):
            known = ", ".join(map(str, _STATUSES))
            raise ValueError(
                f"the key {key!r} of the ConfigMap is no status that the proxy answers with ({known})"
            )
        if len(text.encode(errors="replace")) > _PAGE:
            raise ValueError(f"the page {key} is longer than 12 KiB")
        found.append((int(key), text))
    if not found:
        raise ValueError("the ConfigMap has no pages: its keys are to be codes such as 503")
    return tuple(found)
