"""The addresses of the cluster's DNS on the loopback of a node: each node has them, so that whoever asks asks its own node."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Sequence

from sampan.network import links
from sampan.network.netlink import NETLINK_ROUTE, Netlink
from sampan.network.pods import LINKS

TABLE = "sampan-dns"


def add(addresses: Sequence[str], netns: str = "") -> None:
    """In a network namespace (the calling thread's own). Raises OSError."""
    netlink = Netlink.inside(netns) if netns else Netlink(NETLINK_ROUTE)
    try:
        index = _loopback(netlink)
        netlink.request(
            [links.up(index), *(links.address(index, c, only_answers=True) for c in _hosts(addresses))]
        )
    finally:
        netlink.close()


def remove(addresses: Sequence[str]) -> None:
    """Take them away again, whichever are there. Raises OSError."""
    netlink = Netlink(NETLINK_ROUTE)
    try:
        index = _loopback(netlink)
        gone = (errno.EADDRNOTAVAIL,)
        netlink.request([links.delete_address(index, c) for c in _hosts(addresses)], ignore=gone)
    finally:
        netlink.close()


def shield(addresses: Sequence[str]) -> None:
    """Let nobody but pods and the machine itself reach them: a machine takes packets for any of its addresses from any link.
    Raises OSError."""
    inside = f'iifname != "lo" iifname != "{LINKS}"'
    rules = "\n".join(f"  {'ip6' if ':' in a else 'ip'} daddr {a} {inside} drop" for a in addresses)
    _nft(
        f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n"
        f"table inet {TABLE} {{\n chain input {{\n  type filter hook input priority filter;\n{rules}\n }}\n}}\n"
    )


def unshield() -> None:
    """Raises OSError."""
    _nft(f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n")


def _loopback(netlink: Netlink) -> int:
    index = links.index_of(netlink, "lo")
    assert index is not None, "every network namespace has a loopback"
    return index


def _hosts(addresses: Sequence[str]) -> list[str]:
    return [f"{a}/{128 if ':' in a else 32}" for a in addresses]


def _nft(script: str) -> None:
    done = subprocess.run(["nft", "-f", "-"], input=script, text=True, capture_output=True, check=False)
    if done.returncode:
        raise OSError(0, f"nft -f - failed: {done.stderr.strip()}")
