"""Which frames are taken of a clip, and what is said where there are none."""

import hashlib

import av
import numpy as np
import pytest

from reelkv.precompute import PrecomputeError, Sampling, open_clip

from . import tiny


def brightness(clip) -> np.ndarray:
    """Rises by one a frame in the clips that `tiny` writes; says which frame it is."""
    return clip.pixels[:, 40:, :, :].mean((1, 2, 3))


@pytest.mark.parametrize("fps, every", [(10, 1), (5, 2), (2, 5), (1, 10), (2.5, 4)])
def test_frames_a_second(clip_file, fps, every):
    clip = open_clip(clip_file, Sampling(fps=fps))
    assert clip.indices.tolist() == list(range(0, 40, every))
    assert np.allclose(clip.seconds, np.arange(0, 40, every) / 10)
    rises = np.diff(brightness(clip))
    assert np.all(np.abs(rises - every) < 1.0), "not the frames that the indices name"


def test_more_frames_a_second_than_there_are_give_each_once(clip_file):
    assert open_clip(clip_file, Sampling(fps=100)).indices.tolist() == list(range(40))


@pytest.mark.parametrize("frames", [1, 2, 7, 20, 40])
def test_a_number_of_frames_is_spread_evenly(clip_file, frames):
    clip = open_clip(clip_file, Sampling(frames=frames))
    assert len(clip) == frames and clip.indices[0] == 0
    steps = np.diff(np.append(clip.indices, 40))
    assert steps.max() - steps.min() <= 1


def test_a_part_of_a_clip(clip_file):
    clip = open_clip(clip_file, Sampling(fps=5, start=1, end=2))
    assert clip.seconds == pytest.approx([1.0, 1.2, 1.4, 1.6, 1.8])
    assert clip.indices.tolist() == [0, 2, 4, 6, 8] and clip.source_frames == 10
    whole = open_clip(clip_file, Sampling(fps=10))
    assert np.array_equal(clip.pixels, whole.pixels[10:20:2])


def test_what_is_told_of_a_clip(clip_file):
    clip = open_clip(clip_file, Sampling(frames=4))
    assert clip.sha256 == hashlib.sha256(clip_file.read_bytes()).hexdigest() and clip.name == "square.mp4"
    assert clip.pixels.shape == (4, 64, 96, 3) and clip.pixels.dtype == np.uint8
    metadata = clip.metadata()
    assert metadata["fps"] == pytest.approx(10) and metadata["total_num_frames"] == 40 and metadata["frames_indices"] == [0, 10, 20, 30]


def test_progress_counts_the_frames(clip_file):
    seen = []
    open_clip(clip_file, Sampling(frames=3), seen.append)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(
    "fields, words",
    [
        ({}, "either"), ({"fps": 1, "frames": 3}, "either"), ({"fps": 0}, "above 0"), ({"fps": float("nan")}, "above 0"), ({"frames": 0}, "at least 1"),
        ({"fps": 1, "start": -1}, "no part"), ({"fps": 1, "start": 3, "end": 3}, "no part"),
    ],
)  # fmt: skip
def test_sampling_that_cannot_be_meant(fields, words):
    with pytest.raises(PrecomputeError, match=words):
        Sampling(**fields)


def test_too_few_frames(clip_file):
    with pytest.raises(PrecomputeError, match="has 40 frames there, 41 were asked for"):
        open_clip(clip_file, Sampling(frames=41))
    with pytest.raises(PrecomputeError, match=r"has 4\.0 s: there is nothing from 9 s on"):
        open_clip(clip_file, Sampling(fps=1, start=9))


def test_files_that_are_no_clips(tmp_path, clip_file):
    with pytest.raises(PrecomputeError, match="is not a file"):
        open_clip(tmp_path / "none.mp4", Sampling(fps=1))
    with pytest.raises(PrecomputeError, match="is not a file"):
        open_clip(tmp_path, Sampling(fps=1))
    text = tmp_path / "text.mp4"
    text.write_text("no video at all\n" * 100)
    with pytest.raises(PrecomputeError, match="cannot be read as a video"):
        open_clip(text, Sampling(fps=1))
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(PrecomputeError, match="cannot be read as a video"):
        open_clip(tmp_path / "empty.mp4", Sampling(fps=1))
    cut = tmp_path / "cut.mp4"  # the table of frames lies at the end
    cut.write_bytes(clip_file.read_bytes()[:3000])
    with pytest.raises(PrecomputeError):
        open_clip(cut, Sampling(fps=1))


def test_a_file_with_sound_alone(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(PrecomputeError, match="no video stream"):
        open_clip(path, Sampling(fps=1))


def test_a_clip_whose_frames_cannot_be_decoded(tmp_path):
    """Bytes of frames that are damaged: what can be decoded is taken, or it is said that there is nothing."""
    path = tiny.write_clip(tmp_path / "damaged.avi")
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 4, len(data) * 3 // 4):
        data[at] ^= 0x5A
    path.write_bytes(bytes(data))
    try:
        clip = open_clip(path, Sampling(fps=10))
    except PrecomputeError:
        return
    assert 0 < len(clip) <= 40
