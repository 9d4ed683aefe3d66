"""Loads a model and its processor from a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import PrecomputeError, extra


@dataclass(frozen=True)
class Engine:
    """A transformers model, the processor that makes its inputs, and the folder that both come from."""

    model: Any
    processor: Any
    folder: Path


def load(folder: str | os.PathLike[str], device: str | None = None, dtype: str | None = None) -> Engine:
    """Loads a video language model.

    Args:
        folder: as `save_pretrained` leaves it; nothing is looked up anywhere else.
        device: "cpu", "cuda", "cuda:1", "mps"; None for the first accelerator, or the CPU.
        dtype: "bfloat16", "float16" or "float32"; None for what the folder says.

    Raises:
        PrecomputeError: packages, files or support are missing.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise extra(error.name or "torch") from None
    folder = Path(folder)
    check_folder(folder)
    processor = _load(transformers.AutoProcessor, folder, "a processor")
    _check_processor(processor, folder)
    model = _load(
        transformers.AutoModelForImageTextToText, folder, "a video language model", dtype="auto" if dtype is None else getattr(torch, dtype)
    )
    if getattr(model.config, "is_encoder_decoder", False):
        raise PrecomputeError(f"{folder} holds an encoder-decoder model ({model.config.model_type}), which has no cache to share")
    device = device or _default_device(torch)
    try:
        return Engine(model.eval().to(device), processor, folder)
    except (RuntimeError, AssertionError) as error:
        raise PrecomputeError(f"the model cannot be put on {device}: {_first_line(error)}") from None


def hide_progress() -> None:
    """Has transformers show no bars of its own, in this process."""
    try:
        from transformers.utils import logging
    except ImportError:
        return  # `load` says so
    logging.disable_progress_bar()


def _default_device(torch: Any) -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_folder(folder: Path) -> None:
    """Raises PrecomputeError where no model can be."""
    if not folder.is_dir():
        raise PrecomputeError(f"{folder} is not a folder: --model takes the folder of a transformers model")
    if not (folder / "config.json").is_file():
        raise PrecomputeError(f"{folder} has no config.json: it is not the folder of a transformers model")


def _load(auto: Any, folder: Path, what: str, **options: Any) -> Any:
    """What a class of transformers' loads from a folder.

    transformers raises all kinds of errors for what a folder lacks; each says what it is.
    """
    try:
        return auto.from_pretrained(folder, local_files_only=True, **options)
    except ImportError as error:
        raise PrecomputeError(
            f"{what} cannot be loaded from {folder}, since a package is missing or does not fit: {_first_line(error)}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise PrecomputeError(f"{folder} holds no {what.removeprefix('a ')} that transformers can load: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _check_processor(processor: Any, folder: Path) -> None:
    if getattr(processor, "tokenizer", None) is None:
        raise PrecomputeError(f"{folder} has a tokenizer but no processor of pictures: it is no video language model")
    if getattr(processor, "video_processor", None) is None:
        raise PrecomputeError(f"the processor in {folder}, {type(processor).__name__}, takes no videos")
