from __future__ import annotations

import asyncio
import contextlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.transport.bytestream import SocketStream
from sampan.transport.spdy import DICTIONARY, Control, Data, Framer, ProtocolError, Session, Stream, Type

names = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"]), min_size=1, max_size=20)
headers = st.dictionaries(names, st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
numbers = st.integers(1, 2**31 - 1)
frames = st.one_of(
    st.builds(Data, numbers, st.binary(max_size=300), st.booleans()),
    st.builds(
        lambda t, s, h, f: Control(t, s, h, fin=f),
        st.sampled_from([Type.SYN_STREAM, Type.SYN_REPLY, Type.HEADERS]),
        numbers,
        headers,
        st.booleans(),
    ),
    st.builds(
        lambda t, s, v: Control(t, s, value=v),
        st.sampled_from([Type.RST_STREAM, Type.GOAWAY, Type.WINDOW_UPDATE]),
        numbers,
        st.integers(0, 2**31 - 1),
    ),
    st.builds(lambda v: Control(Type.PING, value=v), st.integers(0, 2**32 - 1)),
    st.just(Control(Type.SETTINGS)),
)


def test_the_dictionary_is_the_specification_s() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 200), max_size=20))
def test_frames_survive_however_the_bytes_are_cut(sent: list[Control | Data], sizes: list[int]) -> None:
    sender, receiver = Framer(), Framer()
    wire = b"".join(map(sender.encode, sent))
    got: list[Control | Data] = []
    at = 0
    for size in [*sizes, len(wire)]:
        got += receiver.feed(wire[at : at + size])
        at += size
    assert got == sent


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        Framer().feed(data)


def test_a_header_block_that_unpacks_without_end_is_refused() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 15, zdict=DICTIONARY)
    bomb = packer.compress(b"\0" * 10_000_000) + packer.flush(zlib.Z_SYNC_FLUSH)
    body = b"\0\0\0\1" + b"\0" * 6 + bomb
    wire = b"\x80\x03\0\1" + (len(body)).to_bytes(4, "big") + body
    with pytest.raises(ProtocolError):
        Framer().feed(wire)


class Pair:
    """Two sessions over a real connection."""

    async def __aenter__(self) -> Pair:
        self.accepted: asyncio.Queue[Stream] = asyncio.Queue()
        taken: asyncio.Future[SocketStream] = asyncio.get_running_loop().create_future()
        self.listener = await asyncio.start_server(
            lambda r, w: taken.set_result(SocketStream(r, w)), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*self.listener.sockets[0].getsockname())
        self.transports = [SocketStream(reader, writer), await taken]
        self.client = Session(self.transports[0], server=False)
        self.server = Session(self.transports[1], server=True, accept=self.accepted.put_nowait)
        self.tasks = [asyncio.create_task(s.run()) for s in (self.client, self.server)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for transport in self.transports:
            transport.close()
        await asyncio.wait_for(asyncio.gather(*self.tasks), 20)
        self.listener.close()


async def read_all(stream: Stream) -> bytes:
    out = b""
    while data := await stream.read():
        out += data
    return out


async def test_streams_both_ways_with_half_close() -> None:
    async with Pair() as pair:
        mine = pair.client.open({"streamType": "data", "port": "80"})
        theirs = await pair.accepted.get()
        assert theirs.headers == {"streamtype": "data", "port": "80"}
        await asyncio.wait_for(mine.replied.wait(), 20)
        big = b"x" * 1_000_000
        mine.write(big)
        mine.close()
        assert await read_all(theirs) == big
        theirs.write(b"answer")
        theirs.close()
        assert await read_all(mine) == b"answer"
        assert await mine.read() == b""
        assert not pair.client._streams
        assert not pair.server._streams


async def test_a_stream_that_is_ignored_holds_up_nothing() -> None:
    async with Pair() as pair:
        flood = pair.client.open({"n": "1"})
        ignored = await pair.accepted.get()
        other = pair.client.open({"n": "2"})
        read = await pair.accepted.get()
        for _ in range(100):
            flood.write(b"x" * 10_000)
        asyncio.get_running_loop().call_later(0.05, ignored.ignore)
        other.write(b"through")
        other.close()
        assert await asyncio.wait_for(read_all(read), 20) == b"through"


async def test_reset_and_loss_end_what_waits() -> None:
    async with Pair() as pair:
        mine = pair.client.open({})
        theirs = await pair.accepted.get()
        waiting = asyncio.ensure_future(mine.read())
        await asyncio.sleep(0)
        theirs.reset()
        assert await asyncio.wait_for(waiting, 20) == b""
        last = pair.client.open({})
        await pair.accepted.get()
        pair.transports[1].close()
        assert await asyncio.wait_for(last.read(), 20) == b""


async def test_pings_are_answered_and_streams_of_the_wrong_side_refused() -> None:
    async with Pair() as pair:
        framer = pair.client._framer
        pair.transports[0].write(framer.encode(Control(Type.PING, value=1)))
        pair.transports[0].write(framer.encode(Control(Type.SYN_STREAM, 2)))
        mine = pair.client.open({}, fin=True)
        theirs = await pair.accepted.get()
        assert theirs.number == mine.number == 1
        assert await theirs.read() == b""
