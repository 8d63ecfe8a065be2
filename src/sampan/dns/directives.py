"""What the directives of a Corefile mean. What is not understood is refused by name, all of it at once."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping

from sampan.dns import wire
from sampan.dns.corefile import Block, CorefileError, Directive, parse
from sampan.dns.rewriting import Match, NameRule
from sampan.dns.settings import Cache, Fallthrough, Forward, Hosts, Kubernetes, Server, Settings

CONFIG_FILES = "/etc/coredns/"
"""Where upstream's Deployment has the ConfigMap's keys as files."""


def load(files: Mapping[str, str]) -> Settings:
    """Read the ConfigMap's `Corefile`, with its other keys as the files that it may name. Raises CorefileError."""
    if "Corefile" not in files:
        raise CorefileError(["it has no key Corefile"])
    reader = _Reader(files)
    for block in parse(files["Corefile"]):
        reader.server(block)
    if reader.problems:
        raise CorefileError(reader.problems)
    return reader.settings


_UNSUPPORTED = "is not supported"


class _Problem(ValueError):
    pass


class _Reader:
    def __init__(self, files: Mapping[str, str]) -> None:
        self.settings = Settings([])
        self.problems: list[str] = []
        self._files = files
        self._zones: dict[bytes, int] = {}

    def server(self, block: Block) -> None:
        zones: list[bytes] = []
        for key in block.keys:
            try:
                zones += _zone_key(key)
            except ValueError as e:
                self.problems.append(f"line {block.line}: {e}")
        for zone in zones:
            if zone in self._zones:
                self.problems.append(
                    f"line {block.line}: zone {wire.decode_name(zone)} has a server already, in line {self._zones[zone]}"
                )
            self._zones[zone] = block.line
        server = Server(tuple(zones))
        seen: set[str] = set()
        for directive in block.directives:
            read = _DIRECTIVES.get(directive.name)
            try:
                if read is None:
                    raise _Problem(_UNSUPPORTED)
                if directive.name in seen and directive.name not in ("forward", "rewrite"):
                    raise _Problem("may be given once in a server")
                seen.add(directive.name)
                read(self, server, directive)
            except ValueError as e:
                self.problems.append(f"line {directive.line}: {directive.name} {e}")
        self.settings.servers.append(server)

    def plain(self, server: Server, directive: Directive) -> None:
        """`errors`, `log`, `loop`, `reload`, `loadbalance` take nothing, or what changes nothing."""
        arguments = directive.arguments
        if directive.name == "loadbalance" and arguments in ((), ("round_robin",)):
            server.loadbalance = True
            arguments = ()
        elif directive.name == "errors":
            server.errors = True
        elif directive.name == "log":
            server.log = True
        elif directive.name == "reload" and arguments:
            self.note(directive, "a change of the ConfigMap is followed at once: its times change nothing")
            arguments = ()
        if arguments or directive.block:
            raise _Problem(f"takes no {' '.join(arguments) or directive.block[0].name} here")

    def note(self, directive: Directive, text: str) -> None:
        self.settings.notes.append(f"line {directive.line}: {directive.name}: {text}")

    def listener(self, server: Server, directive: Directive) -> None:
        default = {"prometheus": "localhost:9153", "health": ":8080", "ready": ":8181"}[directive.name]
        if len(directive.arguments) > 1:
            raise _Problem("takes one address")
        address = directive.arguments[0] if directive.arguments else default
        host = address.rpartition(":")[0].strip("[]")
        if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[0-9.]+|localhost)?:\d{1,5}", address) or int(address.rpartition(":")[2]) > 65535 or (host not in ("", "localhost") and not _is_address(host)):  # fmt: skip
            raise _Problem(f"{address}: an address is [IP]:PORT")
        for inner in directive.block:
            if directive.name == "health" and inner.name == "lameduck":
                self.note(
                    inner, "nothing in front of this server has to learn of its end: it waits for nobody"
                )
            else:
                raise _Problem(f"option {inner.name} {_UNSUPPORTED}")
        setattr(self.settings, directive.name, address)

    def kubernetes(self, server: Server, directive: Directive) -> None:
        zones = _zones(directive.arguments) or server.zones
        given: dict[str, object] = {}
        for inner in directive.block:
            match inner.words:
                case ("pods", "disabled" | "insecure" as mode):
                    given["pods"] = mode == "insecure"
                case ("pods", "verified"):
                    raise _Problem(
                        "option pods verified is not supported, since every node would have to read all Pods; disabled and insecure are"
                    )
                case ("ttl", ttl):
                    given["ttl"] = _number(ttl, 0, 3600)
                case ("endpoint_pod_names",):
                    given["endpoint_pod_names"] = True
                case ("ignore", "empty_service"):
                    given["ignore_empty_service"] = True
                case ("namespaces", _, *_):
                    given["namespaces"] = frozenset(inner.arguments)
                case ("fallthrough", *names):
                    given["fallthrough"] = Fallthrough(_zones(names) or tuple(zones))
                case _:
                    raise _Problem(f"option {' '.join(inner.words)} {_UNSUPPORTED}")
        server.kubernetes = Kubernetes(tuple(zones), **given)  # type: ignore[arg-type]

    def hosts(self, server: Server, directive: Directive) -> None:
        lines: list[tuple[str, ...]] = []
        zones = server.zones
        if directive.arguments:
            file, *names = directive.arguments
            zones = _zones(names) or zones
            text = self._files.get(file.removeprefix(CONFIG_FILES))
            if text is None or not file.startswith(CONFIG_FILES):
                raise _Problem(f"file {file}: files are keys of the ConfigMap, as {CONFIG_FILES}KEY")
            stripped = (line.partition("#")[0].split() for line in text.splitlines())
            lines += [tuple(words) for words in stripped if words]
        ttl, reverse, fallthrough = 3600, True, Fallthrough()
        inline: list[tuple[str, ...]] = []
        for inner in directive.block:
            match inner.words:
                case ("ttl", number):
                    ttl = _number(number, 1, 65535)
                case ("no_reverse",):
                    reverse = False
                case ("reload", _):
                    self.note(
                        inner, "a change of the ConfigMap is followed at once: its time changes nothing"
                    )
                case ("fallthrough", *names):
                    fallthrough = Fallthrough(_zones(names) or tuple(zones))
                case (address, _, *_) if _is_address(address):
                    inline.append(inner.words)
                case _:
                    raise _Problem(f"option {' '.join(inner.words)} {_UNSUPPORTED}")
        server.hosts = _hosts(tuple(zones), [*lines, *inline], ttl, reverse, fallthrough)

    def forward(self, server: Server, directive: Directive) -> None:
        if len(directive.arguments) < 2:
            raise _Problem("is: forward ZONE ADDRESS...")
        first, *targets = directive.arguments
        given: dict[str, object] = {}
        for inner in directive.block:
            match inner.words:
                case ("except", _, *_):
                    given["exceptions"] = _zones(inner.arguments)
                case ("max_concurrent" | "max_fails" as name, number):
                    given[name] = _number(number, 0, 1_000_000)
                case ("policy", "random" | "round_robin" | "sequential" as policy):
                    given["policy"] = policy
                case ("force_tcp",):
                    given["force_tcp"] = True
                case ("prefer_udp",):
                    pass  # That is what is done.
                case ("expire" | "health_check" | "max_idle_conns", *_):
                    self.note(inner, "connections are not kept, and what fails is tried again by itself: it changes nothing")  # fmt: skip
                case _:
                    raise _Problem(f"option {' '.join(inner.words)} {_UNSUPPORTED}")
        (zone,) = _zones([first])[:1]
        server.forwards.append(Forward(zone, tuple(map(_target, targets)), **given))  # type: ignore[arg-type]

    def cache(self, server: Server, directive: Directive) -> None:
        arguments = list(directive.arguments)
        given: dict[str, object] = {}
        if arguments and arguments[0].isdigit():
            ttl = _number(arguments.pop(0), 1, 1 << 31)
            given |= {"success_ttl": min(ttl, 3600), "denial_ttl": min(ttl, 1800)}
        for inner in directive.block:
            match inner.words:
                case ("success" | "denial" as kind, capacity, *rest) if len(rest) < 3:
                    given[f"{kind}_capacity"] = _number(capacity, 1, 1_000_000)
                    if rest:
                        given[f"{kind}_ttl"] = _number(rest[0], 1, 1 << 31)
                    if len(rest) > 1:
                        given["minimum_ttl" if kind == "success" else "denial_minimum_ttl"] = _number(rest[1], 0, 3600)  # fmt: skip
                case ("disable", "success" | "denial" as kind, *names):
                    given[f"no_{kind}"] = _zones(names) or server.zones
                case ("servfail", time):
                    given["servfail"] = _seconds(time, 300)
                case _:
                    raise _Problem(f"option {' '.join(inner.words)} {_UNSUPPORTED}")
        server.cache = Cache(_zones(arguments) or server.zones, **given)  # type: ignore[arg-type]

    def rewrite(self, server: Server, directive: Directive) -> None:
        words = list(directive.arguments)
        proceed = False
        if words and words[0] in ("continue", "stop"):
            proceed = words.pop(0) == "continue"
        rules = [list(inner.words) for inner in directive.block] if directive.braces else [words]
        if words and directive.braces:
            raise _Problem(f"{' '.join(words)} before braces {_UNSUPPORTED}")
        made: NameRule | None = None
        for rule in rules:
            if rule[:2] == ["answer", "auto"]:
                continue
            if not rule or rule[0] != "name" or made is not None:
                raise _Problem(
                    f"{' '.join(rule)} {_UNSUPPORTED}; name is, and its answers are rewritten back"
                )
            made = _name_rule(rule[1:], proceed)
        if made is None:
            raise _Problem("is: rewrite [continue|stop] name [exact|prefix|suffix|substring|regex] FROM TO")
        server.rewrites.append(made)

    def autopath(self, server: Server, directive: Directive) -> None:
        if directive.arguments[-1:] != ("@kubernetes",) or len(directive.arguments) > 1:
            raise _Problem("is: autopath @kubernetes")
        server.autopath = True


_DIRECTIVES: dict[str, Callable[[_Reader, Server, Directive], None]] = {
    "errors": _Reader.plain, "log": _Reader.plain, "loop": _Reader.plain, "reload": _Reader.plain,
    "loadbalance": _Reader.plain, "prometheus": _Reader.listener, "health": _Reader.listener, "ready": _Reader.listener,
    "kubernetes": _Reader.kubernetes, "hosts": _Reader.hosts, "forward": _Reader.forward, "cache": _Reader.cache,
    "rewrite": _Reader.rewrite, "autopath": _Reader.autopath,
}  # fmt: skip


def _zone_key(key: str) -> list[bytes]:
    """The zones of a server's key: `.`, `example.org:53`, `dns://example.org`, `10.0.0.0/24`."""
    name = key.removeprefix("dns://")
    if "://" in name:
        raise ValueError(f"{key}: only plain DNS (dns://) is served")
    name, _, port = name.rpartition(":") if re.search(r":\d+$", name) else (name, "", "53")
    if port != "53":
        raise ValueError(f"{key}: only port 53 is served")
    return list(_zones([name or "."]))


def _zones(names: list[str] | tuple[str, ...]) -> tuple[bytes, ...]:
    out = []
    for name in names:
        if "/" in name:
            out.append(_reverse_zone(name))
        else:
            out.append(wire.encode_name(name.removesuffix(":53")).lower())
    return tuple(out)


def _reverse_zone(cidr: str) -> bytes:
    network = ipaddress.ip_network(cidr, strict=False)
    bits = 8 if network.version == 4 else 4
    if network.prefixlen % bits:
        raise ValueError(f"{cidr}: a reverse zone ends at a multiple of {bits} bits")
    name = wire.reverse_name(str(network.network_address))
    for _ in range((network.max_prefixlen - network.prefixlen) // bits):
        name = name[name[0] + 1 :]
    return name


def _number(text: str, least: int, most: int) -> int:
    if not text.isdigit() or not least <= int(text) <= most:
        raise _Problem(f"{text}: a number from {least} to {most} is wanted")
    return int(text)


def _seconds(text: str, most: int) -> int:
    found = re.fullmatch(r"(\d+)(s|m)?", text)
    seconds = int(found[1]) * (60 if found[2] == "m" else 1) if found else -1
    if not 0 <= seconds <= most:
        raise _Problem(f"{text}: a time up to {most}s is wanted")
    return seconds


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _target(text: str) -> str:
    """An upstream as `address:port`, or a file's path."""
    if text.startswith("/"):
        return text
    plain = text.removeprefix("dns://")
    if "://" in plain:
        raise _Problem(f"to {text} {_UNSUPPORTED}: only plain DNS (dns://) is")
    if _is_address(plain.strip("[]")):
        return f"[{plain.strip('[]')}]:53" if ":" in plain else f"{plain}:53"
    host, _, port = plain.rpartition(":")
    if not _is_address(host.strip("[]")) or not port.isdigit() or not 0 < int(port) < 65536:
        raise _Problem(f"to {text}: an address, address:port or a resolv.conf's path is wanted")
    return plain


def _hosts(
    zones: tuple[bytes, ...], lines: list[tuple[str, ...]], ttl: int, reverse: bool, fallthrough: Fallthrough
) -> Hosts:
    addresses: dict[bytes, tuple[str, ...]] = {}
    names: dict[bytes, tuple[bytes, ...]] = {}
    for address, *rest in lines:
        if not _is_address(address):
            raise _Problem(f"{address} is no address")
        for name in rest:
            key = wire.encode_name(name).lower()
            if not any(wire.is_below(key, zone) for zone in zones):
                continue
            addresses[key] = (*addresses.get(key, ()), address)
            if reverse and not name.startswith("*"):
                back = wire.reverse_name(address)
                names[back] = (*names.get(back, ()), key)
    return Hosts(zones, addresses, names, ttl, fallthrough)


def _name_rule(words: list[str], proceed: bool) -> NameRule:
    kind: Match = "exact"
    if words and words[0] in ("exact", "prefix", "suffix", "substring", "regex"):
        kind = words.pop(0)  # type: ignore[assignment]
    if words[2:] == ["answer", "auto"]:
        words = words[:2]
    if len(words) != 2:
        raise _Problem(
            f"name {' '.join(words)} {_UNSUPPORTED}: it is name [exact|prefix|suffix|substring|regex] FROM TO"
        )
    return NameRule.make(kind, words[0], words[1], proceed)
