# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Ablations: whose words go where, equal budgets, drawings as the decoder makes them, verdicts that follow numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_diffusion import WORD_WIDTH, small_denoiser, small_table
from tiny_denoiser import CONFIG
from torch import Tensor

import picogram
from picogram.bench import codecs, result_tables
from picogram.bench.ablate import Tools, Wish, ablate
from picogram.bench.compare import Measured
from picogram.bench.measuring import to_tensor
from picogram.bench.subject import Subject
from picogram.bench.verdicts import (
    means,
    verdicts,
)
from picogram.bench.word_variants import Found, donors, other_maps, read_captions, shuffled, variants
from picogram.bitstream import parse
from picogram.cli.main import main
from picogram.diffusion.diffusion_net import DiffusionNet
from picogram.diffusion.embedded import EmbeddedDenoiser
from picogram.errors import UnsupportedProfile, UsageError
from picogram.images import read_image
from picogram.metrics.fidelity import psnr
from picogram.pipeline.draw import draw
from picogram.profiles import misc, sedic, stc
from picogram.profiles.spec import ProfileSpec
from picogram.request import DecodeOptions
from picogram.results import Decoded
from picogram.semantics.description import Description, Region
from picogram.semantics.words import Words
from picogram.text.coder import TextCoder

STC, MISC, SEDIC = stc.PROFILE, misc.PROFILE, sedic.PROFILE
BPP = 0.15


def region(name: str, row: int, side: int, detail: str = "") -> Region:
    mask = np.zeros((side, side), np.bool_)
    mask[row : row + side // 2, : side // 2] = True
    return Region(name, detail, mask)


def found(caption: str, *objects: tuple[str, str], row: int = 0) -> Found:
    by_side = {
        side: tuple(
            region(name, row * side // 8 + n, side, detail) for n, (name, detail) in enumerate(objects)
        )
        for side in (8, 16)
    }
    return Found(caption, by_side)


FOUND = {
    "a.png": found("A dog runs.", ("dog", "black"), ("ball", "")),
    "b.png": found("A red boat.", ("boat", "red, small"), row=3),
    "c.png": found("Snow on a hill."),
}
DESCRIBED = list(FOUND.values())


class Knows:
    """A captioner that says what FOUND does, picture by picture, by their sizes."""

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        some = [DESCRIBED[SIZES.index(picture.size)] for picture in pictures]
        return [Description(one.caption, one.objects[side] if objects else ()) for one in some]


SIZES = [(128, 96), (96, 128), (112, 96)]


class Compared:
    """Stands in for the networks: simple distances, and small pictures for features."""

    def __init__(self, original: Image.Image) -> None:
        self.original = original
        self.pictures: list[Image.Image] = []
        self.rows = _rows(original), _rows(original)

    def __call__(self, picture: Image.Image) -> Measured:
        self.pictures.append(picture)
        apart = float((to_tensor(picture) - to_tensor(self.original)).abs().mean())
        return Measured(apart, apart / 2, psnr(self.original, picture), _rows(picture), _rows(picture))


def _rows(picture: Image.Image) -> Tensor:
    return F.adaptive_avg_pool2d(to_tensor(picture), 4)[0].flatten(1).T.half()


@pytest.fixture(scope="module")
def denoiser() -> EmbeddedDenoiser:
    torch.manual_seed(1)
    net = DiffusionNet(replace(CONFIG, word_width=WORD_WIDTH)).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return small_denoiser(net, small_table())


@pytest.fixture(scope="module")
def words() -> Words:
    return Words(TextCoder(), Knows())


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, photos: list[Image.Image]) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    made = [folder / name for name in FOUND]
    for path, photo, size in zip(made, photos, SIZES, strict=False):
        photo.resize(size).save(path)
    return made


@pytest.fixture(scope="module")
def tools(words: Words, denoiser: EmbeddedDenoiser) -> Tools:
    return Tools(words, denoiser, Compared)


@pytest.fixture(scope="module")
def result(
    paths: list[Path], tools: Tools, tmp_path_factory: pytest.TempPathFactory
) -> result_tables.Ablation:
    out = tmp_path_factory.mktemp("out")
    wish = Wish(("stc", "misc"), (BPP,), seeds=2)
    # small pictures at a size that holds words have rates which the plans leave alone
    with pytest.MonkeyPatch.context() as patch:
        for spec in wish.specs:
            whole = replace(spec.plans["embedded"], finest=1.0)
            patch.setitem(spec.plans, "embedded", whole)
        done = ablate(paths, read_image, out, wish, tools)
    assert result_tables.load(out / "ablation.json") == done
    assert (out / "ablation.md").read_text(encoding="utf-8") == result_tables.markdown(done)
    return done


# Words


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("spec", [STC, MISC, SEDIC], ids=["stc", "misc", "sedic"])
def test_shuffled_words_are_another_pictures(count: int, spec: ProfileSpec) -> None:
    some = dict(list(FOUND.items())[:count])
    for name, own in some.items():
        tried = {variant.name: variant for variant in variants(name, some, spec)}
        said, right = tried["shuffled"].said, tried["correct"].said
        assert said is not None
        assert right is not None
        assert said.caption in {other.caption for key, other in some.items() if key != name}
        assert said.caption != own.caption
        assert [r.mask.tolist() for r in said.objects] == [r.mask.tolist() for r in right.objects]
        assert not {r.name for r in said.objects} & {r.name for r in right.objects}


def test_donors_without_a_caption_or_with_the_same_are_passed_over() -> None:
    some = {name: Found(text) for name, text in (("a", "One."), ("b", ""), ("c", "One."), ("d", "Two."))}
    assert [donors(name, some)[0] for name in some] == ["d", "d", "d", "c"]
    with pytest.raises(UsageError, match="no other picture"):
        donors("a", {"a": Found("One."), "b": Found("One.")})


def test_other_maps_keep_the_words_and_change_the_place() -> None:
    own, others = (
        FOUND["a.png"].description(MISC),
        [FOUND["c.png"].description(MISC), FOUND["b.png"].description(MISC)],
    )
    moved = other_maps(own, others)
    assert [(r.name, r.detail) for r in moved.objects] == [("dog", "black"), ("ball", "")]
    (there,) = others[1].objects
    assert all(np.array_equal(r.mask, there.mask) for r in moved.objects)
    assert other_maps(own, others[:1]) == own


def test_shuffling_where_nobody_else_has_objects_leaves_none() -> None:
    own, other = FOUND["a.png"].description(MISC), FOUND["c.png"].description(MISC)
    assert shuffled(own, [other]).objects == ()


def test_what_is_said_and_what_is_drawn() -> None:
    tried = {variant.name: variant for variant in variants("b.png", FOUND, SEDIC)}
    own, wrong = tried["correct"].said, tried["shuffled"].said
    assert own is not None
    assert (tried["ignored"].said, tried["ignored"].drawn) == (own, Description())
    assert (tried["shuffled when drawn"].said, tried["shuffled when drawn"].drawn) == (own, wrong)
    assert tried["caption only"].said == Description(own.caption)
    assert tried["names only"].said == Description(own.caption, (region("boat", 6, 16),))
    assert [len(r.mask) for r in own.objects] == [16]
    assert {name for name, variant in tried.items() if variant.said is None} == {"base", "no words"}
    assert "caption only" not in {variant.name for variant in variants("b.png", FOUND, STC)}


def test_captions_from_a_table(tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    table.write_text("image_name,overall_description\na.png, A dog. \nb.png,A boat.\n", encoding="utf-8")
    assert read_captions(table, ["b.png", "a.png"]) == {"b.png": "A boat.", "a.png": "A dog."}
    with pytest.raises(UsageError, match=r"no caption of c\.png"):
        read_captions(table, ["c.png"])
    table.write_text("name,text\na.png,A dog.\n", encoding="utf-8")
    with pytest.raises(UsageError, match="no column 'image_name'"):
        read_captions(table, ["a.png"])


# Runs


def test_all_variants_have_one_budget_and_keep_it(result: result_tables.Ablation) -> None:
    for name, (width, height) in zip(FOUND, SIZES, strict=True):
        rows = [row for row in result.rows if row.image == name]
        assert {row.budget for row in rows} == {int(BPP * width * height / 8)}
        assert all(row.words_bytes < row.bytes <= row.budget for row in rows)
        assert all(row.bytes > 0.9 * row.budget for row in rows)


def test_every_variant_is_measured_for_every_picture_and_seed(result: result_tables.Ablation) -> None:
    counts = {
        (mean.profile, mean.variant): (mean.pictures, mean.seeds) for mean in means(result.rows, result.kids)
    }
    assert len(counts) == 7 + 10
    assert all(count == (3, 1 if variant == "base" else 2) for (_, variant), count in counts.items())
    assert len(result.kids) == 2 * 1 + (6 + 9) * 2
    assert all(math.isfinite(score.kid + score.kid_vgg) for score in result.kids)


def test_words_cost_bytes_where_they_are_in_the_file(result: result_tables.Ablation) -> None:
    cost = {(mean.profile, mean.variant): mean.words_bytes for mean in means(result.rows, result.kids)}
    assert cost["misc", "base"] == cost["misc", "no words"] == 0
    assert 0 < cost["misc", "empty"] < 4 < cost["stc", "correct"]
    assert cost["misc", "caption only"] < cost["misc", "names only"] < cost["misc", "correct"]
    assert cost["misc", "correct"] == cost["misc", "ignored"] == cost["misc", "shuffled when drawn"]


def test_words_change_the_drawing_and_seeds_do(result: result_tables.Ablation) -> None:
    scores = {(r.profile, r.variant, r.image, r.seed): r.psnr for r in result.rows}
    for image in FOUND:
        seen = [scores["stc", name, image, 0] for name in ("correct", "ignored", "shuffled when drawn")]
        assert len(set(seen)) == 3
        assert scores["stc", "correct", image, 0] != scores["stc", "correct", image, 1]


def test_questions_about_objects_count_the_pictures_that_have_some(result: result_tables.Ablation) -> None:
    pictures = {
        (v.profile, v.question.subject): v.differences["lpips"].pictures for v in verdicts(result.rows)
    }
    assert pictures["misc", "text"] == 3
    assert pictures["misc", "objects"] == pictures["misc", "the right maps"] == 2
    assert pictures["misc", "details of objects"] == 2
    assert ("stc", "objects") not in pictures


def test_the_page_says_what_was_done(result: result_tables.Ablation) -> None:
    page = result_tables.markdown(result)
    assert "### misc at 0.15 bits per pixel" in page
    assert page.count("| shuffled when drawn |") == 2
    assert "- text, at equal bytes: " in page
    filled = result_tables.fill(f"# Title\n{result_tables.BEGIN}\nearlier\n{result_tables.END}\nEnd\n", page)
    assert "earlier" not in filled
    assert filled.startswith("# Title\n")
    assert filled.endswith(f"{result_tables.END}\nEnd\n")
    with pytest.raises(UsageError):
        result_tables.fill("# Title\n", page)


def test_results_say_which_words_and_weights_made_them(result: result_tables.Ablation) -> None:
    picture = result.pictures["b.png"]
    assert (picture["caption"], picture["objects"]) == ("A red boat.", "boat: red, small")
    assert picture["caption_when_shuffled"] in ("a.png", "c.png")
    assert {"latent-2", "diffusion-2", "captioner-1"} <= set(result.models)
    assert result.settings["plans"]["stc"]["overall"]["steps"] >= 1


@pytest.mark.parametrize("profile", ["stc", "sedic"])
@pytest.mark.parametrize("budget", [90, 400])
def test_drawings_are_the_decoders(
    photo: Image.Image, words: Words, denoiser: EmbeddedDenoiser, profile: str, budget: int
) -> None:
    spec = {"stc": STC, "sedic": SEDIC}[profile]
    said = FOUND["b.png"].description(spec)
    compared = Compared(photo)
    subject = Subject(photo, compared, words, denoiser)
    data = subject.file(said, spec, budget)
    assert words.read([parse(data)])[0].description == said
    for drawn, stated in ((said, spec), (Description(), spec), (None, None)):
        subject.draw(data, stated, drawn, seed=5)
        options = DecodeOptions(seed=5) if stated else DecodeOptions(steps=0)
        (expected,) = draw([parse(data)], [drawn], [options], denoiser=denoiser)
        assert isinstance(expected, Decoded)
        assert compared.pictures[-1].tobytes() == expected.picture.tobytes()


def test_nothing_is_drawn_twice(photo: Image.Image, words: Words, denoiser: EmbeddedDenoiser) -> None:
    compared = Compared(photo)
    subject = Subject(photo, compared, words, denoiser)
    said = Description("A woman.")
    files = [subject.file(said, spec, 300) for spec in (STC, MISC)]
    first, second = (subject.draw(data, spec, said, 1) for data, spec in zip(files, (STC, MISC), strict=True))
    assert first is second
    assert len(compared.pictures) == 1


def test_pictures_whose_words_do_not_fit_are_left_out_of_all_variants(
    paths: list[Path], words: Words, denoiser: EmbeddedDenoiser, tmp_path: Path
) -> None:
    table = tmp_path / "captions.csv"
    long = " ".join(f"word{n}" for n in range(200))
    table.write_text(
        f"image_name,overall_description\na.png,{long}\nb.png,A boat.\nc.png,A hill.\n", encoding="utf-8"
    )
    wish = Wish(("stc",), (0.1,), seeds=1, captions=table)
    done = ablate(paths, read_image, tmp_path, wish, Tools(words, denoiser, Compared))
    assert {sentence.split()[0] for sentence in done.left_out} == {
        "a.png",
        "c.png",
    }  # c.png by shuffled words
    assert {row.image for row in done.rows} == {"b.png"}


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_pictures_are_refused(
    paths: list[Path], tools: Tools, tmp_path: Path, count: int
) -> None:
    with pytest.raises(UsageError, match="at least two pictures"):
        ablate(paths[:count], read_image, tmp_path, Wish(), tools)


def test_wishes_that_make_no_sense_are_refused() -> None:
    wrongs: list[dict[str, Any]] = [
        {"profiles": ["base"]},
        {"profiles": []},
        {"bpps": [0]},
        {"seeds": 0},
        {"seeds": 101},
    ]
    for wrong in wrongs:
        with pytest.raises(UsageError):
            Wish(**wrong)
    with pytest.raises(UnsupportedProfile):
        Wish(profiles=["none"])


def test_options_of_one_kind_of_benchmark_are_refused_by_the_other(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert main(["bench", folder, "--seeds", "2"]) == 2
    assert main(["bench", folder, "--ablate", "--codecs", "jpeg"]) == 2
    assert main(["bench", folder, "--ablate", "--profiles", "base"]) == 2


def test_the_command_passes_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr("picogram.bench.comparison.ablation", lambda *options: calls.append(options))
    options = ["--profiles", "stc, misc", "--bpps", "0.02,0.03", "--seeds", "2", "--captions", "c.csv"]
    assert main(["bench", str(tmp_path), "--ablate", *options, "--limit", "4", "-o", "o"]) == 0
    assert main(["bench", str(tmp_path), "--ablate"]) == 0
    assert calls == [
        (tmp_path, Path("o"), 4, ["stc", "misc"], [0.02, 0.03], 2, Path("c.csv")),
        (tmp_path, Path("bench-results"), None, None, None, None, None),
    ]


# Codecs


def test_profiles_are_codecs_but_not_by_default(photo: Image.Image) -> None:
    assert codecs.NAMES[0] == "picogram"
    assert not any(name.startswith("picogram-") for name in (*codecs.NAMES, *codecs.available()))
    assert [codecs.make(f"picogram-{name}").settings for name in ("base", "stc")] == [
        {"steps": 0},
        {"profile": "stc"},
    ]
    small = photo.resize((96, 64))
    base = codecs.make("picogram-base")
    data = base.encode(small, 200)
    assert len(data) <= 200
    assert base.decode(data).tobytes() == picogram.decode(data, steps=0).tobytes()
