# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What the large diffusion models cost: seconds and memory of a step, by batch size, and images per second.

    python benchmarks/gpu_decoder.py --random --out gpu.json          full-size networks with random weights, no hub
    python benchmarks/gpu_decoder.py --models sd-turbo                the published weights, as the settings say
    python benchmarks/gpu_decoder.py --tiny                           the same code in seconds, on any CPU
    python benchmarks/gpu_decoder.py --paper                          operations and bytes, counted without running

A step is one pass of ControlNet and U-Net and one step of the scheduler; with guidance there are two passes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from picogram.diffusion.denoiser import BasePicture, Batch, Window
from picogram.diffusion.stages import Stage
from picogram_decoder.hub.blank import blank_parts
from picogram_decoder.hub.hub_denoiser import CELL, HubDenoiser
from picogram_decoder.hub.hub_load import load_hub_denoiser
from picogram_decoder.hub.hub_models import MODELS, HubModel

STEPS = {"many-step": (40, 2), "one-step": (1, 1)}
"""Steps and passes a step that images per second are told for."""
SIDES = (512, 768)


def batch_of(count: int, sides: tuple[int, int], steps: int) -> Batch:
    """Pictures of noise."""
    pictures = torch.rand(count, 3, *sides)
    bases = [BasePicture(picture, torch.zeros(1, 1, 1), 0.5) for picture in pictures]
    stages = [Stage(prompt="a photo", steps=steps, start=0.5, seed=n) for n in range(count)]
    return Batch(bases, pictures, pictures, stages)


def median(action: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Seconds of the median run, after one that warms up."""
    times = []
    for number in range(repeats + 1):
        _wait(device)
        begin = time.perf_counter()
        action()
        _wait(device)
        if number:
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


@torch.no_grad()
def measure(denoiser: HubDenoiser, count: int, sides: tuple[int, int], repeats: int) -> dict[str, Any]:
    """One batch size."""
    device = denoiser.device
    steps, passes = STEPS[denoiser.kind]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    batch = batch_of(count, sides, repeats + 1)
    texts = denoiser.read([stage.prompt for stage in batch.stages])
    process = denoiser.begin(batch)
    window = Window(0, 0, sides[0] // CELL, sides[1] // CELL)
    x, index = process.start(), 0

    def step() -> None:
        nonlocal x, index
        x = process.step(process.predict(x, index, texts, window), x, index)
        index += 1

    one = median(step, device, repeats)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    ends = median(lambda: denoiser.decode(denoiser.encode(batch.control)), device, 2)
    whole = steps * passes * one + ends
    return {
        "batch": count,
        "step_seconds": one,
        "encode_decode_seconds": ends,
        "images_per_second": count / whole,
        "step_peak_bytes": peak,
        "peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }


class LiveBytes(TorchDispatchMode):
    """The most bytes that the tensors made within held at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = {
            id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)
        }
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and id(leaf.untyped_storage()) not in inputs:
                storage = leaf.untyped_storage()
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return out

    def _add(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


def count_work(model: HubModel, sides: tuple[int, int], tera: float, single: float) -> dict[str, Any]:
    """Parameters, operations and bytes of one picture, and images per second at ``tera`` 10^12 operations a second in
    float16 and ``single`` in float32."""
    parts = blank_parts(model, device="meta", dtype=torch.float16)
    networks = {"unet": parts.unet, "control": parts.control, "vae": parts.vae}
    networks |= {f"text_encoder_{n + 1}": encoder for n, encoder in enumerate(parts.text_encoders)}
    kept = {name: network for name, network in networks.items() if network is not None}
    meta: dict[str, Any] = {"device": "meta", "dtype": torch.float16}
    latent = torch.empty(1, 4, sides[0] // CELL, sides[1] // CELL, **meta)
    picture = torch.empty(1, 3, *sides, device="meta", dtype=parts.vae.dtype)

    def one_pass(x: Tensor = latent) -> None:
        options: dict[str, Any] = {
            "encoder_hidden_states": torch.empty(1, 77, parts.unet.config.cross_attention_dim, **meta),
            "return_dict": False,
        }
        if model.text_encoders == 2:
            added = {"text_embeds": torch.empty(1, 1280, **meta), "time_ids": torch.empty(1, 6, **meta)}
            options["added_cond_kwargs"] = added
        moment = torch.empty((), device="meta")
        if parts.control is not None:
            cond = torch.empty(1, 3, *sides, **meta)
            down, mid = parts.control(x, moment, controlnet_cond=cond, **options)
            options |= {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        parts.unet(x, moment, **options)

    def gradient() -> None:
        with torch.enable_grad():
            one_pass(latent.clone().requires_grad_())

    def both_ends() -> None:
        parts.vae.decode(parts.vae.encode(picture).latent_dist.mode())

    steps, passes = STEPS[model.kind]
    unet, ends = _operations(one_pass), _operations(both_ends)
    seconds = steps * passes * unet / tera + ends / (single if model.upcast else tera)
    return {
        "parameters": {name: _size(network)[0] for name, network in kept.items()},
        "weights_bytes": sum(_size(network)[1] for network in kept.values()),
        "pass_operations": unet,
        "vae_operations": ends,
        "pass_bytes": _peak(one_pass),
        "gradient_pass_bytes": _peak(gradient),
        "vae_bytes": _peak(both_ends),
        "assumed_operations_per_second": {"float16": tera * 1e12, "float32": single * 1e12},
        "images_per_second": 1e12 / seconds,
    }


def _operations(action: Callable[[], None]) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        action()
    return int(counter.get_total_flops())


def _peak(action: Callable[[], None]) -> int:
    live = LiveBytes()
    with torch.no_grad(), live:
        action()
    return live.peak


def _size(network: Any) -> tuple[int, int]:
    """Parameters, and their bytes."""
    parameters = list(network.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() * p.element_size() for p in parameters)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _load(name: str, options: argparse.Namespace) -> HubDenoiser:
    if not (options.random or options.tiny):
        return load_hub_denoiser(name)
    cuda = torch.cuda.is_available()
    kind = torch.float16 if cuda and not options.tiny else torch.float32
    device = "cuda" if cuda else "cpu"
    return HubDenoiser(MODELS[name], blank_parts(MODELS[name], tiny=options.tiny, device=device, dtype=kind))


def _measured(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    denoiser = _load(name, options)
    sides = options.sides[0], options.sides[1]
    rows = [measure(denoiser, count, sides, options.repeats) for count in options.batches]
    for row in rows:
        row["gain"] = row["images_per_second"] / rows[0]["images_per_second"]
        print(
            f"{name:10} batch {row['batch']:3}: {row['step_seconds']:.3f} s a step, "
            f"{row['images_per_second']:.3f} images/s, {row['gain']:.2f} x of batch {rows[0]['batch']}, "
            f"{_memory(row['peak_bytes'])}"
        )
    return rows


def _memory(peak: int | None) -> str:
    return "memory not measured" if peak is None else f"peak {peak / 2**30:.2f} GiB"


def _paper(name: str, options: argparse.Namespace) -> dict[str, Any]:
    found = count_work(MODELS[name], (options.sides[0], options.sides[1]), options.tera, options.single)
    print(
        f"{name:10} {sum(found['parameters'].values()) / 1e9:.2f} G parameters, "
        f"{found['weights_bytes'] / 2**30:.2f} GiB; a pass {found['pass_operations'] / 1e12:.2f} T operations, "
        f"{found['pass_bytes'] / 2**20:.0f} MiB, with gradient {found['gradient_pass_bytes'] / 2**20:.0f} MiB; "
        f"VAE {found['vae_operations'] / 1e12:.2f} T, {found['vae_bytes'] / 2**20:.0f} MiB; "
        f"{found['images_per_second']:.2f} images/s at {options.tera:g} T/s"
    )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--sides", nargs=2, type=int, help="height and width in pixels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--tera", type=float, default=300.0, help="--paper: 10^12 operations a second assumed"
    )
    parser.add_argument("--single", type=float, default=40.0, help="--paper: the same in float32")
    parser.add_argument("--out", type=Path)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--random", action="store_true")
    kind.add_argument("--tiny", action="store_true")
    kind.add_argument("--paper", action="store_true")
    options = parser.parse_args(arguments)
    options.sides = options.sides or ((128, 192) if options.tiny else SIDES)
    one = _paper if options.paper else _measured
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    result = {
        "device": None if options.paper else device,
        "weights": next((k for k in ("random", "tiny", "paper") if getattr(options, k)), "published"),
        "sides": list(options.sides),
        "steps_and_passes": STEPS,
        "models": {name: one(name, options) for name in options.models},
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
