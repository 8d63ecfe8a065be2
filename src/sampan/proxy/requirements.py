"""What the proxy needs of the kernel and of `nft`, asked for one by one once its tables could not be made.

The tables are made in one transaction, so where something is missing nothing is there: no half proxy. `nft --check` has the
kernel say what it would do without doing it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

_CHAIN = "table ip sampan-check {{ {sets} chain c {{ {hook} {rule}\n}}\n}}\n"


def _script(rule: str = "", *, hook: str = "", sets: str = "") -> str:
    return _CHAIN.format(rule=rule, hook=f"type {hook};" if hook else "", sets=sets)


_MAP = "map m { type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service\n}\n"
FEATURES: Mapping[str, str] = {
    "nf_tables": "table ip sampan-check { chain c { }\n}\n",
    "nf_tables for IPv6": "table ip6 sampan-check { chain c { }\n}\n",
    "nat chains (nft_chain_nat)": _script(hook="nat hook prerouting priority -100"),
    "masquerading (nft_masq)": _script("masquerade fully-random", hook="nat hook postrouting priority 100"),
    "translation by map (nft_nat, concatenated maps)": _script(
        "dnat ip to ip daddr . meta l4proto . th dport . meta mark map @m", hook="nat hook prerouting priority -100", sets=_MAP
    ),
    "random numbers (nft_numgen)": _script("meta mark set numgen random mod 3"),
    "local addresses (nft_fib)": _script("fib saddr type local return", hook="filter hook input priority 0"),
    "connection tracking (nft_ct)": _script("ct state established ct mark set ct mark | 0x4000"),
    "rejecting (nft_reject)": _script("reject with tcp reset", hook="filter hook input priority 0"),
    "counters of elements": _script(sets="set s { type ipv4_addr\n counter\n}\n"),
    "sets with time-outs": _script(
        "update @s { ip saddr }", sets="set s { type ipv4_addr\n flags dynamic,timeout\n timeout 5s\n}\n"
    ),
}  # fmt: skip


class Missing(OSError):
    """The message names all that is missing."""


def explain(failure: OSError) -> None:
    """Raise `Missing` where something that the proxy needs is not there; return where `failure` has another reason."""
    found = missing()
    if found:
        raise Missing(0, f"the proxy cannot work here: missing: {', '.join(found)}") from failure


def lacks_sctp(settings: Path = Path("/proc/sys/net/netfilter")) -> bool:
    """Whether the kernel tracks connections, but not of SCTP: it cannot translate its ports then."""
    return (settings / "nf_conntrack_udp_timeout").exists() and not any(settings.glob("nf_conntrack_sctp_*"))


def missing(refused: Callable[[str], bool] | None = None) -> list[str]:
    """Every feature that is not there; `refused` says whether a script is (default: the kernel's answer)."""
    try:
        found = [name for name, script in FEATURES.items() if (refused or _refused)(script)]
    except FileNotFoundError:
        return ["the program nft (apt-get install nftables)"]
    # Without the first, everything fails; it says all there is to say.
    return found[:1] if "nf_tables" in found else found


def _refused(script: str) -> bool:
    done = subprocess.run(["nft", "--check", "-f", "-"], input=script, text=True, capture_output=True, check=False)  # fmt: skip
    return done.returncode != 0
