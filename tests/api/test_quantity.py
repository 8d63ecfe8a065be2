from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api import quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", "0"), ("100m", "0.1"), ("1.5", "1.5"), (".5", "0.5"), ("5.", "5"), ("1Ki", "1024"), ("1.5Gi", "1610612736"),
        ("2e3", "2000"), ("2E3", "2000"), ("1e-3", "0.001"), ("1E", "1000000000000000000"), ("3u", "0.000003"),
        ("5n", "5e-9"), ("-1k", "-1000"), ("+7", "7"), ("0.1n", "1e-9"), ("99E", str(2**63 - 1)), ("1Ei", str(2**60)),
    ],
)  # fmt: skip
def test_parse(text: str, value: str) -> None:
    assert quantity.parse(text) == Decimal(value)


@pytest.mark.parametrize(
    "text", ["", "1.1.1", "1x", "Gi", "1gi", "1 Gi", " 1", "1KI", "1mm", "--1", "1e", "0x10", "."]
)
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantities must match|unable to parse"):
        quantity.parse(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0.1", "100m"), ("1000m", "1"), ("1024Mi", "1Gi"), ("1000Mi", "1000Mi"), ("0.5Gi", "512Mi"), ("1.5", "1500m"),
        ("1000", "1k"), ("1024", "1024"), ("500Ki", "500Ki"), ("1e3", "1e3"), ("1000000", "1M"), ("0Gi", "0"),
        ("0.001Ki", "1024m"), ("100e3", "100e3"), ("-1500m", "-1500m"), ("12000n", "12u"), ("1.25Ki", "1280"),
        ("1023.5", "1023500m"),
    ],
)  # fmt: skip
def test_canonical(text: str, canonical: str) -> None:
    assert quantity.format(text) == canonical


def test_numbers_and_rounding() -> None:
    assert quantity.parse(2) == 2
    assert quantity.parse(0.1) == Decimal("0.1")
    assert quantity.milli("0.0001") == 1
    assert quantity.milli("1.5") == 1500
    assert quantity.value("1500m") == 2
    assert quantity.value("1Gi") == 1 << 30
    assert quantity.compare("1", "1000m") == 0
    assert quantity.compare("1Gi", "1G") == 1
    assert quantity.add("100m", "0.9") == "1"
    assert quantity.add("1Gi", "512Mi") == "1536Mi"
    assert quantity.add() == "0"


@given(
    st.integers(-(10**6), 10**6),
    st.sampled_from(["", "m", "k", "M", "G", "u", "n", "Ki", "Mi", "Gi", "e3", "e-2", "E1"]),
)
def test_canonical_keeps_the_value(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    canonical = quantity.format(text)
    assert quantity.parse(canonical) == quantity.parse(text)
    assert quantity.format(canonical) == canonical
