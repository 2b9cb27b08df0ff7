# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Photographs as training reads them: at natural resolution, decoded once, random windows cut on the training device.

    python -m training.photos select --large photos1024.tar photos.tar --captioned flickr8k.tar --out CARRY
    python -m training.photos unpack CARRY PHOTOS

``select`` leaves out what is held out for measuring and writes ``photos.tar`` (files as they are, shuffled, up to
``--megabytes``), ``captions.json`` (token ids, renumbered) and ``words.safetensors`` (their vectors); ``unpack``
decodes them to ``photos.u8`` (RGB bytes one picture after another) and ``photos.json``. Held out: of ``photos1024.tar``
every tenth picture by name, of all others the last tenth.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

SUFFIXES = {".avif", ".jpg", ".jpeg", ".png", ".webp"}
LARGE = 512
"""Photographs with a longer side below this are left out of the large ones: they are soft or squashed."""
CAPTIONS, LONGEST = 5, 32
"""Captions a photo and tokens a caption; longer ones are cut."""
CAPTIONED = 192, 256
"""Short and long side of captioned photographs, which are stored squashed."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class TarPhoto:
    """A file of a tar, and for a captioned one its width over its height and captions."""

    name: str
    data: bytes
    aspect: float = 0.0
    captions: tuple[str, ...] = ()


def read_source(path: Path) -> list[tuple[str, bytes]]:
    """All images of a tar or a folder as ``(name, encoded bytes)``, sorted by name."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        return [(str(p.relative_to(path)), p.read_bytes()) for p in files]
    with tarfile.open(path) as tar:
        members = [m for m in tar if m.isfile() and Path(m.name).suffix.lower() in SUFFIXES]
        return sorted((m.name, _bytes(tar, m)) for m in members)


def held_out(names: list[str], tar: str) -> set[str]:
    """What to measure on, of the sorted ``names`` in a tar."""
    if Path(tar).name.startswith("photos1024"):
        return set(names[::10])
    return set(names[int(len(names) * 0.9) :])


def read_tar(path: Path, held: bool = False) -> Iterator[TarPhoto]:
    """The training pictures of a tar by name, or those held out."""
    with tarfile.open(path) as tar:
        members = {m.name: m for m in tar if m.isfile()}
        captions = next((n for n in members if n.endswith("captions.jsonl")), None)
        said = {}
        if captions:
            said = {row["file"]: row for row in map(json.loads, _bytes(tar, members[captions]).splitlines())}
        names = sorted(n for n in members if Path(n).suffix.lower() in SUFFIXES)
        out = held_out(names, path.name)
        for name in names:
            if (name in out) == held:
                row = said.get(Path(name).name, {})
                aspect = row.get("true_aspect") or (1.33 if row else 0.0)
                found = tuple(row.get("captions", ())[:CAPTIONS])
                yield TarPhoto(Path(name).name, _bytes(tar, members[name]), aspect, found)


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def decode(data: bytes, aspect: float = 0.0) -> Pixels:
    """RGB bytes; a squashed photograph of a known ``aspect`` gets about its true shape."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    if aspect:
        size = CAPTIONED[::-1] if aspect >= 1 else CAPTIONED
        image = image.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(image)


def select(
    large: list[Path], captioned: Path | None, out: Path, megabytes: float, share: float, seed: int = 1
) -> None:
    """Write what ``unpack`` reads. ``share`` of the size is for captioned photographs."""
    from picogram.models.store import text_model_file
    from picogram.text.lm.loading_lm import load_tokenizer

    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    big = [f for tar in large for f in read_tar(tar) if max(Image.open(io.BytesIO(f.data)).size) >= LARGE]
    small = list(read_tar(captioned)) if captioned else []
    split, said, spent = load_tokenizer().split, dict[str, Any](), 0.0
    with tarfile.open(out / "photos.tar", "w") as tar:
        for group, budget in ((big, megabytes * (1 - share)), (small, megabytes * share)):
            rng.shuffle(group)
            spent = 0.0
            for found in group:
                spent += len(found.data) + 1024
                if spent > budget * 1e6:
                    break
                info = tarfile.TarInfo(found.name)
                info.size = len(found.data)
                tar.addfile(info, io.BytesIO(found.data))
                if found.captions:
                    said[found.name] = [found.aspect, [split(c)[:LONGEST] for c in found.captions]]
    _write_words(said, out, text_model_file())
    print(f"{(out / 'photos.tar').stat().st_size / 1e6:.1f} MB, {len(said)} captioned, of {len(big)} large")


def _write_words(said: dict[str, Any], out: Path, model: Path) -> None:
    """Captions with token ids renumbered from 0, and the vectors of just these."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    used = sorted({i for _, captions in said.values() for ids in captions for i in ids}) or [0]
    number = {i: n for n, i in enumerate(used)}
    short = {k: [aspect, [[number[i] for i in ids] for ids in c]] for k, (aspect, c) in said.items()}
    (out / "captions.json").write_text(json.dumps(short))
    with safe_open(model, "pt") as tensors:
        rows = {n: tensors.get_tensor(n)[used].clone() for n in ("embedding", "embedding.scale")}
    save_file(rows, out / "words.safetensors")


def _decoded(job: tuple[str, bytes, float]) -> tuple[str, Pixels]:
    name, data, aspect = job
    try:
        return name, decode(data, aspect)
    except OSError as error:
        raise SystemExit(f"{name} cannot be decoded: {error}") from error


def unpack(carry: Path, out: Path, processes: int | None = None) -> None:
    """Decode a carried tar; rows of ``photos.json`` are ``[height, width, captions or null]``."""
    out.mkdir(parents=True, exist_ok=True)
    captions = carry / "captions.json"
    said = json.loads(captions.read_text()) if captions.exists() else {}
    jobs = []
    for path in sorted(carry.glob("photos*.tar")):
        with tarfile.open(path) as tar:
            jobs += [(m.name, _bytes(tar, m), said.get(m.name, [0.0])[0]) for m in tar if m.isfile()]
    if not jobs:
        raise SystemExit(f"{carry} has no photos*.tar with photographs in it")
    rows, scratch = [], out / "photos.u8.part"
    with scratch.open("wb") as file, ProcessPoolExecutor(processes) as pool:
        for name, pixels in pool.map(_decoded, jobs, chunksize=8):
            file.write(pixels.tobytes())
            rows.append([*pixels.shape[:2], said[name][1] if name in said else None])
    scratch.replace(out / "photos.u8")
    (out / "photos.json").write_text(json.dumps(rows))
    if (carry / "words.safetensors").exists():
        shutil.copy(carry / "words.safetensors", out)
    print(f"{len(rows)} photographs, {(out / 'photos.u8').stat().st_size / 1e6:.0f} MB")


@dataclass(frozen=True)
class PhotoBatch:
    """``originals [B, 3, H, W]`` 0..1; captions as ids ``[B, T]``, right-padded, and lengths ``[B]``."""

    originals: Tensor
    ids: Tensor
    lengths: Tensor


class PhotoBank:
    """All photographs in the memory of ``device``, as bytes; everything random comes from ``rng``."""

    def __init__(self, folder: Path, device: torch.device, rng: np.random.Generator) -> None:
        rows = json.loads((folder / "photos.json").read_text())
        self.device, self.rng = device, rng
        self.sizes = [(h, w) for h, w, _ in rows]
        self.captions = [c for *_, c in rows]
        self.offsets = np.concatenate(([0], np.cumsum([3 * h * w for h, w in self.sizes])))
        path = folder / "photos.u8"
        if path.stat().st_size != self.offsets[-1] or not rows:
            raise SystemExit(f"{path} is not what photos.json describes: unpack the photographs again")
        self.data = torch.from_numpy(np.memmap(path, np.uint8, "c")).to(device)
        areas = np.array([0.0 if c else h * w for h, w, c in rows])
        self.chance = areas / areas.sum()
        self.shaped = {
            wide: [i for i, (h, w, c) in enumerate(rows) if c and (w >= h) == wide] for wide in (True, False)
        }

    def picture(self, index: int) -> Tensor:
        """``[H, W, 3] uint8``, a view."""
        start, end = self.offsets[index : index + 2]
        return self.data[int(start) : int(end)].view(*self.sizes[index], 3)

    def windows(self, count: int, crop: int, natural: float = 0.6) -> PhotoBatch:
        """Square windows; ``natural`` of them as they are, the others shrunk to 0.5..1 of their size first."""
        rng, found = self.rng, []
        for index in rng.choice(len(self.sizes), size=count, p=self.chance):
            height, width = self.sizes[index]
            scale = 1.0 if rng.random() < natural else rng.uniform(0.5, 1.0)
            side = min(max(crop, round(crop / scale)), height, width)
            top, left = (int(rng.integers(extent - side + 1)) for extent in (height, width))
            part = self.picture(int(index))[top : top + side, left : left + side]
            found.append(self._float(part, (crop, crop)))
        none = torch.zeros(count, dtype=torch.long, device=self.device)
        return PhotoBatch(torch.stack(found), none[:, None][:, :0], none)

    def captioned(self, count: int, drop: float) -> PhotoBatch:
        """Whole photographs of one shape with a caption each, which is dropped with chance ``drop``."""
        rng = self.rng
        wide = bool(rng.random() < len(self.shaped[True]) / max(1, sum(map(len, self.shaped.values()))))
        rows = [int(i) for i in rng.choice(self.shaped[wide] or self.shaped[not wide], size=count)]
        found = [self._float(self.picture(i), self.sizes[i]) for i in rows]
        said = [self.captions[i][rng.integers(len(self.captions[i]))] for i in rows]
        said = [[] if rng.random() < drop else ids for ids in said]
        ids = torch.tensor([ids + [0] * (LONGEST - len(ids)) for ids in said], dtype=torch.long)
        lengths = torch.tensor([len(ids) for ids in said])
        return PhotoBatch(torch.stack(found), ids.to(self.device), lengths.to(self.device))

    def _float(self, part: Tensor, size: tuple[int, int]) -> Tensor:
        """``[h, w, 3] uint8`` to ``[3, *size]`` 0..1, mirrored half of the time."""
        x = part.permute(2, 0, 1).float().div_(255)
        if tuple(part.shape[:2]) != size:
            x = F.interpolate(x[None], size, mode="bicubic", antialias=True, align_corners=False)[0].clamp_(
                0, 1
            )
        return x.flip(2) if self.rng.random() < 0.5 else x


def bank(folder: Path, device: torch.device, seed: int) -> PhotoBank:
    """Photographs in the memory of a device; what is random comes from the seed."""
    return PhotoBank(folder, device, np.random.default_rng(seed))


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = made.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("select")
    verb.add_argument("--large", type=Path, nargs="+", required=True)
    verb.add_argument("--captioned", type=Path)
    verb.add_argument("--out", type=Path, required=True)
    verb.add_argument("--megabytes", type=float, default=1e6)
    verb.add_argument("--share", type=float, default=0.17, help="of the size for captioned photographs")
    verb = verbs.add_parser("unpack")
    verb.add_argument("carry", type=Path)
    verb.add_argument("out", type=Path)
    return made


def main() -> None:
    args = parser().parse_args()
    if args.verb == "select":
        select(args.large, args.captioned, args.out, args.megabytes, args.share)
    else:
        unpack(args.carry, args.out)


if __name__ == "__main__":
    main()
