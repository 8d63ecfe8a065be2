"""From a question to its answer, by the directives of the server block that is for its zone.

The order is CoreDNS': rewrite, autopath, hosts, kubernetes, forward. What is known here is answered at once (`now`); what
another server must be asked for, or follows an alias, takes a coroutine (`later`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sampan.dns import messages, settings, wire
from sampan.dns.cache import Cache
from sampan.dns.kubernetes import NoSuchName, Objects, Zone, address_record
from sampan.dns.rewriting import rewritten
from sampan.dns.upstreams import NoAnswer, SocketMaker, Upstreams
from sampan.dns.wire import Answer, Query, Record

log = logging.getLogger(__name__)
_LONGEST_CHAIN = 8
_STATIC = ("",)
"""What hangs on the configuration alone."""
SERVFAIL = wire.encode(b"\0", (), rcode=wire.SERVFAIL, flags=0)
REFUSED = wire.encode(b"\0", (), rcode=wire.REFUSED, flags=0)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for and by whom; `source` is an address."""

    key: bytes
    type: int
    dnssec: bool = False
    checking_disabled: bool = False
    source: str = ""

    @classmethod
    def of(cls, query: Query, source: str) -> Question:
        return cls(query.key, query.type, query.dnssec, query.checking_disabled, source)


@dataclass(slots=True)
class _Forwarder:
    configuration: settings.Forward
    upstreams: Upstreams
    busy: int = 0
    rejected: int = 0
    pending: dict[tuple[bytes, int, bool, bool], asyncio.Future[Answer]] = field(default_factory=dict)
    """Questions under way: whoever asks the same meanwhile gets the same answer."""


class Complaints:
    """What `errors` logs, one line a second and how many more there were: whoever asks for names that nobody answers must
    not fill the disk."""

    def __init__(self) -> None:
        self._last = -1.0
        self._unsaid = 0

    def tell(self, text: str, now: float) -> None:
        if now - self._last < 1:
            self._unsaid += 1
            return
        log.warning("%s%s", text, f" (and {self._unsaid} more before)" if self._unsaid else "")
        self._last, self._unsaid = now, 0


class Chain:
    """One server block at work."""

    def __init__(
        self, server: settings.Server, objects: Objects, make: SocketMaker, own: Sequence[str], changed: Callable[[], float]
    ) -> None:  # fmt: skip
        self.server = server
        self.zone = Zone(objects, server.kubernetes, own, changed) if server.kubernetes else None
        self.cache = Cache(server.cache) if server.cache else None
        self.complaints = Complaints()
        self.forwarders = [
            _Forwarder(f, Upstreams(f.targets, make, policy=f.policy, max_fails=f.max_fails, force_tcp=f.force_tcp, own=own))
            for f in server.forwards
        ]  # fmt: skip

    @property
    def keeps(self) -> bool:
        """Whether an answer may be given again without a look at the question."""
        return not self.server.log and not self.server.rewrites and not self.server.autopath


class Resolver:
    """All server blocks. `search` is the path that pods' resolvers go through: (namespace's zone first) for autopath."""

    def __init__(
        self, configuration: settings.Settings, objects: Objects, make: SocketMaker, *, own: Sequence[str],
        changed: Callable[[], float], search: Callable[[str, bytes], Sequence[bytes]] = lambda source, zone: (),
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.chains = [Chain(s, objects, make, own, changed) for s in configuration.servers]
        self._by_zone = {zone: chain for chain in self.chains for zone in chain.server.zones}
        self._search = search
        self._clock = clock
        self._only = self._by_zone[b"\0"] if list(self._by_zone) == [b"\0"] else None

    def chain(self, key: bytes) -> Chain | None:
        if self._only is not None:
            return self._only
        return next((self._by_zone[s] for s in wire.suffixes(key) if s in self._by_zone), None)

    def now(self, chain: Chain, question: Question) -> tuple[Answer, bytes] | None:
        """An answer and its body, if nobody else must be asked for it."""
        if not chain.keeps:
            return None
        answer = self._own(chain, question.key, question.type)
        if answer is not None:
            return answer, answer.body
        return self._cached(chain, question)

    async def later(self, chain: Chain, question: Question) -> tuple[Answer, bytes]:
        """The answer, whoever must be asked."""
        server = chain.server
        if server.rewrites:
            other = rewritten(server.rewrites, question.key)
            if other != question.key:
                return _renamed(question.key, other, await self._plain(_about(question, other), 0))
        if server.autopath:
            found = await self._along_path(chain, question)
            if found is not None:
                return found
        return await self._resolve(chain, question, 0)

    async def _plain(self, question: Question, depth: int) -> tuple[Answer, bytes]:
        """As `later`, for a name that is asked for on somebody's behalf."""
        chain = self.chain(question.key)
        return (REFUSED, b"") if chain is None else await self._resolve(chain, question, depth)

    async def _resolve(self, chain: Chain, question: Question, depth: int) -> tuple[Answer, bytes]:
        own = self._own(chain, question.key, question.type)
        if own is not None:
            return own, own.body
        alias = self._alias(chain, question)
        if alias is not None:
            return await self._follow(question, alias, chain, depth)
        cached = self._cached(chain, question)
        if cached is not None:
            return cached
        for forwarder in chain.forwarders:
            zone, exceptions = forwarder.configuration.zone, forwarder.configuration.exceptions
            if wire.is_below(question.key, zone) and not any(
                wire.is_below(question.key, e) for e in exceptions
            ):
                return await self._forward(chain, forwarder, question)
        return REFUSED, b""

    # ---- what is known here

    def _own(self, chain: Chain, key: bytes, kind: int) -> Answer | None:
        """An answer by hosts or kubernetes; None where they have nothing to say, or an alias."""
        hosts, zone = chain.server.hosts, chain.zone
        if hosts is not None:
            answer = _of_hosts(hosts, key, kind)
            if answer is not None:
                return answer
        if zone is None:
            return None
        top = zone.zone_of(key)
        if top is None:
            return None
        group = zone.group(key, top) or _STATIC
        try:
            found = zone.lookup(key, kind, top)
        except NoSuchName:
            if zone.configuration.fallthrough.allows(key):
                return None
            return wire.encode(
                key, (), [zone.soa(top)], rcode=wire.NXDOMAIN, group=group, plugin="kubernetes"
            )
        if found.alias:
            return None
        authority = [] if found.answer else [zone.soa(top)]
        return wire.encode(key, found.answer, authority, found.additional, group=group, plugin="kubernetes")

    def _alias(self, chain: Chain, question: Question) -> bytes | None:
        zone = chain.zone
        top = zone.zone_of(question.key) if zone is not None else None
        if zone is None or top is None:
            return None
        try:
            return zone.lookup(question.key, question.type, top).alias or None
        except NoSuchName:
            return None

    def _cached(self, chain: Chain, question: Question) -> tuple[Answer, bytes] | None:
        if chain.cache is None:
            return None
        now = self._clock()
        entry = chain.cache.get(
            (question.key, question.type, question.dnssec, question.checking_disabled), now
        )
        if entry is None:
            return None
        return entry.answer, entry.answer.aged(int(now - entry.stored), entry.ttl)

    # ---- what takes longer

    async def _follow(
        self, question: Question, alias: bytes, chain: Chain, depth: int
    ) -> tuple[Answer, bytes]:
        """An ExternalName: the alias, and what there is at its end."""
        assert chain.zone is not None
        record = Record(question.key, wire.CNAME, chain.zone.configuration.ttl, alias)
        if question.type in (wire.CNAME, wire.ANY):
            return _made(wire.encode(question.key, [record], plugin="kubernetes"))
        if depth >= _LONGEST_CHAIN or alias == question.key:
            return SERVFAIL, b""
        answer, body = await self._plain(_about(question, alias), depth + 1)
        found = _records(alias, answer, body)
        return _made(
            wire.encode(
                question.key,
                [record, *found.answer],
                found.authority,
                found.additional,
                rcode=answer.rcode,
                plugin="kubernetes",
            )
        )

    async def _along_path(self, chain: Chain, question: Question) -> tuple[Answer, bytes] | None:
        """What the asker's resolver would find in the end, where this is the first of its questions. None where it is not, or
        nothing is found: it goes on by itself then."""
        zone = chain.zone
        top = zone.zone_of(question.key) if zone is not None else None
        path = self._search(question.source, top) if top is not None else ()
        if not path or question.key == path[0] or not wire.is_below(question.key, path[0]):
            return None
        base = question.key[: -len(path[0])]
        for suffix in path:
            other = base + suffix
            if len(other) > 255:
                continue
            answer, body = await self._plain(_about(question, other), 0)
            if answer.rcode == wire.NXDOMAIN:
                continue
            if answer.rcode != wire.NOERROR or other == question.key:
                return answer, body
            found = _records(other, answer, body)
            ttl = wire.minimum_ttl(found.answer, 0)
            alias = [Record(question.key, wire.CNAME, ttl, other)] if found.answer else []
            return _made(
                wire.encode(
                    question.key,
                    [*alias, *found.answer],
                    found.authority,
                    found.additional,
                    plugin="autopath",
                )
            )
        return None

    async def _forward(self, chain: Chain, forwarder: _Forwarder, question: Question) -> tuple[Answer, bytes]:
        key = (question.key, question.type, question.dnssec, question.checking_disabled)
        pending = forwarder.pending.get(key)
        if pending is None:
            most = forwarder.configuration.max_concurrent
            if most and forwarder.busy >= most:
                forwarder.rejected += 1
                return REFUSED, b""
            pending = forwarder.pending[key] = asyncio.get_running_loop().create_future()
            forwarder.busy += 1
            try:
                pending.set_result(await self._ask(chain, forwarder, key))
            finally:
                forwarder.busy -= 1
                del forwarder.pending[key]
                if not pending.done():
                    pending.cancel()
        else:
            try:
                await asyncio.shield(pending)
            except asyncio.CancelledError:
                if not pending.cancelled():
                    raise
                return SERVFAIL, b""
        answer = pending.result()
        return answer, answer.body

    async def _ask(self, chain: Chain, forwarder: _Forwarder, key: tuple[bytes, int, bool, bool]) -> Answer:
        name, kind, dnssec, checking_disabled = key
        try:
            message = await forwarder.upstreams.ask(
                name, kind, dnssec=dnssec, checking_disabled=checking_disabled
            )
        except NoAnswer as e:
            if chain.server.errors:
                chain.complaints.tell(
                    f"{wire.decode_name(name)} {wire.TYPES.get(kind, f'TYPE{kind}')}: {e}", self._clock()
                )
            return SERVFAIL
        answer = wire.encode(
            name, message.answer, message.authority, message.additional,
            rcode=message.rcode, flags=message.flags & (wire.AA | wire.AD), plugin="forward",
        )  # fmt: skip
        if chain.cache is not None:
            ttl = chain.cache.put(key, answer, message, self._clock())
            if ttl:
                answer.body = answer.aged(0, ttl)
        return answer


def _about(question: Question, key: bytes) -> Question:
    return Question(key, question.type, question.dnssec, question.checking_disabled, question.source)


def _made(answer: Answer) -> tuple[Answer, bytes]:
    return answer, answer.body


def _records(key: bytes, answer: Answer, body: bytes) -> messages.Message:
    return messages.records_of(
        key, Answer(answer.rcode, answer.flags, answer.counts, body, answer.ends, answer.ttls)
    )


def _renamed(key: bytes, other: bytes, found: tuple[Answer, bytes]) -> tuple[Answer, bytes]:
    """An answer about `other` as one about `key`."""
    answer, body = found
    message = _records(other, answer, body)
    records = [Record(key, r.type, r.ttl, r.data) if r.owner.lower() == other else r for r in message.answer]
    return _made(
        wire.encode(
            key,
            records,
            message.authority,
            message.additional,
            rcode=answer.rcode,
            flags=answer.flags,
            plugin=answer.plugin,
        )
    )


def _of_hosts(hosts: settings.Hosts, key: bytes, kind: int) -> Answer | None:
    """None where another plugin is to be asked."""
    if key in hosts.names:
        records = (
            [Record(key, wire.PTR, hosts.ttl, name) for name in hosts.names[key]] if kind == wire.PTR else []
        )
    else:
        if not any(wire.is_below(key, zone) for zone in hosts.zones):
            return None
        addresses = hosts.addresses.get(key)
        if addresses is None and key[0]:
            addresses = hosts.addresses.get(b"\1*" + key[key[0] + 1 :])
        if addresses is None:
            if hosts.fallthrough.allows(key):
                return None
            return wire.encode(key, (), rcode=wire.NXDOMAIN, group=_STATIC, plugin="hosts")
        made = (address_record(key, str(ipaddress.ip_address(a)), hosts.ttl) for a in addresses)
        records = [r for r in made if r.type == kind]
    return wire.encode(key, records, group=_STATIC, plugin="hosts")
