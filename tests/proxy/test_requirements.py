"""Where the kernel or this machine lacks something it is named, and nothing is made."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.proxy import requirements
from sampan.proxy.fake import FakeTable
from sampan.proxy.rules import Rules
from sampan.proxy.types import Backend, Frontend, Target
from tests.proxy.wires import LAYOUT, Wires, wires


@pytest.mark.parametrize(
    ("lacks", "named"),
    [
        (("type nat",), ["nat chains (nft_chain_nat)", "masquerading (nft_masq)", "translation by map (nft_nat, concatenated maps)"]),
        (("numgen",), ["random numbers (nft_numgen)"]),
        (("mark : ipv4_addr",), ["translation by map (nft_nat, concatenated maps)"]),
        (("fib", "reject"), ["local addresses (nft_fib)", "rejecting (nft_reject)"]),
        (("ip6",), ["nf_tables for IPv6"]),
        (("table",), ["nf_tables"]),
        ((), []),
    ],
)  # fmt: skip
def test_what_the_kernel_lacks_is_named(lacks: tuple[str, ...], named: list[str]) -> None:
    assert requirements.missing(lambda script: any(word in script for word in lacks)) == named


def test_without_sctp_in_the_kernel_its_ports_are_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not requirements.lacks_sctp(tmp_path), "nothing is known before connections are tracked"
    (tmp_path / "nf_conntrack_udp_timeout").touch()
    assert requirements.lacks_sctp(tmp_path)
    (tmp_path / "nf_conntrack_sctp_timeout_established").touch()
    assert not requirements.lacks_sctp(tmp_path)
    table = FakeTable()
    target = Target("d/s:a", (Backend("10.244.0.2", 80),))
    Rules(table, dataclasses.replace(LAYOUT, sctp=False)).start(
        {"d/s": {Frontend("10.96.0.7", p, 80): target for p in ("TCP", "SCTP")}}
    )
    assert "SCTP" not in table.dump()
    assert "services 10.96.0.7:80/TCP" in table.dump()
    assert (
        "10.96.0.7:80/SCTP of d/s:a does not work: this kernel tracks no connections of SCTP" in caplog.text
    )


@pytest.fixture(scope="module")
def net() -> Iterator[Wires]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with wires("t-proxy-lacks") as made:
        yield made


@pytest.mark.root
def test_this_kernel_has_all(net: Wires) -> None:
    assert net.inside("node", requirements.missing) == []


@pytest.mark.root
def test_a_start_without_it_stops_with_one_line_and_leaves_nothing(
    net: Wires, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = {"d/web": {Frontend("10.96.0.7", "TCP", 80): Target("d/web", (Backend("10.244.0.2", 80),))}}
    table = net.table()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(requirements.Missing) as none:
        Rules(table, LAYOUT).start(state)
    monkeypatch.undo()
    assert str(none.value).endswith(
        "the proxy cannot work here: missing: the program nft (apt-get install nftables)"
    )
    # A kernel that knows no random numbers: an nft that refuses what has them, and does the rest.
    limited = tmp_path / "nft"
    limited.write_text(
        f'#!{os.path.realpath("/bin/sh")}\nscript=$(/bin/cat)\ncase "$script" in *numgen*) exit 1;; esac\n'
        'printf "%s" "$script" | /usr/sbin/nft "$@"\n'
    )
    limited.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(requirements.Missing, match=r"missing: random numbers \(nft_numgen\)$"):
        Rules(table, LAYOUT).start(state)
    monkeypatch.undo()
    assert net.run("node", "nft", "list", "ruleset") == ""
    # What works already stays as it is when a later start finds nft gone.
    rules = Rules(table, LAYOUT)
    rules.start(state)
    before = net.run("node", "nft", "-s", "list", "ruleset")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(requirements.Missing):
        Rules(net.table(), LAYOUT).start(state)
    monkeypatch.undo()
    assert net.run("node", "nft", "-s", "list", "ruleset") == before
    table.close()
