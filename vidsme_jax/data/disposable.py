"""Disposable pictures of a video: no other picture is predicted from them.

A decoder that never receives their packets outputs all other pictures unchanged, bit
for bit. The packet is dropped before the decoder, which still reports errors in all
others (FFmpeg's own `skip_frame` hides some).

This holds for intact files. A decoder does not notice damage to the header of a picture
that still decodes; such damage may mark a reference picture as disposable: of 600 and
1800 files of H.264 and HEVC, damaged at random in 1 to 400 bytes, 1 and 11 gave other
frames than with all packets, without a warning (the damage of
tests/data/disposable_test.py, seeds 100 to 699; HEVC three times, since x265 does not
write the same bytes twice).

Codecs:
  h264: `nal_ref_idc` 0 marks slices that no other picture refers to [1]; about half of
    the frames of an x264 encoding with three B-frames.
  hevc: The even NAL unit types below 10 mark pictures that no other of the same
    temporal layer refers to [2]; in the highest layer there are no others. x265 writes
    such B-frames.

Other codecs have none here. VP8 and VP9 adapt their probabilities with every frame,
including unreferenced ones. AV1 has disposable frames, but after a header with many
optional fields, which is not parsed here; nor are the B-frames of MPEG-1, 2 and 4,
which are rare. Codecs with keyframes only decode no unwanted frames.

References:
  [1] ITU-T H.264, 7.4.1.
  [2] ITU-T H.265, 7.4.2.2, Table 7-1.
"""

import dataclasses
from collections.abc import Iterator

from av.packet import Packet

# SEI messages about one picture: timing, captions, user data, hash. Others may apply to
# later pictures too, such as a rotation.
_MESSAGES = {1, 4, 5, 132}


@dataclasses.dataclass(frozen=True)
class _Slice:
    """The relevant fields of a NAL unit's header."""

    referred: bool  # Possibly by another picture of the temporal layer.
    layer: int = 0  # The temporal layer.


_KEPT = _Slice(referred=True)  # An unknown unit: never dropped.


class Disposables:
    """Collects the time stamps of pictures that no other picture refers to.

    In any doubt a packet is kept: an unknown type of NAL unit, inconsistent lengths, a
    picture with one referenced field.
    """

    def __init__(self, codec: str, extradata: bytes | None):
        """Takes FFmpeg's name of the codec, and its extradata."""
        self._slice = {"h264": _h264, "hevc": _hevc}.get(codec)
        self._prefix = _prefix(codec, extradata or b"")
        self._layers: dict[int, int] = {}
        self._highest = 0

    def add(self, packet: Packet) -> None:
        """Inspects the next packet, which must have a `pts`."""
        if self._slice is None:
            return
        units = map(self._slice, _units(bytes(packet), self._prefix))
        slices = [unit for unit in units if unit is not None]
        if slices:
            highest = max(unit.layer for unit in slices)
            self._highest = max(self._highest, highest)
            if not any(unit.referred for unit in slices) and packet.pts is not None:
                self._layers[packet.pts] = highest

    def pts(self) -> frozenset[int]:
        """Returns the time stamps, after the last packet was added."""
        found = self._layers.items()
        return frozenset(pts for pts, layer in found if layer == self._highest)


def _prefix(codec: str, extradata: bytes) -> int:
    """Returns the bytes of a NAL unit's length prefix; 0 for start codes."""
    if extradata[:1] != b"\x01":
        return 0
    where = {"h264": 4, "hevc": 21}.get(codec, 0)
    return (extradata[where] & 3) + 1 if len(extradata) > where else 0


def _units(data: bytes, prefix: int) -> Iterator[bytes]:
    """Yields the NAL units of a packet; an empty one where it is malformed."""
    if prefix:
        start = 0
        while start < len(data):
            end = start + prefix + int.from_bytes(data[start : start + prefix])
            yield data[start + prefix : end] if end <= len(data) else b""
            start = end
    else:
        head, *units = data.split(b"\0\0\1")
        if head.strip(b"\0"):
            yield b""
        yield from units


def _h264(unit: bytes) -> _Slice | None:
    """Classifies a NAL unit; None for one that may be dropped with its slices."""
    if not unit or unit[0] & 0x80:
        return _KEPT
    kind = unit[0] & 31
    if kind == 1:
        return _Slice(referred=unit[0] >> 5 != 0 or not _is_b(unit[1:9]))
    if kind in (9, 12) or (kind == 6 and _of_one_picture(unit[1:])):
        return None
    return _KEPT


def _is_b(header: bytes) -> bool:
    """Returns whether a slice header is that of a B slice.

    So a damaged `nal_ref_idc` drops no P picture, which most others refer to.
    """
    bits = "".join(f"{byte:08b}" for byte in header.replace(b"\0\0\3", b"\0\0"))
    at, value = 0, -1
    for _ in range(2):  # first_mb_in_slice, slice_type
        zeros = len(bits[at:]) - len(bits[at:].lstrip("0"))
        value = int(bits[at : at + 2 * zeros + 1] or "0", 2) - 1
        at += 2 * zeros + 1
    return at <= len(bits) and value in (1, 6)


def _hevc(unit: bytes) -> _Slice | None:
    """Classifies a NAL unit; see `_h264`."""
    if len(unit) < 2 or unit[0] & 0x81 or unit[1] >> 3:  # Or another view.
        return _KEPT
    kind, layer = unit[0] >> 1, (unit[1] & 7) - 1
    if kind < 32:
        return _Slice(referred=kind not in (0, 2, 4, 6, 8), layer=layer)
    if kind in (35, 38) or (kind in (39, 40) and _of_one_picture(unit[2:])):
        return None
    return _KEPT


def _of_one_picture(messages: bytes) -> bool:
    """Returns whether all SEI messages of a NAL unit apply to one picture only."""
    data = messages.replace(b"\0\0\3", b"\0\0").rstrip(b"\0")
    at = 0
    while at < len(data) - 1:  # The last byte is 0x80.
        numbers = []
        for _ in range(2):  # The type and the size.
            number = 0
            while at < len(data) and data[at] == 255:
                number, at = number + 255, at + 1
            if at == len(data):
                return False
            numbers.append(number + data[at])
            at += 1
        if numbers[0] not in _MESSAGES:
            return False
        at += numbers[1]
    return at == len(data) - 1
