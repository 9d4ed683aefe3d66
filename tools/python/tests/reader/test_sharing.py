"""Sequences that share pages: branches inside a page, forks, sessions cut short."""

import pytest

from reelkv.reader import Store, verify
from reelkv.reader.index import KIND_PAGE, KIND_PIECE
from reelkv.reader.values import BFLOAT16

from ..command import FIXTURES
from .support import assert_decodes_as_exported, read_cache

A, B = FIXTURES / "chat-a.safetensors", FIXTURES / "chat-b.safetensors"
SHARED = 772
"""Tokens in which the two conversations agree: 12 pages of 64, and 4 more."""


@pytest.fixture(params=["exact", "vidkv-1.5-1.58"])
def profile(request) -> str:
    return request.param


@pytest.fixture
def store(command, profile, tmp_path):
    """All of one conversation as a video, and the beginning of the other as a session that branches off inside a full page."""
    path = command.new_store(tmp_path / "store", FIXTURES / "smollm2.json", "--page-tokens", 64)
    command(path, "import", A, "--model", "model", "--profile", profile, "--video", "a")
    command(path, "import", B, "--model", "model", "--profile", profile, "--session", "b", "--tokens", "0..<780")
    return path


def check(command, path, profile, name):
    assert_decodes_as_exported(command, path, name, BFLOAT16, plain=profile == "exact")
    with Store(path) as store:
        assert verify(store, decoding=True) == []


def test_a_branch_uses_the_first_tokens_of_a_full_page(command, store, profile):
    check(command, store, profile, "session/b")
    with Store(store) as opened:
        page, piece = opened.chain(opened.head("session/b"))[-2:]
        assert (page.node.record.kind, page.first_token, page.token_count) == (KIND_PAGE, 768, SHARED - 768)
        assert (piece.node.record.kind, piece.first_token, piece.token_count) == (KIND_PIECE, SHARED, 780 - SHARED)
        assert page.node == opened.chain(opened.head("video/a"))[12].node


def test_a_session_grows_over_pages_and_is_cut_back(command, store, profile):
    command(store, "import", B, "--model", "model", "--profile", profile, "--session", "b")
    check(command, store, profile, "session/b")
    command(store, "truncate", "session/b", 790)
    check(command, store, profile, "session/b")
    with Store(store) as opened:
        head = opened.head("session/b")
        assert opened.tokens(head).ids == read_cache(B)["input_ids"][0, :790].tolist()


def test_a_fork_is_another_name_for_the_same_nodes(command, store, profile):
    command(store, "fork", "session/b", "c")
    check(command, store, profile, "session/c")
    with Store(store) as opened:
        assert opened.chain(opened.head("session/c")) == opened.chain(opened.head("session/b"))


def test_a_removed_sequence_leaves_what_others_share(command, store, profile):
    command(store, "rm", "video/a")
    check(command, store, profile, "session/b")
