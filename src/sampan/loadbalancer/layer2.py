"""The real announcer: packet sockets on the node's uplink that answer ARP and neighbour solicitations by themselves.

The kernel knows nothing of the addresses: packets to them are translated by the Service proxy before they are routed,
and nothing that listens on the node is reached at them. An answer ends with the process that gave it, so that
a dead one keeps nothing (see docs/decisions/loadbalancer-announcing.md). The sockets are there only while there is
something to answer for, and a filter in the kernel lets only questions through.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import socket
import struct
from collections.abc import Callable, Sequence

from sampan.api.address_ranges import Address
from sampan.loadbalancer import neighbours
from sampan.loadbalancer.neighbours import Question

log = logging.getLogger(__name__)
AGAIN_AFTER = (0.2, 1.0)
"""Seconds after which everybody is told once more, lest the first word was lost."""
_ATTACH_FILTER = 26
_IGNORE, _ALL = 0, 0xFFFF
# Instructions of the classic packet filter: load a byte or half a word, compare, return.
_LOAD_BYTE, _LOAD_HALF, _EQUAL, _RETURN = 0x30, 0x28, 0x15, 0x06
_Instruction = tuple[int, int, int, int]
_ARP_QUESTIONS: tuple[_Instruction, ...] = (
    (_LOAD_HALF, 0, 0, 20), (_EQUAL, 0, 1, 1), (_RETURN, 0, 0, _ALL), (_RETURN, 0, 0, _IGNORE),
)  # fmt: skip
_NDP_QUESTIONS: tuple[_Instruction, ...] = (
    (_LOAD_BYTE, 0, 0, 20), (_EQUAL, 0, 3, 58), (_LOAD_BYTE, 0, 0, 54), (_EQUAL, 0, 1, 135), (_RETURN, 0, 0, _ALL),
    (_RETURN, 0, 0, _IGNORE),
)  # fmt: skip


class Layer2:
    """An `Announcer` on one link of the network namespace that the process is in. Belongs to the running loop."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._addresses: set[Address] = set()
        self._sockets: dict[int, socket.socket] = {}
        self._groups: socket.socket | None = None
        self._timers: dict[Address, list[asyncio.TimerHandle]] = {}

    def announce(self, address: Address) -> None:
        if address not in self._addresses:
            self._open(address.version)
            if address.version == 6:
                self._group(address, join=True)
            self._addresses.add(address)
        self._cancel(address)
        self._tell(address)
        loop = asyncio.get_running_loop()
        self._timers[address] = [loop.call_later(s, self._tell, address) for s in AGAIN_AFTER]

    def withdraw(self, address: Address) -> None:
        self._cancel(address)
        if address not in self._addresses:
            return
        self._addresses.discard(address)
        if address.version == 6:
            self._group(address, join=False)
        if all(a.version != address.version for a in self._addresses):
            self._shut(address.version)

    def close(self) -> None:
        for address in list(self._addresses):
            self.withdraw(address)
        if self._groups is not None:
            self._groups.close()
            self._groups = None

    def _open(self, version: int) -> None:
        if version in self._sockets:
            return
        protocol = neighbours.ARP if version == 4 else neighbours.IPV6
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            _filter(sock, _ARP_QUESTIONS if version == 4 else _NDP_QUESTIONS)
            sock.bind((self._interface, protocol))
        except OSError:
            sock.close()
            raise
        self._sockets[version] = sock
        asyncio.get_running_loop().add_reader(sock, self._read, version)

    def _shut(self, version: int) -> None:
        sock = self._sockets.pop(version)
        asyncio.get_running_loop().remove_reader(sock)
        sock.close()

    def _group(self, address: Address, *, join: bool) -> None:
        """Questions about an IPv6 address go to a group, which the link must take packets for."""
        if self._groups is None:
            self._groups = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        group = neighbours.solicited_node(address)
        if not join and any(neighbours.solicited_node(a) == group for a in self._addresses if a.version == 6):
            return
        option = socket.IPV6_JOIN_GROUP if join else socket.IPV6_LEAVE_GROUP
        index = socket.if_nametoindex(self._interface)
        try:
            self._groups.setsockopt(socket.IPPROTO_IPV6, option, group.packed + struct.pack("=i", index))
        except OSError as e:
            # It is a member already, or the link has no IPv6: on a bridge the questions arrive all the same.
            log.debug("%s on %s: %s", group, self._interface, e)

    def _read(self, version: int) -> None:
        sock = self._sockets[version]
        parse: Callable[[bytes], Question | None]
        parse = neighbours.asked_by_arp if version == 4 else neighbours.asked_by_ndp
        while True:
            try:
                frame, origin = sock.recvfrom(2048)
            except BlockingIOError:
                return
            except OSError as e:
                log.warning("%s: %s", self._interface, e)
                return
            if origin[2] == socket.PACKET_OUTGOING:
                continue
            question = parse(frame)
            # Who already has it and says so is not asking (a gratuitous request).
            if (
                question is None
                or question.target not in self._addresses
                or question.source == question.target
            ):
                continue
            mac = origin_mac(sock)
            answer = neighbours.arp_answer if version == 4 else neighbours.ndp_answer
            self._send(version, answer(question, mac))

    def _tell(self, address: Address) -> None:
        sock = self._sockets[address.version]
        mac = origin_mac(sock)
        frames = (
            neighbours.gratuitous_arp(address, mac)
            if address.version == 4
            else [neighbours.unsolicited_advertisement(address, mac)]
        )
        for frame in frames:
            self._send(address.version, frame)

    def _send(self, version: int, frame: bytes) -> None:
        try:
            self._sockets[version].send(frame)
        except OSError as e:  # The link is down: nobody could hear it.
            log.debug("%s: %s", self._interface, e)

    def _cancel(self, address: Address) -> None:
        for timer in self._timers.pop(address, ()):
            timer.cancel()


def origin_mac(sock: socket.socket) -> bytes:
    """The hardware address of the link that a packet socket is bound to, as it is now."""
    return bytes(sock.getsockname()[4])


def _filter(sock: socket.socket, instructions: Sequence[_Instruction]) -> None:
    """Have the kernel drop what the program does not want."""
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *i) for i in instructions))
    sock.setsockopt(
        socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("@HP", len(instructions), ctypes.addressof(program))
    )
