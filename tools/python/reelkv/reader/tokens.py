"""Canonical tokens: what a page's identity covers, in the one byte form that a sequence has (FORMAT.md, "Canonical tokens")."""

import struct
from dataclasses import dataclass, field

import numpy as np

from .errors import FormatError

TAG_TEXT, TAG_MEDIA, TAG_POSITIONS = 1, 2, 3
PLACEHOLDER = -1
ORDERED_TOKENS_MAX = 112


@dataclass(frozen=True)
class MediaSpan:
    """Tokens `first … first + count` stand for the media's elements from `offset` on."""

    digest: bytes
    first: int
    count: int
    offset: int


@dataclass
class Tokens:
    """Ids (placeholders read as -1), the media behind placeholders, and position ids where they are not the token's index."""

    ids: list[int] = field(default_factory=list)
    media: list[MediaSpan] = field(default_factory=list)
    positions: np.ndarray | None = None
    """`[streams, tokens]`, or None."""

    @classmethod
    def parse(cls, data: bytes) -> "Tokens":
        tokens, at = cls(), 0
        try:
            while at < len(data):
                if tokens.positions is not None:
                    raise FormatError("position ids are not the last run")
                at = tokens._parse_run(data, at)
        except struct.error as error:
            raise FormatError(f"canonical tokens end inside a run: {error}") from None
        if tokens.positions is not None and tokens.positions.shape[1] != len(tokens.ids):
            raise FormatError(f"{tokens.positions.shape[1]} positions for {len(tokens.ids)} tokens")
        return tokens

    def _parse_run(self, data: bytes, at: int) -> int:
        tag = data[at]
        if tag == TAG_TEXT:
            width, count = struct.unpack_from("<BI", data, at + 1)
            begin, end = at + 6, at + 6 + width * count
            if not 2 <= width <= 4 or count == 0 or end > len(data):
                raise FormatError("a run of text tokens has an impossible width or length")
            raw = np.frombuffer(data, np.uint8, width * count, begin).reshape(count, width)
            wide = np.zeros((count, 4), np.uint8)
            wide[:, :width] = raw
            self.ids += wide.view("<i4")[:, 0].tolist()
            return end
        if tag == TAG_MEDIA:
            offset, count, digest = struct.unpack_from("<II32s", data, at + 1)
            if count == 0:
                raise FormatError("a run of media tokens is empty")
            self.media.append(MediaSpan(digest, len(self.ids), count, offset))
            self.ids += [PLACEHOLDER] * count
            return at + 41
        if tag == TAG_POSITIONS:
            streams, count = struct.unpack_from("<BI", data, at + 1)
            begin, end = at + 6, at + 6 + 4 * streams * count
            if streams not in (1, 3) or end > len(data):
                raise FormatError("position ids have an impossible number of streams or length")
            self.positions = np.frombuffer(data, "<i4", streams * count, begin).reshape(streams, count)
            return end
        raise FormatError(f"canonical tokens have no run with tag {tag}")

    def extend(self, page: "Tokens", start: int, end: int):
        """Appends ids and media of a page's tokens `start ..< end`. Positions are not taken along."""
        first = len(self.ids) - start
        for span in page.media:
            begin, stop = max(span.first, start), min(span.first + span.count, end)
            if begin < stop:
                self._add_media(MediaSpan(span.digest, first + begin, stop - begin, span.offset + begin - span.first))
        self.ids += page.ids[start:end]

    def _add_media(self, span: MediaSpan):
        """Spans that continue each other are one."""
        if self.media:
            last = self.media[-1]
            if (last.digest, last.first + last.count, last.offset + last.count) == (span.digest, span.first, span.offset):
                self.media[-1] = MediaSpan(last.digest, last.first, last.count + span.count, last.offset)
                return
        self.media.append(span)

    def order_key(self) -> bytes:
        """What sorts a page among its siblings: four bytes for each of the first tokens."""
        words = self.ids[:ORDERED_TOKENS_MAX]
        for span in self.media:
            seed = int.from_bytes(span.digest[:8], "little") + span.offset
            for index in range(span.first, min(span.first + span.count, len(words))):
                words[index] = 1 << 31 | _mix(seed + index - span.first) >> 33
        return struct.pack(f">{len(words)}I", *words)

    def __len__(self) -> int:
        return len(self.ids)


def _mix(state: int) -> int:
    """SplitMix64's output for a state (Steele, Lea and Flood, 2014)."""
    mask = (1 << 64) - 1
    z = state + 0x9E3779B97F4A7C15 & mask
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    return z ^ z >> 31
