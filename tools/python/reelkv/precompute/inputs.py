"""From a clip to what a model takes: the part of a chat that every question about the clip has in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .clip import Clip
from .errors import PrecomputeError

# Two questions that have nothing in common: what their chats share comes before any question.
_QUESTIONS = ("Why?", "one two")


def chat_inputs(processor: Any, clip: Clip, messages: Sequence[Mapping[str, Any]], **options: Any) -> Any:
    """A processor's inputs for a chat about a clip.

    Args:
        messages: as transformers' chat templates take them, with one part {"type": "video"} in the first user's message.
        options: for `apply_chat_template`: add_generation_prompt, say.
    """
    return process(processor, clip, processor.apply_chat_template(list(messages), tokenize=False, **options))


def prefix_inputs(processor: Any, clip: Clip, system: str | None = None) -> Any:
    """A processor's inputs for what precedes the question in a chat whose first message begins with the clip.

    Args:
        system: the system message; None for what the template says then.
    """
    return process(processor, clip, prefix_text(processor, system))


def prefix_text(processor: Any, system: str | None = None) -> str:
    """The chat's text up to the question, with the clip's placeholder in it."""
    placeholder = getattr(processor, "video_token", None)
    if getattr(processor, "chat_template", None) is None:
        if placeholder is None:
            raise PrecomputeError("the model's processor has neither a chat template nor a placeholder of videos")
        return f"{system}\n{placeholder}" if system else str(placeholder)
    first, second = (_rendered(processor, question, system) for question in _QUESTIONS)
    length = next(index for index, (a, b) in enumerate(zip(first, second)) if a != b)
    prefix = first[:length]
    if placeholder is not None and placeholder not in prefix:
        raise PrecomputeError(
            "the model's chat template puts the question before the video: no two questions would have anything in common to store"
        )
    return prefix


def _rendered(processor: Any, question: str, system: str | None) -> str:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]},
    ]
    if system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    try:
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program of its own, and may raise anything
        raise PrecomputeError(f"the model's chat template does not take a video and a question: {error}") from None
    if question not in text:
        raise PrecomputeError("the model's chat template leaves the question out")
    return str(text)


def process(processor: Any, clip: Clip, text: str) -> Any:
    """The processor's tensors for a text with the placeholder of one video.

    The clip has been sampled, so the processor is told to take every frame as it is.
    """
    from transformers.video_utils import VideoMetadata

    try:
        inputs = processor(
            text=[text],
            videos=[clip.pixels],
            videos_kwargs={"video_metadata": [VideoMetadata(**clip.metadata())], "do_sample_frames": False},
            return_tensors="pt",
        )
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise PrecomputeError(f"the model's processor does not take the clip's {len(clip)} frames: {error}") from None
    if inputs["input_ids"].shape[0] != 1:
        raise PrecomputeError(f"the model's processor made {inputs['input_ids'].shape[0]} sequences of one")
    return inputs
