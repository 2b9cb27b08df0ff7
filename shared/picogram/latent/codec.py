# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The latent codec as it runs: pictures to latent sections and back, with shipped weights.

    picture ── pad to 64 ── analysis (tiles) ── gain(rate) ── integer prior ── rate byte + range-coded bytes
    caption, if the model has a text adapter ──┘                   └── focus: what matters less is rounded to zero sooner
    section ── integer prior ── / gain(rate) ── synthesis (tiles) ── crop ── picture

The section's first byte is the rate index, 0 to 255. Everything that touches the entropy coder is integer and stays on
the CPU; analysis and synthesis run on the codec's device, in float32, and may differ in the last bit between machines
without consequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor

from picogram.errors import CorruptBitstream, SelfCheckFailed
from picogram.latent.coding import decode_latents, encode_latents, estimate_bits
from picogram.latent.effort import Refined, Refinement
from picogram.latent.exact_prior import RATE_COUNT, ExactPrior, hyper_size
from picogram.latent.floating import twin
from picogram.latent.focus import Focus, importance
from picogram.latent.guide import AdapterConfig, Guide, Tokens
from picogram.latent.latent_codec import LatentCodec
from picogram.latent.prior import HYPER_FACTOR, Prior
from picogram.latent.tiling import scaled, tiles
from picogram.latent.transforms import STRIDE, TransformConfig
from picogram.models import DEFAULT_LATENT, latent_weights
from picogram.processor import Placement

Pixels = npt.NDArray[np.uint8]

ANALYSIS_HALO = 8
"""Latent positions that the analysis sees beyond a tile; at least its reach (checked by a test)."""
_PAD = STRIDE * HYPER_FACTOR
_FINER = 2
"""Positions of the features at stride 8 along a latent position."""
_PRIOR = "prior."


@dataclass(frozen=True)
class Analysed:
    """What can be computed of a picture before the rate is known: ``linear`` and ``features`` on the codec's device."""

    linear: Tensor
    features: Tensor
    height: int
    width: int
    dead_zone: Tensor | None = None
    picture: Pixels | None = None
    """``[16 height, 16 width, 3]``, its right and bottom edges repeated."""
    refined: Refined | None = None

    @property
    def rounding(self) -> Tensor | None:
        """The dead zone, which what is refined has behind it."""
        return None if self.refined else self.dead_zone


class PhotoCodec:
    """One latent model, ready to code pictures; stateless, so safe to share between threads."""

    def __init__(
        self,
        tensors: dict[str, Tensor],
        model: int,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        """``tensors``: a shipped model's; ``model``: its id; ``device``, ``dtype``: see ``Placement.of``, as for what it
        raises. ``dtype`` is that of the text adapter and of the search only."""
        self.placement = Placement.of(device, dtype)
        config = TransformConfig.of(tensors)
        net = LatentCodec(config, adapter=AdapterConfig.of(tensors)).requires_grad_(False).eval()
        floats = unpack_floats({k: v for k, v in tensors.items() if not k.startswith(_PRIOR)})
        net.load_state_dict(
            {k.replace("hyper_analysis.", _PRIOR, 1): v for k, v in floats.items()}, strict=False
        )
        self.model = model
        net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net = net
        self._integers = prior_tensors(tensors)
        self.prior = ExactPrior(self._integers, net.prior.config)
        self.halo = config.reach

    @property
    def device(self) -> torch.device:
        """Where analysis and synthesis run."""
        return self.placement.device

    @cached_property
    def twin(self) -> Prior:
        """The prior as floats, on the codec's device."""
        return twin(self._integers, self.prior.config).to(self.device)

    def _position(self, rate: float) -> Tensor:
        """``[1]``, as the networks take a rate 0..1."""
        return torch.tensor([rate], device=self.device)

    @torch.inference_mode()
    def analyse(self, picture: Pixels, guide: Guide | None = None, focus: Focus | None = None) -> Analysed:
        """``picture``: ``[H, W, 3] uint8``; ``guide``: its caption, on any device, of no effect on a model without a text
        adapter."""
        height, width = picture.shape[:2]
        if focus is not None:
            picture = focus.softened(picture)
        padded = np.pad(picture, ((0, -height % _PAD), (0, -width % _PAD), (0, 0)), mode="edge")
        adapter = self.net.adapter
        tokens = None
        if adapter:
            tokens = adapter.read((guide or Guide.none(1, adapter.config.text_width)).to(self.device))
        linear, features = self._look(padded, tokens)
        if adapter and tokens:
            # in float32 the adapter would take half of the time of an encode; no decoder depends on its last bits
            features = self._guided(features, adapter.heard(tokens, adapter.summary(features)))
        rows, cols = -(-height // STRIDE), -(-width // STRIDE)
        zone = focus.dead_zone(rows, cols) if focus else None
        return Analysed(linear, features, rows, cols, zone, padded[: rows * STRIDE, : cols * STRIDE])

    def _look(self, padded: Pixels, tokens: Tokens | None) -> tuple[Tensor, Tensor]:
        """The linear latent and the features at stride 16, or at stride 8 where words have still to shape them."""
        rows, cols = padded.shape[0] // STRIDE, padded.shape[1] // STRIDE
        scales = (1, 1 if tokens is None else _FINER)
        parts: list[Tensor] = []
        for row, col in tiles(rows, cols, ANALYSIS_HALO):
            window = padded[scaled(row.read, STRIDE), scaled(col.read, STRIDE)]
            x = torch.from_numpy(window).to(self.device).permute(2, 0, 1)[None].float().div_(255) - 0.5
            if self.net.adapter and tokens:
                with self.placement.autocast():
                    x = self.net.adapter.at_pixels(x, tokens)
                found = self.net.analysis.look(x)
            else:
                linear, fine = self.net.analysis.look(x)
                found = linear, self.net.analysis.narrow(fine)
            if not parts:
                shapes = [(part.shape[1], rows * n, cols * n) for part, n in zip(found, scales, strict=True)]
                parts = [
                    torch.empty(1, *s, memory_format=torch.channels_last, device=self.device) for s in shapes
                ]
            for whole, part, n in zip(parts, found, scales, strict=True):
                inner = part[:, :, scaled(row.inner, n), scaled(col.inner, n)]
                whole[:, :, scaled(row.keep, n), scaled(col.keep, n)] = inner
        linear, features = parts
        return linear, features

    def _guided(self, fine: Tensor, tokens: Tokens) -> Tensor:
        """From stride 8 to 16 with the words; each position for itself, so that tiles need no overlap."""
        assert self.net.adapter is not None  # noqa: S101 - without one there are no tokens
        rows, cols = fine.shape[2] // _FINER, fine.shape[3] // _FINER
        whole: Tensor | None = None
        for row, col in tiles(rows, cols, 0):
            part = fine[:, :, scaled(row.keep, _FINER), scaled(col.keep, _FINER)]
            with self.placement.autocast():
                part = self.net.adapter.at_features(part, tokens)
            part = self.net.analysis.narrow(part)
            if whole is None:
                whole = torch.empty(1, part.shape[1], rows, cols, device=self.device)
            whole[:, :, row.keep, col.keep] = part
        assert whole is not None  # noqa: S101 - there is at least one tile
        return whole

    def _latents(self, analysed: Analysed, rate: int) -> tuple[Tensor, Tensor]:
        """``y`` (cropped to what is coded) and ``z``, in steps of a rate index, on the CPU."""
        position = self._position(rate / (RATE_COUNT - 1))
        if analysed.refined:
            return (analysed.refined.y * self.net.gain(position)).cpu(), analysed.refined.z.cpu()
        y = self.net.analysis.after_rate(analysed.linear, analysed.features, position)
        y = y * self.net.gain(position)
        height, width = analysed.height, analysed.width
        hz, wz = hyper_size(height, width)
        z = self.net.prior.hyper_analysis(y)[:, :, :hz, :wz]
        return y[:, :, :height, :width].cpu(), z.cpu()

    def refinement(self, analysed: Analysed, rate: int) -> Refinement:
        """The search for better integers than rounding finds, at a rate index; see ``refined``."""
        if analysed.picture is None:
            raise ValueError("nothing is known of the original")
        with torch.no_grad():
            y, z = self._latents(analysed, rate)
            _, y = encode_latents(self.prior, y, z, [rate], analysed.rounding)
            mean, _ = self.twin.hyper_parameters(self._position(rate / (RATE_COUNT - 1)))
            start = y.float().to(self.device), (z.to(self.device) - mean).round() + mean
        zone = analysed.dead_zone
        weights = None if zone is None else importance(zone, analysed.height, analysed.width)
        reach, picture = self.prior.reach, analysed.picture
        return Refinement(
            self.net, self.twin, reach, picture, start, rate, self.halo, self.placement, weights
        )

    @torch.inference_mode()
    def section(self, analysed: Analysed, rate: int) -> bytes:
        """The latent section of a picture at a rate index 0..255, checked by decoding it."""
        y, z = self._latents(analysed, rate)
        strings, expected = encode_latents(self.prior, y, z, [rate], analysed.rounding)
        found = decode_latents(self.prior, strings, [rate], analysed.height, analysed.width)
        if not torch.equal(found, expected):
            raise SelfCheckFailed("the coded latent does not decode to itself on this machine")
        return bytes([rate]) + strings[0]

    @torch.inference_mode()
    def estimate(self, analysed: Analysed, rate: int) -> float:
        """Expected length of ``section`` in bytes, within a few."""
        y, z = self._latents(analysed, rate)
        return 1 + estimate_bits(self.prior, y, z, rate, analysed.rounding) / 8

    @torch.inference_mode()
    def steps(self, section: bytes, width: int, height: int) -> tuple[Tensor, int]:
        """The decoded latent ``[1, C, h, w] float64`` in steps, the same on every machine, and its rate index.

        CorruptBitstream if it cannot be.
        """
        if not section:
            raise CorruptBitstream("the latent section is empty")
        rate = section[0]
        rows, cols = -(-height // STRIDE), -(-width // STRIDE)
        return decode_latents(self.prior, [section[1:]], [rate], rows, cols), rate

    @torch.inference_mode()
    def decode(self, section: bytes, width: int, height: int) -> Pixels:
        """The picture ``[height, width, 3] uint8`` of a latent section; CorruptBitstream if it cannot be."""
        return self.synthesise(*self.latent(section, width, height), width, height)

    @torch.inference_mode()
    def latent(self, section: bytes, width: int, height: int) -> tuple[Tensor, float]:
        """The decoded latent ``[1, C, h, w]``, gains undone, on the codec's device; and its rate. Raises as ``steps``."""
        steps, rate = self.steps(section, width, height)
        position = rate / (RATE_COUNT - 1)
        return steps.float().to(self.device) / self.net.gain(self._position(position)), position

    @torch.inference_mode()
    def synthesise(self, y: Tensor, rate: float, width: int, height: int) -> Pixels:
        """The picture ``[height, width, 3] uint8`` of what ``latent`` gave."""
        rows, cols = y.shape[2:]
        position = self._position(rate)
        picture = np.empty((rows * STRIDE, cols * STRIDE, 3), np.uint8)
        for row, col in tiles(rows, cols, self.halo):
            out = self.net.synthesis(y[:, :, row.read, col.read], position)
            inner = out[0, :, scaled(row.inner, STRIDE), scaled(col.inner, STRIDE)]
            bytes_ = inner.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
            picture[scaled(row.keep, STRIDE), scaled(col.keep, STRIDE)] = (
                bytes_.permute(1, 2, 0).cpu().numpy()
            )
        return picture[:height, :width]


def prior_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The integers of a shipped model, as ``ExactPrior`` takes them."""
    return {k.removeprefix(_PRIOR): v for k, v in tensors.items() if k.startswith(_PRIOR)}


def unpack_floats(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo the storage format of the float networks: int8 with a scale per output channel (``NAME.scale``), or fp16."""
    unpacked = {}
    for name, value in tensors.items():
        scale = tensors.get(f"{name}.scale")
        if scale is not None:
            value = value.float() * scale.view(-1, *[1] * (value.dim() - 1))
        if not name.endswith(".scale"):
            unpacked[name] = value.float()
    return unpacked


def load_codec(
    model: int = DEFAULT_LATENT, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> PhotoCodec:
    """An installed model's codec, cached by model, device and dtype; the last two as ``Placement.of`` takes them.

    Raises UnknownModel, ModelMissing, ModelDamaged, and UsageError for a GPU that is not there.
    """
    return _loaded(model, Placement.of(device, dtype))


@lru_cache(maxsize=2)
def _loaded(model: int, placement: Placement) -> PhotoCodec:
    return PhotoCodec(load_file(latent_weights(model)), model, placement.device, placement.dtype)
