"""Resource quantities: exact numbers with a suffix (`100m`, `1Gi`, `2e3`).

Values are `decimal.Decimal`, never floats. Upstream: `k8s.io/apimachinery/pkg/api/resource`.
"""

from __future__ import annotations

import functools
import re
from decimal import ROUND_CEILING, ROUND_UP, Context, Decimal, InvalidOperation
from typing import Literal

Form = Literal["DecimalSI", "BinarySI", "DecimalExponent"]
Source = str | int | float | Decimal

_PATTERN = re.compile(r"([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
_EXPONENT = re.compile(r"[eE][-+]?[0-9]+")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_LETTER = {exponent: letter for letter, exponent in _DECIMAL.items()}
_LARGEST = Decimal(2**63 - 1)
_EXACT = Context(prec=200)
_NANO = Decimal(1).scaleb(-9)


@functools.lru_cache(4096)
def _split(text: str) -> tuple[Decimal, Form]:
    """The value of a text (rounded up to whole nanos, capped at 2^63-1) and the form it is written in."""
    matched = _PATTERN.fullmatch(text)
    if matched is None:
        raise ValueError(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    number, suffix = matched.groups()
    if not _NUMBER.fullmatch(number):
        raise ValueError("unable to parse numeric part of quantity")
    value = Decimal(number)
    form: Form
    if suffix in _DECIMAL:
        value, form = value.scaleb(_DECIMAL[suffix], _EXACT), "DecimalSI"
    elif suffix in _BINARY:
        value, form = _EXACT.multiply(value, Decimal(1 << _BINARY[suffix])), "BinarySI"
    elif _EXPONENT.fullmatch(suffix):
        try:
            value, form = value.scaleb(int(suffix[1:]), _EXACT), "DecimalExponent"
        except (InvalidOperation, ValueError):
            raise ValueError("unable to parse quantity's suffix") from None
    else:
        raise ValueError("unable to parse quantity's suffix")
    if value.is_zero():
        return Decimal(0), form
    if value > _LARGEST:
        value = _LARGEST
    elif value < -_LARGEST:
        value = -_LARGEST
    # What is not a whole number of nanos is rounded away from zero: who asks for something gets something.
    return value.quantize(_NANO, ROUND_UP, _EXACT), form


def _text(quantity: Source) -> str:
    if isinstance(quantity, str):
        return quantity
    if isinstance(quantity, bool):
        raise ValueError("quantities must be numbers or strings")
    return format_number(quantity) if isinstance(quantity, float | Decimal) else str(quantity)


def format_number(number: float | Decimal) -> str:
    """A plain number without an exponent, as JSON numbers are read."""
    return f"{Decimal(str(number)):f}"


def parse(quantity: Source) -> Decimal:
    """The exact value of a quantity. Raises ValueError (upstream's wording) for what is none."""
    return _split(_text(quantity))[0]


def milli(quantity: Source) -> int:
    """Thousandths (CPU millicores), rounded up (away from zero)."""
    return int(_EXACT.multiply(parse(quantity), Decimal(1000)).to_integral_value(ROUND_UP))


def value(quantity: Source) -> int:
    """The whole number (bytes), rounded up (away from zero)."""
    return int(parse(quantity).to_integral_value(ROUND_UP))


def compare(a: Source, b: Source) -> int:
    """-1, 0 or 1, as `a` is less than, equal to or greater than `b`."""
    left, right = parse(a), parse(b)
    return (left > right) - (left < right)


def add(*quantities: Source) -> str:
    """The canonical sum, in the form of the first that is not zero (`0` for none)."""
    total, form = Decimal(0), "DecimalSI"
    for quantity in quantities:
        amount, its_form = _split(_text(quantity))
        if total.is_zero():
            form = its_form
        total = _EXACT.add(total, amount)
    return format(total, form)  # type: ignore[arg-type]


def subtract(minuend: Source, subtrahend: Source) -> str:
    """The canonical difference, in the form of the first that is not zero."""
    amount, form = _split(_text(subtrahend))
    return add(minuend, format(-amount, form))


def times(quantity: Source, factor: int) -> str:
    """The canonical product, in the quantity's own form."""
    amount, form = _split(_text(quantity))
    return format(_EXACT.multiply(amount, Decimal(factor)), form)


def format(quantity: Source, form: Form | None = None) -> str:
    """The canonical text: no fraction, the largest suffix that allows that.

    A string keeps its own form (binary stays binary) unless `form` says otherwise; other numbers are DecimalSI.
    """
    if isinstance(quantity, Decimal):
        amount, own = quantity, "DecimalSI"
    else:
        amount, own = _split(_text(quantity))
    form = form or own  # type: ignore[assignment]
    if amount.is_zero():
        return "0"
    if form == "BinarySI" and (abs(amount) < 1024 or amount != amount.to_integral_value()):
        form = "DecimalSI"
    if form == "BinarySI":
        whole, letter = int(amount), ""
        for suffix, bits in _BINARY.items():
            if int(amount) % (1 << bits):
                break
            whole, letter = int(amount) >> bits if amount > 0 else -(int(-amount) >> bits), suffix
        return f"{whole}{letter}"
    whole, exponent = int(amount.scaleb(9, _EXACT).to_integral_value(ROUND_CEILING)), -9
    while exponent < 18 and whole % 1000 == 0:
        whole, exponent = whole // 1000, exponent + 3
    if form == "DecimalExponent":
        return f"{whole}e{exponent}" if exponent else str(whole)
    return f"{whole}{_LETTER[exponent]}"
