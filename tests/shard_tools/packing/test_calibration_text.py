"""The texts that importance is measured with: read line by line, and told where they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from shard_tools.packing.calibration_text import (
    BUILT_IN,
    CalibrationText,
    calibration_encodings,
    calibration_texts,
    known_share,
)
from sti.errors import InputError
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer
from tests.support.paths import MINILM


def test_a_file_of_texts_names_the_line_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "texts"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n  two \n")
    assert calibration_texts(path) == ["one", "two"]
    path.write_bytes(b"one\n\xff\n")
    with pytest.raises(InputError, match="texts: line 2 is not UTF-8 text: invalid start byte"):
        calibration_texts(path)


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (calibration_texts(None), ""),
        (["Kissanpentu nukkuu keittiön pöydän alla ja odottaa ruokaansa."] * 20, "pieces"),
        (["\u0ba4\u0bae\u0bbf\u0bb4\u0bcd \u12a0\u121b\u122d\u129b"] * 40, "unknown"),
        (["A short text."], "have 6 tokens, and 640 are used"),
    ],
)
def test_texts_that_the_tokenizer_hardly_knows_are_told(texts: list[str], told: str) -> None:
    with PackReader.open(MINILM) as reader:
        tokenizer = pack_tokenizer(reader)
        encodings = calibration_encodings(texts, tokenizer)
        notice = known_share("mine.txt", texts, encodings, 100).notice()
    assert (told in notice) if told else not notice
    assert not told or notice.startswith("calibration on mine.txt: ")


def test_what_to_do_depends_on_whose_texts_they_are() -> None:
    built_in = CalibrationText(BUILT_IN, 32, 600, 0.3, 1.4)
    assert built_in.notice().endswith("with --calibration FILE")
    assert "in the language" in CalibrationText("mine", 32, 600, 0.3, 1.4).notice()


def test_scripts_without_spaces_have_no_pieces_a_word() -> None:
    texts = [
        "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u6563\u6b65\u5427"
    ] * 3
    with PackReader.open(MINILM) as reader:
        encodings = calibration_encodings(texts, pack_tokenizer(reader))
    assert known_share("mine", texts, encodings, None).pieces is None
