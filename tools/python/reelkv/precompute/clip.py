"""Decodes and samples a video file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import PrecomputeError, extra

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame


@dataclass(frozen=True)
class Sampling:
    """Which frames of a clip to take: so many a second, or so many in all, spread evenly.

    Attributes:
        fps: frames a second; a clip with fewer gives all that it has.
        frames: frames in all.
        start, end: the part of the clip to sample, in seconds; end None: to its end.
    """

    fps: float | None = None
    frames: int | None = None
    start: float = 0.0
    end: float | None = None

    def __post_init__(self) -> None:
        if (self.fps is None) == (self.frames is None):
            raise PrecomputeError("give either frames a second or a number of frames")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise PrecomputeError(f"frames a second must be above 0 and at most 1000, not {self.fps:g}")
        if self.frames is not None and self.frames < 1:
            raise PrecomputeError(f"the number of frames must be at least 1, not {self.frames}")
        if not self.start >= 0 or (self.end is not None and not self.end > self.start):
            raise PrecomputeError(f"no part of a clip is from {self.start:g} s to {self.end} s")

    def described(self) -> dict[str, float | int]:
        """What of it is not the default, for provenance."""
        fields = {"fps": self.fps, "frames": self.frames, "start": self.start or None, "end": self.end}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class Clip:
    """Sampled frames of a clip.

    Attributes:
        name: of the file.
        sha256: of the file, in hexadecimal digits.
        pixels: `[frames, height, width, 3]`, RGB in 0...255.
        seconds: when each frame is shown, counted from the clip's first frame. `[frames]`
        indices: the frames' places among those of the part that was sampled. `[frames]`
        source_frames, source_fps: how many frames that part has, and how many a second.
    """

    name: str
    sha256: str
    pixels: NDArray[np.uint8]
    seconds: NDArray[np.float64]
    indices: NDArray[np.int64]
    source_frames: int
    source_fps: float
    sampling: Sampling

    def __len__(self) -> int:
        return len(self.pixels)

    def metadata(self) -> dict[str, Any]:
        """What transformers' `VideoMetadata` takes."""
        return {
            "total_num_frames": self.source_frames,
            "fps": self.source_fps,
            "duration": self.source_frames / self.source_fps,
            "width": self.pixels.shape[2],
            "height": self.pixels.shape[1],
            "frames_indices": self.indices.tolist(),
        }


def open_clip(path: str | os.PathLike[str], sampling: Sampling, progress: Callable[[int], None] = lambda _: None) -> Clip:
    """Decodes the frames that are to be sampled.

    Args:
        progress: called with the number of frames taken so far.

    Raises:
        PrecomputeError: no such file, no video in it, no decoder for it, no frames, or fewer than asked for.
    """
    try:
        import av
    except ImportError:
        raise extra("PyAV ('av')") from None
    path = Path(path)
    if not path.is_file():
        raise PrecomputeError(f"{path} is not a file")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise PrecomputeError(f"{path} has no video stream")
            span = _span(container)
        with av.open(str(path)) as container:
            return _sampled(path, container, span, sampling, progress)
    except (av.error.DecoderNotFoundError, av.codec.codec.UnknownCodecError) as error:
        raise PrecomputeError(f"{path} cannot be decoded: this build of FFmpeg lacks its codec ({_reason(error)}); convert it") from None
    except av.error.FFmpegError as error:
        raise PrecomputeError(f"{path} cannot be read as a video: {_reason(error)}") from None
    except OSError as error:
        raise PrecomputeError(f"{path} cannot be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


@dataclass(frozen=True)
class _Span:
    """What the packets of a stream say without being decoded."""

    first: float
    """Seconds at which the first frame is shown, by the file's own clock."""
    seconds: float
    fps: float


def _span(container: InputContainer) -> _Span:
    stream = container.streams.video[0]
    times, ends = [], []
    for packet in container.demux(stream):
        time = packet.pts if packet.pts is not None else packet.dts
        if packet.size and time is not None and packet.time_base is not None:
            times.append(float(time * packet.time_base))
            ends.append(float((time + (packet.duration or 0)) * packet.time_base))
    if not times:
        raise PrecomputeError(f"{container.name} has no frames")
    first, seconds = min(times), max(ends) - min(times)
    # What a header says of the rate is wrong where frames were dropped.
    rate = len(times) / seconds if seconds > 0 else float(stream.average_rate or 1)
    return _Span(first, seconds or 1 / rate, rate)


def _targets(sampling: Sampling, span: _Span) -> Iterator[float]:
    """Seconds at which a frame is wanted, counted from the clip's first."""
    end = min(span.seconds, sampling.end or span.seconds)
    index = 0
    while sampling.frames is None or index < sampling.frames:
        interval = (end - sampling.start) / sampling.frames if sampling.frames else 1 / (sampling.fps or 1)
        time = sampling.start + index * interval
        if sampling.frames is None and time >= end:
            return
        yield time
        index += 1


def _sampled(
    path: Path, container: InputContainer, span: _Span, sampling: Sampling, progress: Callable[[int], None]
) -> Clip:
    if sampling.start >= span.seconds:
        raise PrecomputeError(f"{path} has {span.seconds:.1f} s: there is nothing from {sampling.start:g} s on")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    targets = _targets(sampling, span)
    target = next(targets, None)
    pixels: list[NDArray[np.uint8]] = []
    seconds: list[float] = []
    indices: list[int] = []
    index_in_part = 0
    half = 0.5 / span.fps
    for index, frame in enumerate(_frames(path, container)):
        time = (frame.time - span.first) if frame.time is not None else index / span.fps
        if time < sampling.start - half:
            continue
        if sampling.end is not None and time >= sampling.end - half:
            break
        if target is not None and time >= target - half:
            pixels.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
            seconds.append(time)
            indices.append(index_in_part)
            progress(len(pixels))
            # A clip with fewer frames than are wanted gives each of them once.
            while target is not None and target - half <= time:
                target = next(targets, None)
        index_in_part += 1
    _check(path, pixels, sampling)
    return Clip(
        name=path.name,
        sha256=_sha256(path),
        pixels=np.stack(pixels),
        seconds=np.array(seconds),
        indices=np.array(indices),
        source_frames=index_in_part,
        source_fps=span.fps,
        sampling=sampling,
    )


def _frames(path: Path, container: InputContainer) -> Iterator[VideoFrame]:
    import av

    decoded, time = 0, 0.0
    try:
        for frame in container.decode(video=0):
            decoded, time = decoded + 1, frame.time or time
            yield frame
    except (av.error.DecoderNotFoundError, av.codec.codec.UnknownCodecError):
        raise
    except av.error.FFmpegError as error:
        raise PrecomputeError(
            f"{path} cannot be decoded after frame {decoded} ({time:.1f} s): {_reason(error)}; to do without the rest, say where to end"
        ) from None


def _check(path: Path, pixels: list[NDArray[np.uint8]], sampling: Sampling) -> None:
    if not pixels:
        raise PrecomputeError(f"{path} has no frames that can be decoded there")
    if sampling.frames is not None and len(pixels) < sampling.frames:
        raise PrecomputeError(f"{path} has {len(pixels)} frames there, {sampling.frames} were asked for: ask for fewer")
    if len({frame.shape for frame in pixels}) > 1:
        raise PrecomputeError(f"the frames of {path} change their size: convert it to one size")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
