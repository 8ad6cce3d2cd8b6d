from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rejoinder.mcp.lines import LineCutter, LongLine


def whole(data: bytes, limit: int) -> list[bytes | LongLine]:
    """What has to come out, said in another way."""
    lines: list[bytes | LongLine] = []
    for line in data.split(b"\n")[:-1]:
        if len(line) <= limit:
            lines.append(line)
        else:
            lines.append(LongLine(line[:512], line[-512:], len(line)))
    return lines


@given(
    st.lists(st.binary(max_size=40) | st.just(b"\n") | st.binary(min_size=600, max_size=700)),
    st.integers(0, 650),
)
def test_the_lines_are_the_same_for_every_cut(pieces: list[bytes], limit: int) -> None:
    cutter = LineCutter(limit)
    got = [line for piece in pieces for line in cutter.feed(piece)]
    assert got == whole(b"".join(pieces), limit)


def test_a_line_without_end_is_not_kept() -> None:
    cutter = LineCutter(1000)
    for _ in range(5000):
        assert cutter.feed(b"x" * 1000) == []
    assert cutter.pending == 5_000_000
    assert len(cutter._buffer) + len(cutter._tail) <= 1024
    (line,) = cutter.feed(b"end\n")
    assert isinstance(line, LongLine)
    assert line.size == 5_000_003
    assert line.tail.endswith(b"xend")
