# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The range coder of all text sections: symbols as parts of an integer total go in, bytes come out, and back.

A symbol owns the part ``[low, low + frequency)`` of ``[0, total)``. Tables may differ from symbol to symbol, as long
as both sides use the same ones; totals reach 2**60. The state is 96 bits wide and renormalised by whole bytes, so a
symbol costs its ideal ``log2(total / frequency)`` bits to within 2**-27, and the end of the string at most one byte.
"""

from __future__ import annotations

from picogram.errors import CorruptBitstream

MAX_TOTAL = 1 << 60
_STATE_BYTES = 12
_FULL = 1 << 8 * _STATE_BYTES  # the range at the start; low stays below it once the carry is taken out
_RENORMALISE = _FULL >> 8  # a range below this is widened by a byte


def _check(low: int, frequency: int, total: int) -> None:
    if low < 0 or frequency < 1 or low + frequency > total or total > MAX_TOTAL:
        raise ValueError(f"not a part of the total: low {low}, frequency {frequency}, total {total}")


class WideRangeEncoder:
    """Codes symbols of totals up to 2**60 one after another; ``finish`` gives the bytes."""

    def __init__(self) -> None:
        self._low = 0
        self._range = _FULL
        self._bytes = bytearray()

    def encode(self, low: int, frequency: int, total: int) -> None:
        """Code the symbol that owns ``[low, low + frequency)`` of ``[0, total)``.

        Raises ``ValueError`` unless ``0 <= low``, ``1 <= frequency`` and ``low + frequency <= total <= 2**60``.
        """
        _check(low, frequency, total)
        scale = self._range // total
        self._low += scale * low
        self._range = scale * frequency
        while self._range < _RENORMALISE:
            self._emit_byte()

    def finish(self) -> bytes:
        """The shortest byte string that, continued by zero bytes, decodes to the symbols; may be empty."""
        for kept in (
            0,
            1,
        ):  # the range spans at least one step of the first byte, so one byte always suffices
            step = _FULL >> 8 * kept
            value = -(-self._low // step) * step
            if value < self._low + self._range:
                break
        data = bytearray(self._bytes)
        if value >= _FULL:
            _carry(data)
        data.append(value % _FULL // _RENORMALISE)
        return bytes(data).rstrip(b"\0")

    def _emit_byte(self) -> None:
        if self._low >= _FULL:
            _carry(self._bytes)
            self._low -= _FULL
        self._bytes.append(self._low // _RENORMALISE)
        self._low = self._low % _RENORMALISE << 8
        self._range <<= 8


def _carry(data: bytearray) -> None:
    """Add one to the number written so far. It never overflows: the whole code value stays below one."""
    at = len(data) - 1
    while data[at] == 255:
        data[at] = 0
        at -= 1
    data[at] += 1


class WideRangeDecoder:
    """Reads symbols from ``data``: ask for the ``target``, find the symbol that owns it, ``advance`` over it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = _STATE_BYTES
        self._point = int.from_bytes(
            data[:_STATE_BYTES].ljust(_STATE_BYTES, b"\0"), "big"
        )  # minus the encoder's low
        self._range = _FULL

    def target(self, total: int) -> int:
        """A number in ``[0, total)``, in the part of the symbol that comes next.

        Raises ``ValueError`` unless ``1 <= total <= 2**60`` and ``CorruptBitstream`` where no encoder can have been.
        """
        _check(0, 1, total)
        target = self._point // (self._range // total)
        if target >= total:
            raise CorruptBitstream("The text section is damaged: it holds a value that no symbol owns.")
        return target

    def advance(self, low: int, frequency: int, total: int) -> None:
        """Step over the symbol that owns ``[low, low + frequency)``, which must hold the target of the same total."""
        _check(low, frequency, total)
        scale = self._range // total
        self._point -= scale * low
        self._range = scale * frequency
        while self._range < _RENORMALISE:
            byte = self._data[self._at] if self._at < len(self._data) else 0
            self._at += 1
            self._point = self._point << 8 | byte
            self._range <<= 8
