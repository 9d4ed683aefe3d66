"""A tiny model, for what must hold of any model, and the real one, for what is claimed of it."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# Behind what PYTHONPATH names.
sys.path += [str(ROOT / folder) for folder in ("tools/python", "tools", "tools/fixtures")]

import tiny  # noqa: E402

from evaluation.model import EvaluatedModel  # noqa: E402


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_model(tiny_folder) -> EvaluatedModel:
    return EvaluatedModel(tiny_folder)


@pytest.fixture(scope="session")
def smollm2() -> EvaluatedModel:
    return EvaluatedModel()
