"""Tests of the reader of the format. They need the extra `reader`, and the first of these that is missing skips them all."""

import pytest

for name in ("lmdb", "zstandard", "xxhash", "nacl", "safetensors"):
    pytest.importorskip(name, reason=f"the reader's tests need {name}: pip install './tools/python[reader,test]'")
