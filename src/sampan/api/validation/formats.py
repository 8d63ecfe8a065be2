"""The formats of names, keys and numbers. Each function returns what is wrong with a value, or nothing.

The wording is upstream's (`k8s.io/apimachinery/pkg/api/validate/content`), because people search for it.
"""

from __future__ import annotations

import functools
import ipaddress
import re

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_WILDCARD = rf"\*\.{_SUBDOMAIN}"
_KEY = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = f"({_KEY})?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_PERCENT = "[0-9]+%"
_HEADER = "[-A-Za-z0-9]+"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"

_is_label = re.compile(_LABEL).fullmatch
_is_subdomain = re.compile(_SUBDOMAIN).fullmatch
_is_label_1035 = re.compile(_LABEL_1035).fullmatch
_is_wildcard = re.compile(_WILDCARD).fullmatch
_is_key = re.compile(_KEY).fullmatch
_is_value = re.compile(_VALUE).fullmatch
_is_config_key = re.compile(_CONFIG_KEY).fullmatch
_is_percent = re.compile(_PERCENT).fullmatch
_is_header = re.compile(_HEADER).fullmatch
_is_c_identifier = re.compile(_C_IDENTIFIER).fullmatch

NON_NEGATIVE = "must be greater than or equal to 0"
IMMUTABLE = "field is immutable"
_MUST_KEY = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"


def _regex(message: str, pattern: str, *examples: str) -> str:
    listed = " or ".join(f"'{e}', " for e in examples)
    return f"{message} (e.g. {listed}regex used for validation is '{pattern}')"


def _too_long(maximum: int) -> str:
    return f"must be no more than {maximum} bytes"


def in_range(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


@functools.lru_cache(4096)
def dns1123_label(value: str) -> tuple[str, ...]:
    out = (_too_long(63),) if len(value) > 63 else ()
    if not _is_label(value):
        if _is_subdomain(value):
            return (*out, "must not contain dots")
        message = (
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
            "and end with an alphanumeric character"
        )
        return (*out, _regex(message, _LABEL, "my-name", "123-abc"))
    return out


@functools.lru_cache(4096)
def dns1123_subdomain(value: str) -> tuple[str, ...]:
    out = (_too_long(253),) if len(value) > 253 else ()
    if not _is_subdomain(value):
        message = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
            "start and end with an alphanumeric character"
        )
        return (*out, _regex(message, _SUBDOMAIN, "example.com"))
    return out


def dns1035_label(value: str) -> tuple[str, ...]:
    out = (_too_long(63),) if len(value) > 63 else ()
    if not _is_label_1035(value):
        message = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
            "character, and end with an alphanumeric character"
        )
        return (*out, _regex(message, _LABEL_1035, "my-name", "abc-123"))
    return out


def wildcard_subdomain(value: str) -> tuple[str, ...]:
    out = (_too_long(253),) if len(value) > 253 else ()
    if not _is_wildcard(value):
        message = (
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist "
            "of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
        )
        return (*out, _regex(message, _WILDCARD, "*.example.com"))
    return out


@functools.lru_cache(4096)
def qualified_name(value: str) -> tuple[str, ...]:
    """A label key: an optional DNS prefix and a name."""
    parts = value.split("/")
    out: tuple[str, ...] = ()
    if len(parts) > 2:
        examples = _regex(_MUST_KEY, _KEY, "MyName", "my.name", "123-abc")
        return (
            f"a valid label key {examples} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        )
    name = parts[-1]
    if len(parts) == 2:
        if not parts[0]:
            out += ("prefix part must be non-empty",)
        else:
            out += tuple("prefix part " + m for m in dns1123_subdomain(parts[0]))
    if not name:
        out += ("name part must be non-empty",)
    elif len(name) > 63:
        out += ("name part " + _too_long(63),)
    if not _is_key(name):
        out += ("name part " + _regex(_MUST_KEY, _KEY, "MyName", "my.name", "123-abc"),)
    return out


@functools.lru_cache(4096)
def label_value(value: str) -> tuple[str, ...]:
    out = (_too_long(63),) if len(value) > 63 else ()
    if not _is_value(value):
        message = "a valid label must be an empty string or c" + _MUST_KEY.removeprefix("must c")
        return (*out, _regex(message, _VALUE, "MyValue", "my_value", "12345"))
    return out


def config_map_key(value: str) -> tuple[str, ...]:
    out: tuple[str, ...] = (_too_long(253),) if len(value) > 253 else ()
    if not _is_config_key(value):
        message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        out += (_regex(message, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"),)
    return out + _directory(value)


def _directory(value: str) -> tuple[str, ...]:
    if value == ".":
        return ("must not be '.'",)
    if value == "..":
        return ("must not be '..'",)
    return ("must not start with '..'",) if value.startswith("..") else ()


def port_number(value: int) -> tuple[str, ...]:
    return () if 1 <= value <= 65535 else (in_range(1, 65535),)


def port_name(value: str) -> tuple[str, ...]:
    out: tuple[str, ...] = ()
    if len(value) > 15:
        out += (_too_long(15),)
    if not re.fullmatch("[-a-z0-9]+", value):
        out += ("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",)
    if not re.search("[a-z]", value):
        out += ("must contain at least one letter (a-z)",)
    if "--" in value:
        out += ("must not contain consecutive hyphens",)
    if value[:1] == "-" or value[-1:] == "-":
        out += ("must not begin or end with a hyphen",)
    return out


def percent(value: str) -> tuple[str, ...]:
    if _is_percent(value):
        return ()
    message = "a valid percent string must be a numeric string followed by an ending '%'"
    return (_regex(message, _PERCENT, "1%", "93%"),)


def header_name(value: str) -> tuple[str, ...]:
    if _is_header(value):
        return ()
    return (
        _regex(
            "a valid HTTP header must consist of alphanumeric characters or '-'", _HEADER, "X-Header-Name"
        ),
    )


def environment_name(value: str) -> tuple[str, ...]:
    """Upstream's relaxed rule: any printable ASCII but `=`."""
    if not value:
        return ("environment variable name must be non-empty",)
    if all(" " <= c <= "~" and c != "=" for c in value):
        return ()
    return (
        "a valid environment variable name must consist only of printable ASCII characters other than '='",
    )


def c_identifier(value: str) -> tuple[str, ...]:
    if _is_c_identifier(value):
        return ()
    message = (
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric "
        "characters or '_'"
    )
    return (_regex(message, _C_IDENTIFIER, "my_name", "MY_NAME", "MyName"),)


def ip_address(value: str) -> tuple[str, ...]:
    try:
        if "%" in value:  # the zone of a link is no part of an address
            raise ValueError
        ipaddress.ip_address(value)
    except ValueError:
        return ("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",)
    return ()


def cidr(value: str) -> tuple[str, ...]:
    try:
        # `ipaddress` also takes a mask (10.0.0.0/255.0.0.0), which upstream does not.
        if not value.partition("/")[2].isdecimal() or "%" in value:
            raise ValueError
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return ("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",)
    return ()


_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")


def canonical_ip(value: str) -> tuple[str, ...]:
    """An address in the one way to write it (the name of an IPAddress)."""
    problems = ip_address(value)
    if problems:
        bare = _LEADING_ZEROS.sub("", value)
        return problems if ":" in value or ip_address(bare) else ("must not have leading 0s",)
    address = ipaddress.ip_address(value)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return ("must not be an IPv4-mapped IPv6 address",)
    return () if value == str(address) else (f'must be in canonical form ("{address}")',)


def canonical_cidr(value: str) -> tuple[str, ...]:
    """A range in the one way to write it, without bits beyond its prefix."""
    problems = cidr(value)
    if problems:
        bare = _LEADING_ZEROS.sub("", value)
        return (
            problems if ":" in value or cidr(bare) else ("must not have leading 0s in IP or prefix length",)
        )
    if not value.rpartition("/")[2].isdecimal():
        return ("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",)
    network = ipaddress.ip_network(value, strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped is not None:
        return ("must not have an IPv4-mapped IPv6 address",)
    if ipaddress.ip_address(value.partition("/")[0]) != network.network_address:
        return ("must not have bits set beyond the prefix length",)
    return () if value == str(network) else (f'must be in canonical form ("{network}")',)


def path_segment(value: str) -> tuple[str, ...]:
    """A name that may be anything that is one segment of a URL path (RBAC)."""
    if value in (".", ".."):
        return (f"may not be '{value}'",)
    return tuple(f"may not contain '{c}'" for c in "/%" if c in value)
