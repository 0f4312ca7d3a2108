"""The manifest: what calibration adds to it, and packs that nothing was added to."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.errors import PackFormatError
from sti.model.manifest import Manifest, Submodel
from sti.model.quality import Quality, Rejection
from sti.pack.header import read_header
from sti.pack.manifest_reader import read_manifest
from sti.pack.pack_file import PackFile
from tests.support.brute_force import with_curves
from tests.support.paths import MODELS
from tests.support.synthetic import make_manifest

SHIPPED = MODELS / "all-MiniLM-L6-v2.sti.safetensors"
PLAIN = make_manifest(Random(5), submodels=[(1, 3, 0.5), (2, 2, 0.7)])
RANKED = with_curves(Random(2), PLAIN, share=1.0)._replace(
    task="classification",
    labels=("yes", "no"),
    submodels=(
        PLAIN.submodels[0]._replace(missing=(0.0, 1.0, 3.0), losses=(0.0, 0.25, 0.25)),
        PLAIN.submodels[1]._replace(missing=(0.0,), losses=(0.5,)),
        PLAIN.submodels[2],
    ),
    quality=Quality("accuracy", 500, 0.004, (0.0, 0.5, 2.0), (0.97, 0.9, 0.9)),
    rejection=Rejection("none of these", 1.3, 0.95, (0.0, 1.0), (0.6, 0.4)),
)


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """The text of the ranked manifest with something changed."""
    body = json.loads(RANKED.to_json())
    change(body)
    return json.dumps(body)


@pytest.mark.parametrize("manifest", [PLAIN, RANKED], ids=["plain", "ranked"])
def test_a_manifest_survives_its_text(manifest: Manifest) -> None:
    found = read_manifest(manifest.to_json(), where="here")
    assert found == manifest._replace(groups=())  # its groups are in the index
    assert "groups" not in json.loads(manifest.to_json())


def test_what_was_not_measured_is_not_mentioned() -> None:
    body = json.loads(PLAIN.to_json())
    assert not {"quality", "rejection"} & set(body)
    assert all(set(item) == {"depth", "width", "layers", "loss"} for item in body["submodels"])
    assert "missing" in json.loads(RANKED.to_json())["submodels"][0]


def test_the_manifest_of_a_pack_is_written_as_it_was() -> None:
    with PackFile(SHIPPED) as file:
        text, _, manifest = read_header(file)
    assert manifest.to_json() == text
    assert manifest.quality is None and manifest.rejection is None


def test_null_and_empty_curves_are_taken_for_none() -> None:
    def change(body: dict[str, Any]) -> None:
        body["submodels"][0] |= {"missing": [], "losses": []}
        body["quality"] = body["rejection"] = None

    found = read_manifest(changed(change), where="here")
    assert found.submodels[0] == PLAIN.submodels[0]
    assert found.quality is None and found.rejection is None


def test_members_of_a_later_release_are_ignored() -> None:
    def change(body: dict[str, Any]) -> None:
        body["mood"] = body["quality"]["mood"] = body["submodels"][0]["mood"] = "good"

    assert read_manifest(changed(change), where="here") == RANKED._replace(groups=())


def test_a_submodel_loses_what_its_curve_says_or_else_what_is_missing() -> None:
    plain = Submodel(1, 1, (0,), 0.5)
    assert plain.loss_at(0.0) == 0.5 and plain.loss_at(2.0) == 2.5
    assert plain.missing_at(2.5) == 2.0 and plain.missing_at(0.4) < 0.0
    curved = plain._replace(missing=(0.0, 1.0, 2.0), losses=(0.5, 0.5, 1.5))
    found = [curved.loss_at(missing) for missing in (0.0, 0.5, 1.0, 1.5, 2.0, 4.0)]
    assert found == [0.5, 0.5, 0.5, 1.0, 1.5, 3.5]
    assert [curved.missing_at(loss) for loss in (0.5, 1.0, 3.5)] == [1.0, 1.5, 4.0]


MALFORMED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a curve without losses": (lambda m: m["submodels"][0].pop("losses"), "2x3: .* length"),
    "a curve without places": (lambda m: m["submodels"][0].pop("missing"), "2x3: .* length"),
    "curves of two lengths": (lambda m: m["submodels"][0]["losses"].pop(), "2x3: .* length"),
    "a curve from elsewhere": (
        lambda m: m["submodels"][0]["missing"].__setitem__(0, 0.5),
        "2x3: .* rise from 0",
    ),
    "a curve from another loss": (lambda m: m["submodels"][1].update(loss=0.4), "1x3: .* its loss"),
    "a place twice": (lambda m: m["submodels"][0].update(missing=[0.0, 1.0, 1.0]), "rise"),
    "a falling curve": (lambda m: m["submodels"][0].update(losses=[0.0, 0.3, 0.2]), "rise"),
    "a place that is text": (lambda m: m["submodels"][0].update(missing=["0"]), "'missing'"),
    "a submodel twice": (
        lambda m: m["submodels"].append(m["submodels"][2]),
        "submodel is listed twice",
    ),
    "quality of a list": (lambda m: m.update(quality=[1]), "quality: expected an object"),
    "another metric": (lambda m: m["quality"].update(metric="charm"), "'charm' is not one of"),
    "no examples": (lambda m: m["quality"].update(examples=0), "'examples'"),
    "half an example": (lambda m: m["quality"].update(examples=0.5), "'examples'"),
    "more examples than there are": (lambda m: m["quality"].update(examples=10**40), "examples"),
    "a residual beyond": (lambda m: m["quality"].update(residual=1e300), "residual .* at most 2"),
    "a residual below zero": (lambda m: m["quality"].update(residual=-0.1), "'residual'"),
    "no points": (lambda m: m["quality"].update(losses=[], values=[]), "quality.losses .* pair up"),
    "too few values": (lambda m: m["quality"]["values"].pop(), "quality.values .* pair up"),
    "losses that fall": (lambda m: m["quality"].update(losses=[0.0, 2.0, 0.5]), "must rise"),
    "a loss below zero": (lambda m: m["quality"].update(losses=[-1.0, 0.5, 2.0]), "must rise"),
    "values that rise": (lambda m: m["quality"].update(values=[0.9, 0.95, 0.9]), "must not rise"),
    "more than all": (lambda m: m["quality"].update(values=[1.1, 1.0, 0.9]), "between 0 and 1"),
    "less than none": (lambda m: m["quality"].update(values=[0.9, 0.1, -0.1]), "between 0 and 1"),
    "no label": (lambda m: m["rejection"].pop("label"), "'label'"),
    "no temperature": (lambda m: m["rejection"].update(temperature=0), "'temperature'"),
    "a share above one": (lambda m: m["rejection"].update(accepted=1.5), "rejection.accepted"),
    "no thresholds": (lambda m: m["rejection"].update(thresholds=[]), "rejection.thresholds"),
    "thresholds beyond": (lambda m: m["rejection"].update(thresholds=[0.5, 1.5]), "0 and 1"),
    "thresholds nowhere": (lambda m: m["rejection"].update(losses=[1.0, 1.0]), "must rise"),
    "rejecting an embedding": (lambda m: m.update(task="embedding"), "only for classification"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_measurements_that_make_no_sense_are_refused(case: str) -> None:
    change, message = MALFORMED[case]
    with pytest.raises(PackFormatError, match=rf"^my\.pack: manifest.*{message}"):
        read_manifest(changed(change), where="my.pack")


def test_a_correlation_may_be_negative() -> None:
    def change(body: dict[str, Any]) -> None:
        body["quality"] |= {"metric": "spearman", "values": [0.9, 0.1, -0.5]}

    quality = read_manifest(changed(change), where="here").quality
    assert quality is not None
    assert quality.estimate(9.0).value == -0.5


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 3, 10**400, 0.5, "", "accuracy", [], {}, [0], [[]], [0.0, 1.0]]),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4),
)


@given(
    place=st.sampled_from(
        [
            *((0, key) for key in ("loss", "missing", "losses", "layers", "depth", "width")),
            *(("quality", key) for key in ("metric", "examples", "residual", "losses", "values")),
            *(("rejection", key) for key in ("label", "temperature", "losses", "thresholds")),
        ]
    ),
    value=ODD,
)
def test_odd_measurements_are_refused_or_can_be_read_off(
    place: tuple[int | str, str], value: object
) -> None:
    def change(body: dict[str, Any]) -> None:
        part = body["submodels"] if isinstance(place[0], int) else body
        part[place[0]][place[1]] = value

    with suppress(PackFormatError):
        found = read_manifest(changed(change), where="here")
        assert found.quality is not None and found.rejection is not None
        for loss in (0.0, 0.3, 1e9):
            estimate = found.quality.estimate(loss)
            assert estimate.low <= estimate.value <= estimate.high
            assert 0.0 <= found.rejection.threshold(loss) <= 1.0
            assert found.submodels[0].loss_at(loss) >= 0.0


def test_groups_are_found_by_layer_kind_and_number() -> None:
    manifest = make_manifest(Random(5), layers=3, slices=5, groups=(3, 2))
    assert [len(kind.groups) for kind in manifest.kinds] == [3, 2]
    for group in manifest.groups:
        assert manifest.group(group.layer, group.kind, group.number) is group
        assert manifest.block(group.layer, group.kind)[group.number] is group
    blocks = [manifest.block(layer, kind.name) for layer in range(3) for kind in manifest.kinds]
    assert tuple(group for block in blocks for group in block) == manifest.groups
    for layer, kind, number in [
        (3, "ffn", 0),
        (-1, "ffn", 0),
        (0, "embed", 0),
        (0, "ffn", 2),
        (0, "attention", 3),
        (0, "attention", -1),
    ]:
        with pytest.raises(KeyError):
            manifest.group(layer, kind, number)


@pytest.mark.parametrize(
    ("width", "used"),
    [(0, (0, 0, 0)), (1, (1, 0, 0)), (2, (1, 1, 0)), (4, (1, 2, 1)), (9, (1, 2, 2))],
)
def test_a_group_knows_how_many_of_its_slices_a_width_uses(
    width: int, used: tuple[int, ...]
) -> None:
    manifest = make_manifest(Random(5), layers=1, slices=5, groups=(3, 1))
    assert tuple(group.used(width) for group in manifest.block(0, "attention")) == used
    assert [group.slices for group in manifest.block(0, "attention")] == [1, 2, 2]


def test_submodels_are_found_by_depth_and_width() -> None:
    for submodel in PLAIN.submodels:
        assert PLAIN.submodel(submodel.depth, submodel.width) is submodel
    assert PLAIN.submodel(2, 1) is None
