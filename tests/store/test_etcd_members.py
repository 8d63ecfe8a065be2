"""The etcd driver on clusters that lose members, freeze, ask for certificates and forget."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sampan.store import messages
from sampan.store.compaction import KEY, Compactor
from sampan.store.etcd import EtcdStore, open_store
from sampan.store.members import Members, Tls
from sampan.store.types import Compacted, Conflict, Entry, Event, KeyExists, StoreError
from tests.store.real_etcd import Etcd, leader_of, three_members

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed")


class Counters:
    """Writers that each raise numbers of their own, one by one, whatever happens: a write of which nobody knows whether
    it took effect is looked up, never taken for done or not done."""

    def __init__(self, store: EtcdStore) -> None:
        self.store = store
        self.told: list[Event] = []
        store.subscribe(self.told.extend)
        self.acknowledged: Counter[str] = Counter()
        self.unsure = 0
        self.enough = asyncio.Event()
        self.stop = asyncio.Event()

    async def count(self, key: str) -> None:
        while not self.stop.is_set():
            present = await self._read(key)
            number = int(present.value) + 1 if present else 1
            try:
                if present is None:
                    await self.store.create(key, b"1")
                else:
                    await self.store.update(key, b"%d" % number, present.revision)
            except (Conflict, KeyExists) as e:
                raise AssertionError(f"{key}: nobody else writes it") from e
            except StoreError:
                self.unsure += 1
                now = await self._read(key)
                assert now is None or int(now.value) in (number, number - 1), "neither before nor after"
                if now is None or int(now.value) != number:
                    # It may yet come about; another write of this key settles it.
                    await self._settle(key, now)
                    continue
            self.acknowledged[key] = number
            if sum(self.acknowledged.values()) > 300:
                self.enough.set()

    async def _settle(self, key: str, present: Entry | None) -> None:
        while True:
            try:
                if present is None:
                    await self.store.create(key, b"0")
                else:
                    await self.store.update(key, present.value, present.revision)
            except (Conflict, KeyExists):
                break
            except StoreError:
                present = await self._read(key)
                continue
            break
        now = await self._read(key)
        assert now is not None
        self.acknowledged[key] = int(now.value)

    async def _read(self, key: str) -> Entry | None:
        while True:
            try:
                await self.store.catch_up()
                return await self.store.get(key)
            except StoreError:
                await asyncio.sleep(0)

    async def check(self) -> None:
        await self.store.catch_up()
        for key, number in self.acknowledged.items():
            entry = await self.store.get(key)
            assert entry is not None
            assert int(entry.value) == number
            values = [int(e.entry.value) for e in self.told if e.entry.key == key]
            assert sorted(set(values)) == list(dict.fromkeys(values)), "told in order"
            assert set(range(1, number + 1)) <= set(values), "told of every one"
        revisions = [e.entry.revision for e in self.told]
        assert revisions == list(range(revisions[0], revisions[0] + len(revisions))), (
            "nothing lost, nothing twice"
        )


async def test_the_leader_is_killed_under_8_writers(tmp_path: Path) -> None:
    async with three_members(tmp_path) as members:
        store = await open_store([m.endpoint for m in members], timeout=5)
        counters = Counters(store)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for n in range(8):
                group.create_task(counters.count(f"/n/{n}"))
            for _ in range(3):
                counters.enough.clear()
                await counters.enough.wait()
                leader = await leader_of(members)
                await leader.kill()
                counters.enough.clear()
                await counters.enough.wait()
                await leader.start()
            counters.stop.set()
        await counters.check()
        await store.close()


@dataclass
class Operation:
    """What a client did to a key: it saw, or made, the value of a revision (0: there was none)."""

    began: float
    ended: float
    key: str
    write: bool
    revision: int
    value: bytes


async def test_every_client_of_every_server_sees_one_order(tmp_path: Path) -> None:
    """Linearizable: what ended before another thing began is before it in the order of revisions, while leaders die."""
    history: list[Operation] = []
    stop = asyncio.Event()
    now = asyncio.get_running_loop().time

    async def client(store: EtcdStore, number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            key = f"/r/{(number + count) % 3}"
            began = now()
            try:
                await store.catch_up()
                present = await store.get(key)
                seen = (present.revision, present.value) if present else (0, b"")
                history.append(Operation(began, now(), key, False, *seen))
                if count % 3:
                    continue
                value, began = b"%d/%d" % (number, count), now()
                if present is None:
                    made = await store.create(key, value)
                else:
                    made = await store.update(key, value, present.revision)
                history.append(Operation(began, now(), key, True, made.revision, value))
            except (Conflict, KeyExists) as e:
                found = (e.present.revision, e.present.value) if e.present else (0, b"")
                history.append(Operation(began, now(), key, False, *found))
            except StoreError:
                await asyncio.sleep(0)

    async with three_members(tmp_path) as members:
        endpoints = [m.endpoint for m in members]
        stores = [await open_store(endpoints[i:] + endpoints[:i], timeout=3) for i in range(3)]
        told: dict[int, tuple[str, bytes]] = {}
        stores[0].subscribe(
            lambda events: told.update((e.entry.revision, (e.entry.key, e.entry.value)) for e in events)
        )
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for n in range(12):
                group.create_task(client(stores[n % 3], n))
            for _ in range(2):
                enough = len(history) + 400
                while len(history) < enough:
                    await asyncio.sleep(0)
                leader = await leader_of(members)
                await leader.kill()
                enough = len(history) + 400
                while len(history) < enough:
                    await asyncio.sleep(0)
                await leader.start()
            stop.set()
        await stores[0].catch_up()
        for store in stores:
            await store.close()
    assert sum(o.write for o in history) > 100
    for key in {o.key for o in history}:
        here = sorted((o for o in history if o.key == key), key=lambda o: o.began)
        for o in here:
            assert o.revision == 0 or told[o.revision] == (key, o.value), "never written, or elsewhere"
        ended = sorted(here, key=lambda o: o.ended)
        newest, place = 0, 0
        for o in here:
            while ended[place].ended < o.began:
                newest = max(newest, ended[place].revision)
                place += 1
            assert o.revision > newest or (o.revision == newest and not o.write), (
                "older than what ended before"
            )


async def test_a_frozen_member_is_left(tmp_path: Path) -> None:
    async with three_members(tmp_path) as members:
        store = await open_store([m.endpoint for m in members], timeout=1)
        await store.create("/a", b"1")
        used = next(m for m in members if m.endpoint == store.member)
        used.freeze()
        try:
            async with asyncio.timeout(30):
                while True:
                    try:
                        await store.create("/b", b"1")
                    except KeyExists:
                        break
                    except StoreError:
                        continue
                    break
                await store.catch_up()
            assert store.member != used.endpoint
            assert await store.get("/b") is not None
        finally:
            used.thaw()
        await store.close()


async def test_without_a_majority_writes_fail_and_reads_of_the_newest_too(tmp_path: Path) -> None:
    async with three_members(tmp_path) as members:
        store = await open_store([m.endpoint for m in members], timeout=0.5)
        entry = await store.create("/a", b"1")
        for member in members[:2]:
            await member.kill()
        with pytest.raises(StoreError):
            await store.create("/b", b"1")
        with pytest.raises(StoreError):
            await store.catch_up()
        assert await store.get("/a") == entry
        assert store.trouble()
        await asyncio.gather(*(m.start() for m in members[:2]))
        async with asyncio.timeout(30):
            while True:
                try:
                    await store.catch_up()
                except StoreError:
                    continue
                break
            # Nobody knows whether a write is done that had no answer: it may be in the log of the member that was left.
            with contextlib.suppress(KeyExists):
                await store.create("/b", b"1")
            assert (await store.create("/c", b"")).key == "/c"
            found = await store.get("/b")
            assert found is not None
            assert found.value == b"1"
        assert not store.trouble()
        await store.close()


async def test_another_etcd_at_the_same_address_is_noticed(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path / "one")
    await etcd.start()
    store = await open_store([etcd.endpoint], timeout=5)
    for i in range(3):
        await store.create(f"/{i}", b"")
    failed = asyncio.ensure_future(store.failed())
    await etcd.kill()
    shutil.rmtree(tmp_path / "one")
    await etcd.start()
    with pytest.raises(StoreError, match="went back in time"):
        await asyncio.wait_for(failed, 20)
    with pytest.raises(StoreError, match="went back in time"):
        await store.create("/x", b"")
    await store.close()
    await etcd.kill()


# ---- certificates


def certificate(directory: Path, name: str, authority: str = "") -> tuple[str, str]:
    """A key and a certificate signed by another one, or by itself: the files' names."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signer = subject, key
    if authority:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        issuer = x509.load_pem_x509_certificate((directory / f"{authority}.crt").read_bytes()).subject
        loaded = load_pem_private_key((directory / f"{authority}.key").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer = loaded
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=not authority, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    key_file, certificate_file = directory / f"{name}.key", directory / f"{name}.crt"
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate_file.write_bytes(made.public_bytes(Encoding.PEM))
    return str(certificate_file), str(key_file)


async def test_both_sides_show_certificates(tmp_path: Path) -> None:
    ca, _ = certificate(tmp_path, "ca")
    certificate(tmp_path, "other-ca")
    server, server_key = certificate(tmp_path, "server", "ca")
    client, client_key = certificate(tmp_path, "client", "ca")
    stranger, stranger_key = certificate(tmp_path, "stranger", "other-ca")
    etcd = Etcd(
        tmp_path / "etcd", "--cert-file", server, "--key-file", server_key, "--trusted-ca-file", ca,
        "--client-cert-auth", "--enable-grpc-gateway=false", scheme="https",
    )  # fmt: skip
    await etcd.start()
    store = await open_store([etcd.endpoint], tls=Tls(ca, client, client_key))
    assert (await store.create("/a", b"1")).value == b"1"
    await store.close()
    for wrong in (
        Tls(ca),
        Tls(ca, stranger, stranger_key),
        Tls(str(tmp_path / "other-ca.crt"), client, client_key),
        Tls(),
    ):
        with pytest.raises(StoreError, match="do not accept each other's certificates"):
            await open_store([etcd.endpoint], tls=wrong, timeout=2)
    with pytest.raises(StoreError, match=r"nothing\.crt"):
        await open_store([etcd.endpoint], tls=Tls(str(tmp_path / "nothing.crt")))
    await etcd.kill()


# ---- forgetting


async def test_keys_with_a_time_share_a_lease_and_go_with_it(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path / "etcd")
    await etcd.start()
    store = await open_store([etcd.endpoint])
    for i in range(5):
        await store.create(f"/e/{i}", b"", ttl=3600)
    kept = await store.create("/e/kept", b"", ttl=3600)
    await store.update("/e/kept", b"1", kept.revision)
    raw = Members([etcd.endpoint], None, 5)
    found = messages.range_answer(await raw.call("KV/Range", messages.range_request(b"/e/", b"/e0")))
    *leases, none = [kv.lease for kv in found.kvs]
    assert none == 0
    (lease,) = set(leases)
    watch = store.watch("/e/", store.revision())
    await raw.call(
        "Lease/LeaseRevoke", b"\x08" + messages._varint(lease)
    )  # what etcd does when the time is up
    gone = await asyncio.wait_for(anext(watch), 10)
    assert sorted((e.deleted, e.entry.key) for e in gone) == [(True, f"/e/{i}") for i in range(5)]
    assert len({e.entry.revision for e in gone}) == 1
    assert [e.key for e in (await store.list("/e/")).entries] == ["/e/kept"]
    assert len((await store.list("/e/", revision=kept.revision)).entries) == 6
    again = await open_store([etcd.endpoint])
    assert [e.key for e in (await again.list("/e/")).entries] == ["/e/kept"]
    await store.create("/e/next", b"", ttl=3600)  # with another lease: the one before is gone
    await raw.close()
    for s in (store, again):
        await s.close()
    await etcd.kill()


async def test_a_key_goes_when_its_time_is_up(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path / "etcd")
    await etcd.start()
    store = await open_store([etcd.endpoint])
    await store.create("/e", b"1", ttl=1)
    watch = store.watch("/", store.revision())
    (gone,) = await asyncio.wait_for(anext(watch), 20)
    assert (gone.deleted, gone.entry.value) == (True, b"1")
    await store.close()
    await etcd.kill()


async def test_servers_take_turns_in_compacting(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path / "etcd")
    await etcd.start()
    one, two = await open_store([etcd.endpoint]), await open_store([etcd.endpoint])
    compacted: list[tuple[str, int]] = []

    def compactor(name: str, store: EtcdStore) -> Compactor:
        async def compact(revision: int) -> None:
            compacted.append((name, revision))
            await store.compact(revision)

        return Compactor(Members([etcd.endpoint], None, 5), compact)

    first, second = compactor("one", one), compactor("two", two)
    assert await first.turn()  # notes where it is; there is nothing to forget yet
    assert not await second.turn()
    mark = (await one.create("/a", b"1")).revision
    assert await first.turn()
    assert not await second.turn()
    for i in range(3):
        await two.create(f"/b{i}", b"")
    assert await first.turn()
    assert not await second.turn()
    assert [name for name, _ in compacted] == ["one", "one"]
    oldest = compacted[-1][1]
    assert oldest >= mark
    three = await open_store([etcd.endpoint])
    for store in (one, three):  # (the other one still has it all in memory)
        with pytest.raises(Compacted):
            await store.list("/", revision=mark - 1)
        with pytest.raises(Compacted):
            await anext(store.watch("/", 1))
    # the one that compacted is gone: another takes over within two turns
    assert await second.turn()
    assert not await first.turn()
    raw = Members([etcd.endpoint], None, 5)
    found = messages.range_answer(await raw.call("KV/Range", messages.range_request(KEY)))
    assert found.kvs[0].version == 4
    await raw.close()
    for store in (one, two, three):
        await store.close()
    await etcd.kill()
