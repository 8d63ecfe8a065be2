from __future__ import annotations

import asyncio
import datetime
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from sampan.node.logs import LogOptions, read_log


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


def line(text: str, second: int = 0, stream: str = "stdout", tag: str = "F") -> str:
    return f"2026-01-01T00:00:{second:02d}.123456789Z {stream} {tag} {text}\n"


def at(second: int) -> float:
    return datetime.datetime(2026, 1, 1, 0, 0, second, tzinfo=datetime.UTC).timestamp()


async def text_of(path: Path, options: LogOptions) -> str:
    async with aclosing(read_log(path, options)) as pieces:
        return b"".join([piece async for piece in pieces]).decode()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "0.log"
    path.write_text(
        line("one", 1)
        + line("two, ", 2, tag="P")
        + line("in parts", 3)
        + line("three", 4, "stderr")
        + "damaged\n"
        + line("", 5)
        + line("four", 6)
    )
    return path


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (LogOptions(), "one\ntwo, in parts\nthree\n\nfour\n"),
        (LogOptions(stream="Stderr"), "three\n"),
        (LogOptions(stream="Stdout"), "one\ntwo, in parts\n\nfour\n"),
        (LogOptions(tail_lines=0), ""),
        (LogOptions(tail_lines=2), "\nfour\n"),
        (LogOptions(tail_lines=99), "one\ntwo, in parts\nthree\n\nfour\n"),
        (LogOptions(since=at(4)), "three\n\nfour\n"),
        (LogOptions(since=at(59)), ""),
        (LogOptions(limit_bytes=6), "one\ntw"),
        (LogOptions(limit_bytes=0), ""),
        (LogOptions(since=at(6), timestamps=True), "2026-01-01T00:00:06.123456789Z four\n"),
        (LogOptions(since=at(2), limit_bytes=40, timestamps=True), line("two, in parts", 2).replace(" stdout F", "")[:40]),
    ],
)  # fmt: skip
async def test_options(log: Path, options: LogOptions, text: str) -> None:
    assert await text_of(log, options) == text


async def test_an_unfinished_last_line_is_not_yet_a_line(log: Path) -> None:
    with log.open("a") as file:
        file.write("2026-01-01T00:00:07.1Z stdout F half")
    assert (await text_of(log, LogOptions(tail_lines=2))).endswith("four\n")
    assert await text_of(log, LogOptions()) == "one\ntwo, in parts\nthree\n\nfour\n"


async def test_a_log_larger_than_a_block(tmp_path: Path) -> None:
    path = tmp_path / "big.log"
    lines = [f"{n} {'x' * (n % 300)}" for n in range(20_000)]
    path.write_text("".join(map(line, lines)))
    assert await text_of(path, LogOptions()) == "".join(f"{t}\n" for t in lines)
    for tail in (1, 5_000, 19_999, 20_000, 20_001):
        assert await text_of(path, LogOptions(tail_lines=tail)) == "".join(f"{t}\n" for t in lines[-tail:])


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=20), max_size=30),
    st.integers(0, 40),
)
def test_tail_against_the_obvious(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], tail: int
) -> None:
    path = tmp_path_factory.mktemp("tail") / "0.log"
    path.write_text("".join(map(line, texts)), encoding="utf-8")
    wanted = "".join(f"{t}\n" for t in (texts[-tail:] if tail else []))
    assert asyncio.run(text_of(path, LogOptions(tail_lines=tail))) == wanted


async def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert await text_of(tmp_path / "none", LogOptions()) == ""


class Follower:
    def __init__(self, path: Path, **options: int) -> None:
        self.ended = asyncio.Event()
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.task = asyncio.create_task(self._run(path, LogOptions(follow=True, **options)))  # type: ignore[arg-type]

    async def _run(self, path: Path, options: LogOptions) -> None:
        async def ended() -> None:
            await self.ended.wait()

        async with aclosing(read_log(path, options, ended())) as pieces:
            async for piece in pieces:
                self.pieces.put_nowait(piece)
        self.pieces.put_nowait(None)

    async def expect(self, *texts: str) -> None:
        got = b""
        wanted = "".join(f"{t}\n" for t in texts).encode()
        async with asyncio.timeout(20):
            while len(got) < len(wanted):
                piece = await self.pieces.get()
                assert piece is not None
                got += piece
        assert got == wanted

    async def finish(self, *texts: str) -> None:
        self.ended.set()
        await self.expect(*texts)
        assert await asyncio.wait_for(self.pieces.get(), 20) is None
        await self.task


def append(path: Path, texts: Sequence[str]) -> None:
    with path.open("a") as file:
        file.write("".join(map(line, texts)))


async def test_following_through_rotation_and_truncation(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    append(path, ["a", "b"])
    follower = Follower(path)
    await follower.expect("a", "b")
    append(path, ["c"])
    await follower.expect("c")
    with path.open("a") as old:
        path.rename(tmp_path / "0.log.20260101")
        append(path, ["new"])
        old.write(line("late"))
    await follower.expect("late", "new")
    append(path, ["x" * 100])
    await follower.expect("x" * 100)
    path.write_text(line("after"))  # Shorter: that is how it is told from one that was only added to.
    await follower.expect("after")
    await follower.finish()


async def test_following_waits_for_the_file_and_reads_all_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    follower = Follower(path)
    append(path, ["first"])
    await follower.expect("first")
    append(path, ["last"])
    await follower.finish("last")


async def test_following_a_line_written_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    whole = line("in pieces")
    path.write_text(whole[:40])
    follower = Follower(path)
    with path.open("a") as file:
        file.write(whole[40:])
    await follower.expect("in pieces")
    await follower.finish()


async def test_following_the_log_of_a_container_that_has_ended(log: Path) -> None:
    follower = Follower(log, tail_lines=1)
    await follower.finish("four")


async def test_giving_up_leaves_no_watch_behind(tmp_path: Path) -> None:
    import os

    before = len(os.listdir("/proc/self/fd"))
    follower = Follower(tmp_path / "0.log")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    follower.task.cancel()
    await asyncio.gather(follower.task, return_exceptions=True)
    assert len(os.listdir("/proc/self/fd")) == before
