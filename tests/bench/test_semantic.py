# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Meanings of decoded pictures: cosines in a small joint space, and as columns of ``picogram bench``."""

from __future__ import annotations

import json
import math
from pathlib import Path

import byte_lm
import pytest
from joint_parts import Colours, heads
from PIL import Image, ImageFilter

from picogram.bench import comparison, semantic
from picogram.bench.measuring import Reference
from picogram.bench.report import BenchReport, BenchRow, load, markdown, save
from picogram.bench.semantic import Semantic
from picogram.cli.main import main
from picogram.errors import ModelMissing, UsageError
from picogram.metrics import weights
from picogram.semantics.joint import JointSpace, load_joint, similarity


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> JointSpace:
    return JointSpace(
        Colours(), byte_lm.model(), byte_lm.tokens(tmp_path_factory.mktemp("s")), heads(), "tiny"
    )


def test_the_picture_itself_means_the_same_and_less_of_it_less(space: JointSpace, photo: Image.Image) -> None:
    compare = Semantic(space).against(photo)
    damaged = [photo.filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 8, 40)]
    found = [compare(picture)["semantic"] for picture in damaged]
    assert found[0] == pytest.approx(1)
    assert found == sorted(found, reverse=True)
    assert found[2] < found[1] - 1e-4


def test_agreement_is_the_caption_with_what_was_decoded(space: JointSpace, photos: list[Image.Image]) -> None:
    found = Semantic(space).against(photos[0], "a woman smiles")(photos[1])
    expected = similarity(space.image([photos[1]]), space.text(["a woman smiles"]))
    assert found["agreement"] == pytest.approx(float(expected))
    other = Semantic(space).against(photos[0], "two boats")(photos[1])
    assert other["agreement"] != pytest.approx(found["agreement"])
    assert other["semantic"] == found["semantic"]


@pytest.mark.parametrize("caption", [None, "", "  "])
def test_without_a_caption_nothing_is_known_of_agreement(
    space: JointSpace, photo: Image.Image, caption: str | None
) -> None:
    found = Semantic(space).against(photo, caption)(photo)
    assert math.isnan(found["agreement"])
    assert found["semantic"] == pytest.approx(1)


def test_missing_models_name_the_command(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(semantic, "load_joint", load_joint.__wrapped__)  # another test may have loaded it
    with pytest.raises(ModelMissing, match="picogram models pull"):
        Semantic()
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    assert main(["bench", str(tmp_path), "--codecs", "jpeg", "--semantic", "-o", str(out)]) == 5
    assert "picogram models pull" in capsys.readouterr().err
    assert not out.exists()


# Reports


def row(image: str, **changes: float) -> BenchRow:
    return BenchRow(
        "avif", image, 0.03, 1474, 1400, 0.0285, False, 3, 2, 0.5, 0.25, 0.9, 25.5, 0.1, 0.5, **changes
    )


def report(space: str, *rows: BenchRow) -> BenchReport:
    about = {"avif": {"version": "1", "settings": {}}}
    pictures = {r.image: {"width": 8, "height": 8, "sha256": "0"} for r in rows}
    return BenchReport([0.03], about, pictures, list(rows), space=space)


def test_reports_name_the_space_and_the_direction(tmp_path: Path) -> None:
    made = report("joint-1", row("a.png", semantic=0.25, agreement=0.5), row("b.png", semantic=0.75))
    (mean,) = made.means()
    assert (mean.semantic, mean.agreement) == (0.5, 0.5)
    page = markdown(made)
    assert "| semantic↑ | agreement↑ |" in page
    assert "both in joint-1" in page
    save(made, tmp_path / "results.json")
    assert repr(load(tmp_path / "results.json")) == repr(made)


def test_reports_without_meanings_are_as_they_were(tmp_path: Path) -> None:
    made = report("", row("a.png"))
    assert "semantic" not in markdown(made)
    save(made, tmp_path / "results.json")
    document = json.loads((tmp_path / "results.json").read_text())
    assert "space" not in document
    assert not {"semantic", "agreement"} & (set(document["rows"][0]) | set(document["means"][0]))
    assert load(tmp_path / "results.json").space == ""


# The whole command


@pytest.mark.metrics
def test_bench_measures_meanings_and_reuses_them_only_in_the_same_space(
    tmp_path: Path, photo: Image.Image, space: JointSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        weights.pull(progress=False)
    except ModelMissing as error:
        pytest.skip(str(error))
    monkeypatch.setattr(comparison, "Semantic", lambda: Semantic(space))
    folder, table = tmp_path / "in", tmp_path / "captions.csv"
    folder.mkdir()
    photo.resize((176, 168)).save(folder / "photo.png")
    table.write_text("image_name,overall_description\nphoto.png,A woman.\n", encoding="utf-8")

    def run(
        name: str, reuse: str | None = None, meanings: bool = True, captions: Path | None = None
    ) -> BenchReport:
        earlier = tmp_path / reuse / "results.json" if reuse else None
        comparison.bench(folder, tmp_path / name, ["jpeg"], None, [0.5], earlier, meanings, captions)
        return load(tmp_path / name / "results.json")

    plain, first = run("plain", meanings=False), run("first", "plain", captions=table)
    assert (plain.space, first.space) == ("", "tiny")
    assert first.pictures["photo.png"]["caption"] == "A woman."
    assert 0 < first.rows[0].semantic < 1
    assert not math.isnan(first.rows[0].agreement)
    monkeypatch.setattr(Reference, "metrics", lambda *_: pytest.fail("measured again"))
    assert run("second", "first", captions=table).rows == first.rows
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        run("third", "plain")


def test_options_reach_the_benchmark_and_wrong_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr("picogram.bench.comparison.bench", lambda *options: calls.append(options))
    folder = str(tmp_path)
    assert main(["bench", folder, "--semantic", "--captions", "c.csv"]) == 0
    assert main(["bench", folder]) == 0
    assert [call[-2:] for call in calls] == [(True, Path("c.csv")), (False, None)]
    assert main(["bench", folder, "--captions", "c.csv"]) == 2
    assert main(["bench", folder, "--ablate", "--semantic"]) == 2


def test_captions_that_are_missing_are_told_before_any_work(tmp_path: Path, space: JointSpace) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    table = tmp_path / "captions.csv"
    table.write_text("image_name,overall_description\nb.png,A boat.\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"no caption of a\.png"):
        comparison.bench(tmp_path, tmp_path / "out", ["jpeg"], semantic=True, captions=table)
    assert not (tmp_path / "out").exists()
