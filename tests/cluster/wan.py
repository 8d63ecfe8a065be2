"""A router with the faults of a long way: what passes it takes its time, and some of it is lost.

Runs inside the router's network namespace: `python wan.py SECONDS LOSS`. The namespace routes all that comes in by its links to the
TUN device `wan` that this program makes; what it writes back there the kernel routes on. So delay and loss need no queueing
discipline of the kernel (netem), which not every kernel has.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import struct
import sys

DEVICE = "wan"
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000


def open_tun(name: str) -> int:
    """A TUN device of this name in the namespace of the process; packets come and go without a header of its own."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return tun


async def main(delay: float, loss: float) -> None:
    tun = open_tun(DEVICE)
    loop = asyncio.get_running_loop()
    chance = random.Random(7)

    def write(packet: bytes) -> None:
        try:
            os.write(tun, packet)
        except OSError as e:
            print(f"dropped {len(packet)} bytes: {e}", flush=True)

    def readable() -> None:
        while True:
            try:
                packet = os.read(tun, 65536)
            except BlockingIOError:
                return
            if chance.random() >= loss:
                loop.call_later(delay, write, packet)

    loop.add_reader(tun, readable)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), float(sys.argv[2])))
