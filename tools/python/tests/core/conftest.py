import pytest

from reelkv import Store

from .caches import MODEL


@pytest.fixture
def store(library, tmp_path):
    """A store of small pages, with a model."""
    with Store.create(tmp_path / "store", page_tokens=32) as opened:
        opened.add_model(MODEL)
        yield opened
