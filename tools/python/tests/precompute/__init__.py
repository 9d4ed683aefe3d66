"""Tests of precomputation: with tiny models of random weights, whose plumbing is that of the large ones."""

import os

import pytest

# Nothing here is to be looked up anywhere else.
os.environ["HF_HUB_OFFLINE"] = "1"

for package in ("torch", "torchvision", "transformers", "av"):
    try:
        __import__(package)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"precomputation needs {package}, which cannot be imported ({error}): pip install 'reelkv[precompute]'", allow_module_level=True)

import torch

torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other
