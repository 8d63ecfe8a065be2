"""Checks of one value at a path, shared by the kinds. Each returns its problems."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

from sampan.api.errors import FieldError, invalid_value, not_supported, required
from sampan.api.validation import formats

Format = Callable[[str], tuple[str, ...]]
Problems = list[FieldError]

PROTOCOLS = ("SCTP", "TCP", "UDP")


def formatted(path: str, value: str, format_: Format) -> Problems:
    return [invalid_value(path, value, m) for m in format_(value)]


def named(path: str, value: str | None, format_: Format) -> Problems:
    """A value that must be there and have a format."""
    return formatted(path, value, format_) if value else [required(path)]


def present(path: str, value: Any, detail: str = "") -> Problems:
    return [] if value else [required(path, detail)]


def one_of(path: str, value: str | None, allowed: Iterable[str], *, absent: bool = False) -> Problems:
    """A value out of an enumeration; `absent` allows it to be missing (None)."""
    if value is None and absent:
        return []
    if not value:
        return [required(path)]
    listed = tuple(allowed)
    return [] if value in listed else [not_supported(path, value, listed)]


def non_negative(path: str, value: int | None) -> Problems:
    return [invalid_value(path, value, formats.NON_NEGATIVE)] if value is not None and value < 0 else []


def within(path: str, value: int | None, low: int, high: int) -> Problems:
    if value is None or low <= value <= high:
        return []
    return [invalid_value(path, value, formats.in_range(low, high))]


def port_number(path: str, value: int | None) -> Problems:
    return [invalid_value(path, value or 0, m) for m in formats.port_number(value or 0)]


def port_or_name(path: str, value: int | str | None) -> Problems:
    if isinstance(value, str):
        return formatted(path, value, formats.port_name)
    return port_number(path, value)


def ip(path: str, value: str) -> Problems:
    return formatted(path, value, formats.ip_address)


def cidr(path: str, value: str) -> Problems:
    return formatted(path, value, formats.cidr)


def ordinary_ip(path: str, value: str) -> Problems:
    """An address that can be an endpoint: neither unspecified, loopback, link-local nor link-local multicast."""
    problems = ip(path, value)
    if problems:
        return problems
    address = ipaddress.ip_address(value)
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    why = []
    if address.is_unspecified:
        why.append(f"may not be unspecified ({value})")
    if address.is_loopback:
        why.append("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if address.is_link_local:
        why.append("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    link_local_multicast = ("224.0.0.0/24", "ff02::/10")[address.version == 6]
    if address in ipaddress.ip_network(link_local_multicast, strict=False):
        why.append("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    return [invalid_value(path, value, w) for w in why]


def no_backsteps(path: str, value: str) -> Problems:
    return [invalid_value(path, value, "must not contain '..'")] if ".." in value.split("/") else []


def descending_path(path: str, value: str) -> Problems:
    """A path that stays below the place that it is relative to."""
    out = [invalid_value(path, value, "must be a relative path")] if value.startswith("/") else []
    return out + no_backsteps(path, value)


def file_path(path: str, value: str) -> Problems:
    """A path of a file inside a volume: relative, and not one of the names that the volume itself uses (`..data`)."""
    out = descending_path(path, value)
    if value.startswith("..") and not value.startswith("../"):
        out.append(invalid_value(path, value, "must not start with '..'"))
    return out


def file_mode(path: str, value: int | None) -> Problems:
    if value is None or 0 <= value <= 0o777:
        return []
    return [invalid_value(path, value, "must be a number between 0 and 0777 (octal), both inclusive")]


def protocol(path: str, value: str | None) -> Problems:
    return one_of(path, value, PROTOCOLS)


def domain_prefixed_path(path: str, value: str) -> Problems:
    """`example.com/some/path`: who is meant, in the name space of a domain."""
    if not value:
        return [required(path)]
    host, _, rest = value.partition("/")
    if not host or not rest:
        return [invalid_value(path, value, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    out = formatted(path, host, formats.dns1123_subdomain)
    if not re.fullmatch(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", rest):
        out.append(invalid_value(path, rest, "Invalid path"))
    return out


def positive_int_or_percent(path: str, value: int | str) -> Problems:
    if isinstance(value, str):
        return formatted(path, value, formats.percent)
    return non_negative(path, value)


def int_or_percent_amount(value: int | str) -> int:
    """The number in an integer or percentage; 0 for what is neither."""
    if isinstance(value, str):
        return 0 if formats.percent(value) else int(value[:-1])
    return value


def at_most_100_percent(path: str, value: int | str) -> Problems:
    if isinstance(value, str) and int_or_percent_amount(value) > 100:
        return [invalid_value(path, value, "must not be greater than 100%")]
    return []
