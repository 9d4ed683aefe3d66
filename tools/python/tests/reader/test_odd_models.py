"""Models and stores unlike the fixtures' one: every element type, odd dimensions, M-RoPE, windows, tenants, sealed volumes."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from reelkv.reader import Store, verify
from reelkv.reader.values import BFLOAT16, FLOAT16, FLOAT32, ElementType

from .support import OPTION_NAMES, PLAIN_PROFILES, assert_decodes_as_exported, read_cache, write_cache

TOKENS = 300
PROFILES = ["exact", "int8", "kivi-2", "vidkv-1.5-1.66", "vidkv-1.25-1.58", "vidkv-1-1"]


@dataclass(frozen=True)
class Case:
    name: str
    element_type: ElementType
    spec: dict
    tokens_held: tuple[int, ...] = (TOKENS, TOKENS)
    positions: np.ndarray | None = field(default=None, compare=False)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The model's spec and a cache of it."""
        spec = {"layers": 2, "dtype": OPTION_NAMES[self.element_type], "fingerprint": "07" * 32} | self.spec
        (folder / "spec.json").write_text(json.dumps(spec))
        random = np.random.default_rng(len(self.name))
        ids = random.integers(0, 100_000, TOKENS)
        ids[20:220] = -1
        layers = [
            tuple(self._tensor(random, spec["kv_heads"], tokens, spec[dim]) for dim in ("key_dim", "value_dim"))
            for tokens in self.tokens_held
        ]
        others = {} if self.positions is None else {"position_ids": self.positions[:, np.newaxis]}
        write_cache(folder / "cache.safetensors", layers, self.element_type, ids, **others)
        return folder / "spec.json", folder / "cache.safetensors"

    def _tensor(self, random, heads: int, tokens: int, dim: int) -> np.ndarray:
        """Channels of different offset and spread, a constant one, tiny ones, and values that no quantizer takes."""
        spread, offset = 2.0 ** random.integers(-6, 4, (heads, 1, dim)), 3 * random.standard_normal((heads, 1, dim))
        values = random.standard_normal((heads, tokens, dim)) * spread + offset
        values[:, :, 1] = 0.75
        values[:, :, 2] *= 2.0**-20
        values[0, -50, 3], values[0, -49, 4], values[-1, -48, 5] = np.nan, np.inf, 6e4
        return self.element_type.from_float32(values)


def mrope_positions() -> np.ndarray:
    """Text counts on all three streams; the media's tokens stand in a grid, and text goes on behind it."""
    time = np.arange(TOKENS)
    grid = np.arange(200)
    positions = np.stack([time, time, time])
    positions[:, 20:220] = 20 + np.stack([grid // 50, grid // 10 % 5, grid % 10])
    positions[:, 220:] -= 190
    return positions


CASES = [
    Case(
        "float16, M-RoPE",
        FLOAT16,
        {"kv_heads": 2, "key_dim": 64, "value_dim": 64, "rope": {"theta": 1e6, "mrope_section": [8, 12, 12]}},
        positions=mrope_positions(),
    ),
    Case(
        "float32, interleaved and in part, keys and values of odd dimensions",
        FLOAT32,
        {"kv_heads": 3, "key_dim": 44, "value_dim": 23, "rope": {"theta": 1e4, "dim": 20, "interleaved": True}},
    ),
    Case(
        "bfloat16, sliding window",
        BFLOAT16,
        {
            "kv_heads": 1,
            "key_dim": 80,
            "value_dim": 96,
            "rope": [None, {"theta": 5e5}],
            "sliding_window": [None, 90],
        },
        tokens_held=(TOKENS, 100),
    ),
]


@pytest.fixture(scope="module", params=PROFILES)
def profile(request) -> str:
    return request.param


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request) -> Case:
    return request.param


@pytest.fixture(scope="module")
def store(command, profile, case, tmp_path_factory) -> Path:
    """Pages of 64 tokens in volumes as small as they may be; another tenant holds the same tokens."""
    folder = tmp_path_factory.mktemp("odd")
    spec, cache = case.write(folder)
    path = command.new_store(folder / "store", spec, "--page-tokens", 64, "--volume-bytes", "1MiB")
    for tenant in ("default", "other"):
        command(path, "import", cache, "--model", "model", "--profile", profile, "--video", "clip", "--tenant", tenant)
    return path


def test_python_decodes_what_swift_exports(command, store, case, profile):
    turned = case.spec.get("rope") and profile not in PLAIN_PROFILES
    for element_type in (case.element_type, FLOAT32):
        assert_decodes_as_exported(command, store, "video/clip", element_type, plain=not turned)


def test_every_tenants_chain_is_its_own_and_sound(store):
    with Store(store) as opened:
        assert verify(opened, decoding=True) == []
        tips = {opened.head("video/clip", tenant).record.tip for tenant in ("default", "other")}
        assert len(tips) == 2


def test_values_that_no_quantizer_takes_come_back(store, case):
    file = read_cache(store.parent / "cache.safetensors")
    with Store(store) as opened:
        cache = opened.read(opened.head("video/clip"), 0)
        for name, decoded in (("key", cache.key), ("value", cache.value)):
            assert np.array_equal(decoded[:, -50:-48], file[f"layers.0.{name}"][0][:, -50:-48])


def test_a_window_says_what_it_holds(store, case):
    with Store(store) as opened:
        firsts = [opened.read(opened.head("video/clip"), layer).first_token for layer in range(2)]
        assert firsts == [TOKENS - held for held in case.tokens_held]


def test_positions_are_those_of_the_file(store, case):
    expected = np.arange(TOKENS)[np.newaxis] if case.positions is None else case.positions
    with Store(store) as opened:
        for segment in opened.chain(opened.head("video/clip")):
            image = opened.image(segment.node)
            own = expected[:, segment.first_token : segment.first_token + segment.token_count]
            # where every stream counts the tokens, one stream says so
            assert np.array_equal(np.broadcast_to(image.positions, own.shape), own)
