import json
import subprocess
from pathlib import Path

import pytest
import reelkv
import torch
from safetensors.torch import load_file

from evaluation.metrics import attention_error_per_layer, attention_outputs, nmse_per_layer
from evaluation.stored import PROFILES, as_tokens, described, round_trip
from evaluation.model import Media, Prefix

ROOT = Path(__file__).parents[3]
TEXT = ROOT / "Tests/Fixtures/text.safetensors"
BENCH = ROOT / ".build/release/reelkv-bench"


@pytest.fixture(scope="module")
def text() -> dict[str, torch.Tensor]:
    return load_file(TEXT)


def layers_of(tensors: dict[str, torch.Tensor], part: str) -> list[torch.Tensor]:
    return [tensors[f"layers.{layer}.{part}"][0] for layer in range(3)]


def stored(tensors, profile: str, folder, tokens: int | None = None):
    model = reelkv.Model.from_spec(ROOT / "Tests/Fixtures/smollm2.json")
    pairs = [(key[:, :tokens], value[:, :tokens]) for key, value in zip(layers_of(tensors, "key"), layers_of(tensors, "value"))]
    return round_trip(model, reelkv.Tokens(tensors["input_ids"][0, :tokens]), pairs, profile, folder), pairs


def test_bits_are_those_of_all_files(text, tmp_path):
    result, pairs = stored(text, "vidkv-1.5-1.58", tmp_path / "store", 700)
    elements = sum(key.numel() + value.numel() for key, value in pairs)
    files = sum(path.stat().st_size for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert result.bits == pytest.approx(8 * files / elements)
    # 512 tokens are in full pages, 188 in exact images of some 11 bits an element.
    assert 1 < result.page_bits * 700 / 512 < 2.2 and 8 < result.tail_bits * 700 / 188 < 16
    assert result.page_bits + result.tail_bits < result.bits


def test_exact_is_exact_and_the_tail_of_others_is(text, tmp_path):
    result, pairs = stored(text, "exact", tmp_path / "exact", 700)
    assert nmse_per_layer(result.layers, [(key.float(), value.float()) for key, value in pairs]) == ([0] * 3, [0] * 3)
    result, pairs = stored(text, "vidkv-1-1", tmp_path / "lossy", 700)
    assert torch.equal(result.layers[0][0][:, 512:], pairs[0][0][:, 512:].float())
    assert not torch.equal(result.layers[0][0][:, :512], pairs[0][0][:, :512].float())


def test_the_profiles_are_those_that_the_store_has(text, tmp_path):
    with pytest.raises(reelkv.Error) as error:
        stored(text, "no such profile", tmp_path / "store", 10)
    assert str(error.value).endswith(f"the profiles are {', '.join(PROFILES)}")


def test_models_are_described_as_they_are_cached(tiny_model):
    model = described(tiny_model)
    assert json.loads(model.json)["dtype"] == "bfloat16" and len(model.fingerprint) == 64


def test_media_become_a_span():
    tokens = as_tokens(Prefix([1, 2, -1, -1, -1, 3], Media("ab" * 32, 2, torch.zeros(3, 8))))
    (span,) = tokens.media
    assert (span.digest, span.first_token, span.count) == (bytes.fromhex("ab" * 32), 2, 3)


@pytest.mark.skipif(not BENCH.exists(), reason="tools/bench has not built reelkv-bench")
def test_errors_agree_with_the_benchmark_program(text, tmp_path):
    """Which measures the same in Swift."""
    profile = "vidkv-1.5-1.58"
    done = subprocess.run([BENCH, "profiles", TEXT, "--profile", profile, "--json"], capture_output=True, check=True)
    (row,) = json.loads(done.stdout)
    result, pairs = stored(text, profile, tmp_path / "store")
    exact = [(key.float(), value.float()) for key, value in pairs]
    queries = [query.float() for query in layers_of(text, "query")]
    key_nmse, value_nmse = nmse_per_layer(result.layers, exact)
    assert key_nmse == pytest.approx(row["key_nmse_per_layer"], rel=1e-4)
    assert value_nmse == pytest.approx(row["value_nmse_per_layer"], rel=1e-4)
    attention = attention_error_per_layer(attention_outputs(queries, result.layers), attention_outputs(queries, exact))
    assert attention == pytest.approx(row["attention_error_per_layer"], rel=1e-3)
    # Here the images have their tokens, too; there the index has a few pages fewer.
    assert result.page_bits + result.tail_bits == pytest.approx(row["bits_per_element_in_images"], rel=0.02)
    assert result.bits == pytest.approx(row["bits_per_element"], abs=0.3)
