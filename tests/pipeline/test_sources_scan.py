"""The block scan finds the same lines as one look at each of them."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.sources.scan import Scanner

piece = st.sampled_from(
    [b"7", b"12", b"012", b"0", b"1234567890", b"x1", b"\t", b"\t\t", b" ", b"a text", "é".encode(), b"\xff", b""]
)


def plainly_fine(line: bytes) -> bool:
    key, tab, text = line.partition(b"\t")
    number = key.isdigit() and len(key) <= 9 and str(int(key)).encode() == key
    return bool(_decodes(line) and number and tab and text and b"\t" not in text and not text[:1].isspace())


@given(
    st.lists(st.lists(piece, max_size=5).map(b"".join), min_size=1, max_size=12),
    st.sets(st.sampled_from(["7", "12", "0", "012", "x1"])),
)
@example([b"7\ta text", b"", b"12\tb"], {"12"})
def test_notable_lines_are_the_wanted_and_the_odd_ones(lines: list[bytes], wanted: set[str]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 10)
    decodes = all(plainly_fine(line) or _decodes(line) for line in lines)
    expected = [
        (place, line)
        for place, line in enumerate(lines)
        if not ((decodes or line.isascii()) and plainly_fine(line)) or line.partition(b"\t")[0].decode() in wanted
    ]
    found = list(zip(*Scanner(wanted).notable(data, ends), strict=True))
    assert [(place, data[start:end]) for place, _, start, _, end in found] == expected
    for place, number, start, tab, _ in found:
        if (decodes or lines[place].isascii()) and plainly_fine(lines[place]):
            assert number == int(lines[place].partition(b"\t")[0])
            assert tab == start + lines[place].index(b"\t")
        else:
            assert number == -1


def _decodes(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
