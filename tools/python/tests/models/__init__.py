"""Tests of the adapters, with models of transformers: tiny ones of random weights, and SmolLM2. The first package that is missing skips
them all."""

import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded

for name in ("torch", "transformers"):
    pytest.importorskip(name, reason=f"the tests of the adapters need {name}: pip install './tools/python[hf,test]'")
