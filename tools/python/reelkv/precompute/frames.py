"""Which tokens stand for which frames."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby


def frame_table(video_tokens: Sequence[bool], groups: int | None, seconds: Sequence[float]) -> list[tuple[int, int, float]]:
    """The frame table of a prompt with one video.

    Args:
        video_tokens: for each token of the prompt whether it stands for a part of the video.
        groups: how many groups of frames the model makes one of, where it says so; None: each frame is one.
        seconds: when each frame is shown.

    Returns:
        For each group its first token, its tokens, and when its first frame is shown. Empty if tokens and frames do not fit
        together in a way that is known here.
    """
    runs, position = [], 0
    for is_video, run in groupby(video_tokens):
        length = sum(1 for _ in run)
        if is_video:
            runs.append((position, length))
        position += length
    if not runs or not seconds:
        return []
    groups = groups or len(seconds)
    if len(runs) == 1:
        first, length = runs[0]
        each = length // groups
        # What is left over ends the video and belongs to no frame.
        runs = [(first + index * each, each) for index in range(groups)] if each else []
    if len(runs) != groups:
        return []
    per_group = -(-len(seconds) // groups)
    return [(first, length, float(seconds[min(index * per_group, len(seconds) - 1)])) for index, (first, length) in enumerate(runs)]
