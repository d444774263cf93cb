"""Whole blocks of `id<tab>text` lines looked at at once: most lines of a collection are fine, and nobody asked for them.

A plain Python loop needs two microseconds a line, half a minute for MS MARCO; here the arithmetic is numpy's, and only the
lines that are wanted or not plainly fine reach Python.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

DIGITS: Final = 9
"""Longest id that is read as a number here. Other ids are no worse, only slower."""

_TAB, _LINE_FEED, _ZERO = b"\t\n0"
_SPACE: Final = np.array([bytes([byte]).isspace() for byte in range(256)])


class Notable(NamedTuple):
    """Lines by their place among those of a block, with their id, or -1 for one that is not plainly fine, and where they lie."""

    places: list[int]
    ids: list[int]
    starts: list[int]
    tabs: list[int]
    ends: list[int]


class Scanner:
    """Knows which ids are wanted."""

    def __init__(self, wanted: Iterable[str]) -> None:
        names = np.frombuffer("\n".join(("0", *wanted, "")).encode(), np.uint8)  # one more, so that it is never empty
        ends = np.flatnonzero(names == _LINE_FEED)
        numbers, are_numbers = _numbers(names, np.append(0, ends[:-1] + 1), ends)
        numbers, are_numbers = numbers[1:], are_numbers[1:]
        self._wanted = np.zeros(numbers.max(where=are_numbers, initial=0) + 1, np.bool_)
        self._wanted[numbers[are_numbers]] = True

    def notable(self, data: bytes, ends: NDArray[np.int64]) -> Notable:
        """Lines that are wanted or not plainly fine, in order.

        Plainly fine: UTF-8, one tab, an id of at most DIGITS digits before it, a text that begins with no white space after
        it. Of the others, where the id is told as -1, nothing is known. data: whole lines, with no carriage return before a
        line feed; ends: where their line feeds are.
        """
        bytes_ = np.frombuffer(data, np.uint8)
        starts = np.append(0, ends[:-1] + 1)
        tabs, fine = _tabs(bytes_, starts, ends)
        fine &= ends - tabs > 1
        numbers, are_numbers = _numbers(bytes_, starts, tabs)
        fine &= are_numbers
        fine &= ~_SPACE[bytes_[np.minimum(tabs + 1, len(bytes_) - 1)]]
        if not is_utf8(data):
            fine &= np.maximum.reduceat(bytes_, starts) < 128
        known = np.minimum(numbers, len(self._wanted) - 1)
        notable = np.flatnonzero(~fine | ((known == numbers) & self._wanted[known]))
        told = np.where(fine, numbers, -1)
        return Notable(*(column.tolist() for column in (notable, *(c[notable] for c in (told, starts, tabs, ends)))))


def tabs_of_each(data: bytes, ends: NDArray[np.int64], number: int) -> bool:
    """Whether each line has exactly that number of tabs."""
    tabs = np.flatnonzero(np.frombuffer(data, np.uint8) == _TAB)
    if len(tabs) != number * len(ends):
        return False
    rows = tabs.reshape(-1, number)
    starts = np.append(0, ends[:-1] + 1)
    return bool(((starts <= rows[:, 0]) & (rows[:, -1] < ends)).all())


def _tabs(
    bytes_: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Each line's first tab, and whether it has exactly one; for a line without any, its start."""
    tabs = np.flatnonzero(bytes_ == _TAB)
    if len(tabs) == len(ends) and bool(((starts <= tabs) & (tabs < ends)).all()):
        return tabs, np.ones(len(ends), np.bool_)
    first = np.searchsorted(tabs, starts)
    one = np.searchsorted(tabs, ends) - first == 1
    return np.where(one, np.append(tabs, 0)[first], starts), one


def _numbers(
    bytes_: NDArray[np.uint8], starts: NDArray[np.int64], tabs: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The number that stands before each tab, and whether one does, without a zero in front."""
    widths = tabs - starts
    valid = (widths >= 1) & (widths <= DIGITS)
    valid &= (widths == 1) | (bytes_[starts] != _ZERO)
    numbers = np.zeros(len(starts), np.int64)
    for place in range(DIGITS):
        inside = valid & (widths > place)
        if not inside.any():
            break
        digits = bytes_[np.where(inside, starts + place, 0)] - _ZERO  # wraps for what is below: no digit either
        valid &= ~inside | (digits < 10)
        numbers = np.where(inside, numbers * 10 + digits, numbers)
    return numbers, valid


def is_utf8(data: bytes) -> bool:
    """Whether the bytes decode."""
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
