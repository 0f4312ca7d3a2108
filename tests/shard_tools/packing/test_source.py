"""What a pack is made from: contradictions between a checkpoint's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.packing.options import BuildOptions
from shard_tools.packing.source import read_source
from sti.errors import CheckpointError
from tests.support.checkpoints import write_checkpoint

ROBERTA = {"model_type": "roberta", "architectures": None}


@pytest.mark.parametrize(("number", "word"), [(2, "[CLS]"), (3, "[SEP]")])
def test_a_padding_token_around_every_text_is_refused_where_it_has_no_position(
    tmp_path: Path, number: int, word: str
) -> None:
    write_checkpoint(tmp_path, config={**ROBERTA, "pad_token_id": number})
    with (
        Checkpoint(tmp_path) as checkpoint,
        pytest.raises(CheckpointError, match=rf"pad_token_id {number} is '\[{word[1:-1]}\]'"),
    ):
        read_source(checkpoint, BuildOptions())


@pytest.mark.parametrize("number", [0, 4])
def test_another_padding_token_moves_the_first_position(tmp_path: Path, number: int) -> None:
    write_checkpoint(tmp_path, config={**ROBERTA, "pad_token_id": number})
    with Checkpoint(tmp_path) as checkpoint:
        source = read_source(checkpoint, BuildOptions())
    assert source.tokenizer.max_tokens == 48 - 1 - number
