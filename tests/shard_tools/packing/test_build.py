"""From checkpoint to pack: the bytes hold the checkpoint's weights, and failures leave nothing."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from benchmarks import build_cost
from shard_tools.architectures.encoder import reference
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from shard_tools.packing.pack_writer import PackWriter, check_output, replacing_pack
from shard_tools.quantization.blocks import group_sizes
from sti.codec.word_rows import decode_rows
from sti.errors import CheckpointError, InputError, PackFormatError, StiError, StorageError
from sti.pack.manifest_reader import MOST_HEADER_BYTES
from sti.pack.pack_reader import PackReader
from sti.pack.verify import verify
from tests.support.checkpoints import TINY, write_checkpoint
from tests.support.packs import tiny_pack
from tests.support.paths import ROOT
from tests.support.stored_weights import float_operand, operand

_DOWN = "layer.0.ffn.down_scale"


def built(place: Path, options: BuildOptions | None = None, **kinds: object) -> Path:
    """A pack of a tiny checkpoint beside it."""
    write_checkpoint(place / "checkpoint", **kinds)  # type: ignore[arg-type]
    output = place / "out.sti.safetensors"
    build(place / "checkpoint", output, options or BuildOptions())
    return output


def change_tensor(directory: Path, name: str, values: np.ndarray) -> None:
    path = directory / "model.safetensors"
    save_file({**load_file(path), name: values}, path)


@pytest.mark.parametrize("slices", [4, 2, 1])
def test_a_pack_holds_every_weight_of_the_encoder_to_half_a_step(
    tmp_path: Path, slices: int
) -> None:
    path = built(tmp_path, BuildOptions(slices=slices), prefix=True)
    raw = load_file(tmp_path / "checkpoint" / "model.safetensors")
    heads, size = TINY.heads, TINY.hidden // TINY.heads
    root = np.float32(1 / np.sqrt(size))
    names = {"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"}
    with PackReader.open(path) as reader:
        for layer in range(TINY.layers):
            base = f"bert.encoder.layer.{layer}."
            expected = {
                key: raw[f"{base}attention.{name}.weight"].T * (root if key == "q" else 1)
                for key, name in names.items()
            }
            for key in "qkv":
                expected[key] = expected[key].reshape(-1, heads, size).transpose(1, 0, 2)
            expected["o"] = expected["o"].reshape(heads, size, -1)
            up, down = raw[base + "intermediate.dense.weight"], raw[base + "output.dense.weight"]
            expected["up"] = up.T.reshape(TINY.hidden, slices, -1).transpose(1, 0, 2)
            expected["down"] = down.T.reshape(slices, -1, TINY.hidden)
            for name, weights in expected.items():
                kind = "ffn" if name in ("up", "down") else "attention"
                found = float_operand(reader, layer, kind, name, 5)
                step = reader.resident(f"layer.{layer}.{kind}.{name}_scale")
                assert found.shape == weights.shape
                assert (np.abs(found - weights) <= step * 0.501).all()


def test_weights_beyond_the_grid_are_exact_at_every_fidelity(tmp_path: Path) -> None:
    path = built(tmp_path, far=2)
    raw = load_file(tmp_path / "checkpoint" / "model.safetensors")
    with PackReader.open(path) as reader:
        assert reader.manifest.notes["grid_sigmas"] == 7.0
        weights = raw["encoder.layer.1.output.dense.weight"].T
        step = reader.resident("layer.1.ffn.down_scale")
        beyond = np.abs(weights / step) > 127.5
        assert beyond.any()
        for planes in range(1, 6):
            found = float_operand(reader, 1, "ffn", "down", planes).reshape(weights.shape)
            np.testing.assert_allclose(found[beyond], weights[beyond], rtol=1e-6)


def test_grids_are_narrow_where_no_channel_has_weights_far_outside_and_no_width_is_given(
    tmp_path: Path,
) -> None:
    grids = []
    for chosen in (None, 7.0):
        path = built(tmp_path, BuildOptions(grid_sigmas=chosen), far=0)
        with PackReader.open(path) as reader:
            grids.append((reader.manifest.notes["grid_sigmas"], reader.resident(_DOWN)))
    raw = load_file(tmp_path / "checkpoint" / "model.safetensors")
    largest = np.abs(raw["encoder.layer.0.output.dense.weight"]).max(axis=1)
    (narrow, fine), (given, coarse) = grids
    assert narrow < 4 and given == 7.0
    assert (127 * fine >= largest * 0.999).all()
    assert fine.sum() < 0.7 * coarse.sum()


def test_more_planes_are_closer(tmp_path: Path) -> None:
    path = built(tmp_path)
    with PackReader.open(path) as reader:
        exact = operand(reader, 0, "attention", "v", 5).astype(float)
        errors = [
            np.square(operand(reader, 0, "attention", "v", planes) - exact).sum()
            for planes in range(1, 6)
        ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 10 * errors[2] > 0


def test_token_rows_are_near_the_checkpoints(tmp_path: Path) -> None:
    path = built(tmp_path)
    words = load_file(tmp_path / "checkpoint" / "model.safetensors")[
        "embeddings.word_embeddings.weight"
    ]
    with PackReader.open(path) as reader:
        table = reader.manifest.embeddings
        data = np.fromfile(path, np.uint8)[reader.embeddings_offset :]
    raw = data[: table.rows * table.row_bytes].reshape(table.rows, table.row_bytes)
    out = np.empty(words.shape, np.float32)
    assert decode_rows(raw, np.arange(table.rows), table.group, out) is None
    assert np.square(out - words).sum() < 0.01 * np.square(words).sum()


def test_residents_are_the_checkpoints(tmp_path: Path) -> None:
    path = built(tmp_path, task="classification", prefix=True)
    raw = load_file(tmp_path / "checkpoint" / "model.safetensors")
    with PackReader.open(path) as reader:
        pairs = {
            "embed.types": raw["bert.embeddings.token_type_embeddings.weight"],
            "embed.positions": raw["bert.embeddings.position_embeddings.weight"].astype("f2"),
            "layer.1.attention.bias": raw["bert.encoder.layer.1.attention.output.dense.bias"],
            "layer.1.ffn.gamma": raw["bert.encoder.layer.1.output.LayerNorm.weight"],
            "head.classifier_w": raw["classifier.weight"].T,
            "head.pooler_w": raw["bert.pooler.dense.weight"].T,
        }
        for name, expected in pairs.items():
            np.testing.assert_array_equal(reader.resident(name), expected)
        vocabulary = (tmp_path / "checkpoint" / "vocab.txt").read_text().split()
        assert reader.resident("tokenizer.vocab").tobytes().decode().split("\n") == vocabulary


def test_positions_beyond_the_sequence_limit_are_left_out(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    build(tmp_path / "checkpoint", tmp_path / "out", BuildOptions())
    with PackReader.open(tmp_path / "out") as reader:
        assert reader.manifest.dimensions.max_tokens == 20
        assert reader.resident("embed.positions").shape == (20, TINY.hidden)


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path) -> None:
    path = built(tmp_path)
    first = path.read_bytes()
    build(tmp_path / "checkpoint", path, BuildOptions())
    assert path.read_bytes() == first


def test_split_files_and_prefixes_change_nothing_but_names(tmp_path: Path) -> None:
    plain = built(tmp_path / "a")
    split = built(tmp_path / "b", files=3, prefix=True)
    assert plain.read_bytes() == split.read_bytes()


@pytest.mark.parametrize(
    "task", ["embedding", "classification", "mean_classification", "regression", "tagging"]
)
def test_every_task_builds_a_sound_pack(tmp_path: Path, task: str) -> None:
    path = built(tmp_path, task=task)
    assert verify(path).good


@pytest.mark.parametrize(
    ("group_bytes", "groups"), [(1, 4), (1024, 1), (513, 1), (512, 2), (400, 2), (256, 4)]
)
def test_a_block_has_as_many_equal_groups_as_are_large_enough(
    tmp_path: Path, group_bytes: int, groups: int
) -> None:
    # Each block has 4 slices of 1,024 weights: 1,024 bytes at 2 bits.
    path = built(tmp_path, BuildOptions(group_bytes=group_bytes))
    whole = tmp_path / "whole"
    build(tmp_path / "checkpoint", whole, BuildOptions())
    with PackReader.open(path) as reader, PackReader.open(whole) as other:
        each = TINY.heads // groups
        assert [kind.groups for kind in reader.manifest.kinds] == [(each,) * groups] * 2
        for kind, name in (("attention", "q"), ("ffn", "down")):
            for planes in (1, 5):
                np.testing.assert_array_equal(
                    operand(reader, 1, kind, name, planes), operand(other, 1, kind, name, planes)
                )
        for group in reader.manifest.groups:
            (block,) = other.manifest.block(group.layer, group.kind)
            for plane, all_of_it in zip(group.planes, block.planes, strict=True):
                gains = all_of_it.gains[group.first : group.first + group.slices]
                assert plane.gains == gains
                ranked = [gains[index] for index in plane.order]
                assert plane is group.planes[0] or ranked == sorted(gains, reverse=True)
        assert reader.manifest.sha256.content == other.manifest.sha256.content
        assert (reader.pack_id == other.pack_id) == (groups == 1)
    assert verify(path).good


def test_real_sizes_are_divided_as_the_format_recommends() -> None:
    minilm = [group_sizes(49_152, 12), group_sizes(98_304, 12)]
    base = [group_sizes(196_608, 12), group_sizes(393_216, 12)]
    large = [group_sizes(262_144, 16), group_sizes(524_288, 16)]
    assert minilm == [(12,), (12,)]
    assert base == [(6, 6), (3, 3, 3, 3)]
    assert large == [(4,) * 4, (2,) * 8]
    assert group_sizes(1_048_576, 5) == (1,) * 5
    assert group_sizes(1_000_000, 5) == (5,)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_checkpoints_build_sound_packs(tmp_path: Path, dtype: str) -> None:
    assert verify(built(tmp_path, dtype=dtype)).good


@pytest.mark.parametrize("ladder", [(2, 4), (3, 5, 7), (4,), (2, 3, 4, 5, 6, 7, 8)])
def test_other_ladders_build_sound_packs(tmp_path: Path, ladder: tuple[int, ...]) -> None:
    path = built(tmp_path, BuildOptions(ladder=ladder))
    with PackReader.open(path) as reader:
        assert reader.manifest.ladder == ladder
    assert verify(path).good


def test_products_have_side_inputs_only_where_some_layer_needs_them(tmp_path: Path) -> None:
    with PackReader.open(built(tmp_path / "far", far=2)) as reader:
        sides = {side.name for kind in reader.manifest.kinds for side in kind.side}
        assert "down" in sides
        for name in sides:
            kind = "ffn" if name in ("up", "down") else "attention"
            assert all(
                reader.has_resident(f"layer.{layer}.{kind}.{name}_{part}")
                for layer in range(TINY.layers)
                for part in ("idx", "w")
            )
    with PackReader.open(built(tmp_path / "near", far=0)) as reader:
        near = {side.name for kind in reader.manifest.kinds for side in kind.side}
    assert "down" not in near


def gains(path: Path) -> dict[tuple[int, str], np.ndarray]:
    with PackReader.open(path) as reader:
        return {
            (group.layer, group.kind): np.array([plane.gains for plane in group.planes])
            for group in reader.manifest.groups
        }


def test_gains_differ_and_planes_lie_in_their_order(tmp_path: Path) -> None:
    path = built(tmp_path)
    for found in gains(path).values():
        assert found.shape == (5, TINY.heads)
        assert (found >= 0).all()
        assert all(len(set(row)) == TINY.heads for row in found)
        lower_planes_matter_more = found[0] > found[2]
        assert lower_planes_matter_more.all()
    with PackReader.open(path) as reader:
        for group in reader.manifest.groups:
            assert group.planes[0].order == tuple(range(TINY.heads))
            for plane in group.planes[1:]:
                ranked = [plane.gains[index] for index in plane.order]
                assert ranked == sorted(ranked, reverse=True)


def test_a_slice_that_adds_nothing_is_no_loss_when_absent(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint")
    name = "encoder.layer.0.output.dense.weight"
    weights = load_file(tmp_path / "checkpoint" / "model.safetensors")[name]
    quiet = weights.copy()
    quiet[:, TINY.inner // TINY.heads * 2 : TINY.inner // TINY.heads * 3] = 0
    change_tensor(tmp_path / "checkpoint", name, quiet)
    build(tmp_path / "checkpoint", tmp_path / "out", BuildOptions())
    found = gains(tmp_path / "out")[0, "ffn"]
    assert found[0, 2] == 0
    assert (found[0, [0, 1, 3]] > 0).all()


def test_importance_depends_on_the_calibration_text(tmp_path: Path) -> None:
    plain = built(tmp_path)
    texts = tmp_path / "texts"
    texts.write_text("dog dog dog\n\ncat under the table\n")
    other = tmp_path / "other"
    build(tmp_path / "checkpoint", other, BuildOptions(calibration=texts))
    first, second = gains(plain)[0, "attention"], gains(other)[0, "attention"]
    assert not np.array_equal(first, second)
    np.testing.assert_allclose(np.log(second[:2] / first[:2]), 0, atol=1.5)


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xff\xfe\xff"])
def test_calibration_without_text_is_refused(tmp_path: Path, content: bytes) -> None:
    texts = tmp_path / "texts"
    texts.write_bytes(content)
    with pytest.raises(InputError, match="texts: "):
        built(tmp_path, BuildOptions(calibration=texts))


@pytest.mark.parametrize(
    "options",
    [
        BuildOptions(ladder=()),
        BuildOptions(ladder=(4, 2)),
        BuildOptions(ladder=(1, 2)),
        BuildOptions(ladder=(2, 9)),
        BuildOptions(grid_sigmas=0.0),
        BuildOptions(grid_sigmas=float("nan")),
        BuildOptions(name="\udcff"),
        BuildOptions(slices=3),
    ],
)
def test_impossible_options_are_refused_and_leave_nothing(
    tmp_path: Path, options: BuildOptions
) -> None:
    with pytest.raises(StiError) as caught:
        built(tmp_path, options)
    assert caught.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_failure_halfway_leaves_an_older_pack_untouched(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint")
    bad = np.full((TINY.hidden, TINY.inner), np.nan, np.float32)
    change_tensor(tmp_path / "checkpoint", "encoder.layer.1.output.dense.weight", bad)
    (tmp_path / "out").write_text("older")
    with pytest.raises(CheckpointError, match=r"encoder\.layer\.1\.output\.dense\.weight.*NaN"):
        build(tmp_path / "checkpoint", tmp_path / "out", BuildOptions())
    assert (tmp_path / "out").read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "out"]


def test_a_header_longer_than_headers_may_be_is_refused_before_anything_is_written() -> None:
    with PackReader.open(tiny_pack("classification")) as reader:
        manifest = reader.manifest._replace(groups=())
        gamma = reader.resident("embed.gamma")
    stream = io.BytesIO()
    long = manifest._replace(notes={"said": "a" * MOST_HEADER_BYTES})
    with pytest.raises(InputError, match=r"header .* bytes, more than 1048576; .* notes"):
        PackWriter(stream, long, {"embed.gamma": gamma})
    assert not stream.getvalue() and not stream.tell()
    short = manifest._replace(notes={"said": "a" * (MOST_HEADER_BYTES - 32768)})
    PackWriter(stream, short, {"embed.gamma": gamma})


def test_a_vocabulary_that_no_reader_takes_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint")
    words = (tmp_path / "checkpoint" / "vocab.txt").read_text(encoding="utf-8").splitlines()
    words[-1] = "a" * 2000
    (tmp_path / "checkpoint" / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    with pytest.raises(PackFormatError, match="the new pack: tokenizer: a word has more than 512"):
        build(tmp_path / "checkpoint", tmp_path / "out", BuildOptions(), progress=False)
    assert not (tmp_path / "out").exists()


def test_the_checkpoint_cannot_be_overwritten(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="is read for this pack"):
        build(tmp_path, tmp_path / "model.safetensors", BuildOptions())
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_an_output_that_cannot_be_a_file_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint")
    os.mkfifo(tmp_path / "pipe")
    for output, message in [
        (tmp_path, "is a directory"),
        (tmp_path / "no" / "pack", "no such directory"),
        (tmp_path / "pipe", "is not a regular file"),
    ]:
        with pytest.raises(InputError, match=message):
            build(tmp_path / "checkpoint", output, BuildOptions())


FULL_DISK = """
import resource, sys
from shard_tools.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.exit(main(["build", sys.argv[1], "-o", sys.argv[2]]))
"""


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path / "checkpoint", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "out: cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with replacing_pack(path) as stream:
        stream.write(b"half")
        assert not path.exists()
        stream.write(b" and half")
    assert path.read_bytes() == b"half and half"
    with pytest.raises(ZeroDivisionError), replacing_pack(path) as stream:
        stream.write(b"other %d" % (1 // 0))
    assert path.read_bytes() == b"half and half"
    assert [item.name for item in tmp_path.iterdir()] == ["new"]


def test_what_is_read_for_a_pack_is_not_overwritten(tmp_path: Path) -> None:
    data = tmp_path / "data.tsv"
    data.write_text("mine")
    (tmp_path / "link").symlink_to(data)
    for output in (data, tmp_path / "link"):
        with pytest.raises(InputError, match="is read for this pack"):
            check_output(output, apart=[data])


def test_a_pack_that_has_no_room_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"MB or more are needed, .* are free"):
        check_output(tmp_path / "pack", 10**18)


def test_a_directory_that_takes_no_files_is_told() -> None:
    with (
        pytest.raises(InputError, match="nothing can be written there"),
        replacing_pack(Path("/proc/self/new")),
    ):
        pass


def test_a_licence_comes_from_the_model_card(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint")
    card = tmp_path / "checkpoint" / "README.md"

    def licence(options: BuildOptions) -> str:
        return build(tmp_path / "checkpoint", tmp_path / "out", options).manifest.licence

    assert licence(BuildOptions()) == ""
    card.write_text("---\nlanguage: en\nlicense: apache-2.0\n---\nlicense: other\n")
    assert licence(BuildOptions()) == "apache-2.0"
    assert licence(BuildOptions(licence="mit")) == "mit"
    card.write_text("no front matter\nlicense: x\n")
    assert licence(BuildOptions()) == ""


@settings(max_examples=60)
@given(st.lists(st.floats(-6, 6, width=32), min_size=1, max_size=20))
def test_the_error_function_is_right_to_2e_7(values: list[float]) -> None:
    found = reference.erf(np.array(values, np.float32))
    np.testing.assert_allclose(found, [math.erf(value) for value in values], atol=4e-7)


def test_float_attention_equals_a_loop_over_heads_and_sentences() -> None:
    rng = np.random.default_rng(3)
    heads, hidden, size, lengths = 3, 8, 4, (5, 2)
    x = rng.standard_normal((7, hidden), np.float32)
    query, key, value = rng.standard_normal((3, heads, hidden, size), np.float32)
    output = rng.standard_normal((heads, size, hidden), np.float32)
    query_bias, value_bias = rng.standard_normal((2, heads, 1, size), np.float32)
    expected = np.zeros((heads, *x.shape))
    for head in range(heads):
        for start, stop in ((0, 5), (5, 7)):
            part = x[start:stop]
            q, k = part @ query[head] + query_bias[head], part @ key[head] + 3.0
            weights = np.exp(q @ k.T)
            weights /= weights.sum(axis=1, keepdims=True)
            mixed = weights @ (part @ value[head] + value_bias[head])
            expected[head, start:stop] = mixed @ output[head]
    found = reference.attention(
        x,
        lengths,
        query=query,
        key=key,
        value=value,
        output=output,
        query_bias=query_bias,
        value_bias=value_bias,
    )
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "at_one"), [("gelu", 0.8413447), ("gelu_new", 0.8411920), ("relu", 1.0)]
)
def test_activations(kind: str, at_one: float) -> None:
    found = reference.activate(np.array([-40.0, 0.0, 1.0, 40.0], np.float32), kind)
    np.testing.assert_allclose(found, [0.0, 0.0, at_one, 40.0], atol=2e-6)


def test_the_benchmark_of_build_costs_reports_its_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path)
    arguments = ["--checkpoint", str(tmp_path), "--repeats", "2", "--output", "json"]
    assert build_cost.main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    builds, limits = report["tables"]
    assert [row["build"] for row in builds["rows"]] == ["1", "2", "floor: read and write"]
    assert all(row["peak MB"] > 20 for row in builds["rows"][:2])
    assert [row["limit on"] for row in limits["rows"]] == ["seconds", "peak MB"]
    with pytest.raises(RuntimeError, match=r"exit 2\n.*no such directory"):
        build_cost.measure(tmp_path / "nothing", tmp_path / "out")
