from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """The folder of a tiny model of a kind; made once."""
    from . import tiny

    made = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tiny.save(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def engine_of(folder_of):
    """A tiny model of a kind, loaded; made once."""
    from reelkv.precompute import load

    made = {}

    def engine(kind: str):
        if kind not in made:
            made[kind] = load(folder_of(kind), device="cpu")
        return made[kind]

    return engine


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory) -> Path:
    """4 seconds at 10 frames a second."""
    from . import tiny

    return tiny.write_clip(tmp_path_factory.mktemp("clip") / "square.mp4")


@pytest.fixture(scope="session")
def clip(clip_file):
    from reelkv.precompute import Sampling, open_clip

    return open_clip(clip_file, Sampling(fps=5))
