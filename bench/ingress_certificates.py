"""What certificates cost the front door's proxy, beside 1, 100 and 1,000 of them: a start with all, the memory of HAProxy and of what drives
it, and one change from the table to the first handshake that shows it.

    python -m bench.ingress_certificates [--certificates 1 100 1000] [--changes 20]

Needs `haproxy`. All on loopback. Each line is a Markdown row.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import gc
import ssl
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.figures import quantile
from sampan.ingress.haproxy.driver import HaproxyDriver
from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.process import Process
from sampan.ingress.table import RoutingTable
from sampan.ingress.types import INGRESS_SCOPE, Certificate, Contribution, Host, Listener, Source

_PORT = 28443


def certificate(host: str, serial: int) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode()
    chain = signed.public_bytes(s.Encoding.PEM).decode()
    return Certificate(INGRESS_SCOPE, Host.of_ingress(host), chain, private, Source("Ingress", "bench", host))


def memory(pid: int | str) -> float:
    """Of one process, in MB (PSS)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1000


async def serial(host: str) -> int:
    """The number of the certificate that is shown for a host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", _PORT, ssl=context, server_hostname=host)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der).serial_number


@contextlib.asynccontextmanager
async def proxy(table: RoutingTable, directory: Path) -> AsyncIterator[tuple[HaproxyDriver, Process]]:
    """A HAProxy that does what the table says, for as long as the block lasts."""
    directory.chmod(0o755)
    files = Files(directory / "run", ("127.0.0.1",))
    process, serving = Process(files, "haproxy", directory / "access.log"), asyncio.Event()
    driver = HaproxyDriver(files, process, lambda on, why: serving.set() if on else None)
    driver.apply(table.routing, table.take_change())
    task = asyncio.create_task(driver.run())
    try:
        await serving.wait()
        yield driver, process
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await process.end()


async def measure(count: int, changes: int) -> str:
    made = [certificate(f"h{i}.test", i + 1) for i in range(count)]
    gc.collect()
    before = memory("self")
    table = RoutingTable()
    table.set_listeners([Listener("https", _PORT, INGRESS_SCOPE, tls=True)])
    for one in made:
        table.update(one.source.owner, Contribution(certificates=(one,)))
    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        async with proxy(table, Path(directory)) as (driver, process):
            start = time.perf_counter() - began
            ours, theirs = memory("self") - before, memory(process.worker)
            times = []
            for n in range(changes):
                one = certificate("h0.test", 10**6 + n)
                began = time.perf_counter()
                table.update(one.source.owner, Contribution(certificates=(one,)))
                driver.apply(table.routing, table.take_change())
                await driver.settled()
                shown = await serial("h0.test")
                times.append(1000 * (time.perf_counter() - began))
                assert shown == 10**6 + n
            assert driver.reloads == 0
    middle, p99 = statistics.median(times), quantile(times, 0.99)
    return f"| {count} | {1000 * start:.0f} | {theirs:.1f} | {ours:.1f} | {middle:.1f} | {p99:.1f} |"


async def run(counts: Sequence[int], changes: int) -> None:
    print("| certificates | start, ms | HAProxy, MB | driver, MB more | one change, ms | p99 |")
    print("|---|---|---|---|---|---|")
    for count in counts:
        print(await measure(count, changes), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ingress_certificates", description=__doc__)
    parser.add_argument("--certificates", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--changes", type=int, default=20)
    o = parser.parse_args()
    asyncio.run(run(o.certificates, o.changes))


if __name__ == "__main__":
    main()
