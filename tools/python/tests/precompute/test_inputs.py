"""What is stored of a chat is what every question about the clip has in common."""

import pytest
import torch

from reelkv.precompute import PrecomputeError, Sampling, chat_inputs, load, open_clip, prefix_inputs
from reelkv.precompute.frames import frame_table
from reelkv.precompute.inputs import prefix_text

KINDS = ["qwen2_5_vl", "qwen3_vl", "llava_onevision"]


@pytest.fixture(params=KINDS)
def engine(request, engine_of):
    return engine_of(request.param)


def chat(question: str, system: str | None = None):
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    return ([{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []) + messages


@pytest.mark.parametrize("system", [None, "You see everything."])
@pytest.mark.parametrize("question", ["What moves in the street?", "\nWhy?", "one two", "?"])
def test_chats_begin_with_the_prefix(engine, clip, question, system):
    prefix = prefix_inputs(engine.processor, clip, system)
    whole = chat_inputs(engine.processor, clip, chat(question, system), add_generation_prompt=True)
    count = prefix["input_ids"].shape[1]
    assert whole["input_ids"].shape[1] > count
    assert torch.equal(whole["input_ids"][:, :count], prefix["input_ids"])
    assert torch.equal(whole["pixel_values_videos"], prefix["pixel_values_videos"])


def test_the_prefix_ends_where_the_question_begins(engine):
    assert prefix_text(engine.processor).startswith("<|im_start|>user\n") and "Why" not in prefix_text(engine.processor)


def test_a_processor_without_a_template_gives_the_video_alone(engine, monkeypatch):
    monkeypatch.setattr(engine.processor, "chat_template", None)
    assert prefix_text(engine.processor) == engine.processor.video_token
    assert prefix_text(engine.processor, "Look.") == "Look.\n" + engine.processor.video_token


@pytest.mark.parametrize(
    "template, words",
    [
        ("{% for m in messages %}{% for p in m.content %}{{ p.text if p.type == 'text' }}{% endfor %}{% endfor %}VIDEO", "puts the question before"),
        ("{{ raise_exception('no videos') }}", "does not take a video and a question: no videos"),
        ("nothing", "leaves the question out"),
    ],
)
def test_templates_that_leave_nothing_to_share(engine, monkeypatch, template, words):
    monkeypatch.setattr(engine.processor, "chat_template", template.replace("VIDEO", engine.processor.video_token))
    with pytest.raises(PrecomputeError, match=words):
        prefix_text(engine.processor)


def test_frames_keep_their_time(engine_of, clip_file):
    """Qwen2.5-VL is told how far frames lie apart."""
    processor = engine_of("qwen2_5_vl").processor
    for fps in (5, 10):
        inputs = prefix_inputs(processor, open_clip(clip_file, Sampling(fps=fps)))
        assert inputs["second_per_grid_ts"][0] == pytest.approx(2 / fps)


# Frame tables


def table_of(engine, clip):
    inputs = prefix_inputs(engine.processor, clip)
    is_video = (inputs["input_ids"][0] == engine.model.config.video_token_id).tolist()
    grid = inputs.get("video_grid_thw")
    return frame_table(is_video, None if grid is None else int(grid[:, 0].sum()), clip.seconds.tolist()), is_video


def test_every_frames_tokens_are_found(engine, clip):
    table, is_video = table_of(engine, clip)
    groups = 20 if engine.model.config.model_type == "llava_onevision" else 10
    assert len(table) == groups
    assert [seconds for _, _, seconds in table] == pytest.approx([4.0 * index / groups for index in range(groups)])
    covered = [index for first, count, _ in table for index in range(first, first + count)]
    assert covered == sorted(set(covered)) and all(is_video[index] for index in covered)
    left = sum(is_video) - len(covered)
    assert left == (1 if engine.model.config.model_type == "llava_onevision" else 0), "LLaVA-OneVision ends a video with one token"


def test_tokens_and_frames_that_do_not_fit_give_no_table():
    assert frame_table([False] * 5, None, [0.0, 1.0]) == []
    assert frame_table([True] * 3, None, [0.0, 1.0, 2.0, 3.0]) == [], "fewer tokens than frames"
    assert frame_table([True, False, True, False, True], None, [0.0, 1.0]) == [], "three runs, two frames"
    assert frame_table([True, True, False, True, True], None, [0.0, 1.5]) == [(0, 2, 0.0), (3, 2, 1.5)]


# Folders


def test_folders_that_hold_no_model(tmp_path, folder_of):
    with pytest.raises(PrecomputeError, match="is not a folder"):
        load(tmp_path / "none")
    with pytest.raises(PrecomputeError, match="has no config.json"):
        load(tmp_path)
    source = folder_of("llava_onevision")
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    with pytest.raises(PrecomputeError, match="holds no processor"):
        load(tmp_path)
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    with pytest.raises(PrecomputeError, match="holds no video language model"):
        load(tmp_path)


def test_a_language_model_alone_is_refused(tmp_path, folder_of):
    from . import tiny

    tokens = tiny.tokenizer()
    import transformers as tf

    tf.LlamaForCausalLM(tf.LlamaConfig(**tiny.TEXT_SIZES, vocab_size=len(tokens))).save_pretrained(tmp_path)
    tokens.save_pretrained(tmp_path)
    with pytest.raises(PrecomputeError, match="it is no video language model"):
        load(tmp_path)


def test_a_device_that_is_not_there_is_named(folder_of):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(PrecomputeError, match="cannot be put on cuda"):
        load(folder_of("llava_onevision"), device="cuda")
