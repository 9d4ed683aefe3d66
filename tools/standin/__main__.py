"""Makes the stand-in's folder:  python -m standin FOLDER --clip vtest.avi"""

import argparse
import os
import shutil
from pathlib import Path

import torch

from clip import IMAGENET_MEAN, IMAGENET_STD, Clip, Sampling
from standin.model import standin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("folder", type=Path, help="where to put the model; replaced if it is there")
    parser.add_argument("--clip", type=Path, required=True, help="the features of its frames are standardised")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    options = parser.parse_args()
    clip = Clip.open(options.clip, Sampling(options.frames, stride=20))
    pixels = torch.from_numpy((clip.pixels / 255 - IMAGENET_MEAN) / IMAGENET_STD).float().permute(0, 3, 1, 2)
    model, processor = standin(pixels, getattr(torch, options.dtype))
    # Whole or not at all: an interrupted run leaves nothing that looks like a model.
    unfinished = options.folder.with_name(options.folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    shutil.rmtree(options.folder, ignore_errors=True)
    os.rename(unfinished, options.folder)


if __name__ == "__main__":
    main()
