# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``picogram bench FOLDER --ablate``: what words are worth, at equal file sizes.

    folder ── find the words of all pictures ──> for each picture, profile, rate: files and drawings of all variants
          ──> OUT/ablation.json, ablation.md

Pictures are held one at a time; the features for KIDs wait in files.
"""

from __future__ import annotations

import hashlib
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from picogram.bench.codecs import package_version
from picogram.bench.compare import Measured
from picogram.bench.kid import kid
from picogram.bench.measuring import budget_bytes
from picogram.bench.result_tables import Ablation, markdown, save
from picogram.bench.subject import Drawn, Subject
from picogram.bench.verdicts import AblationRow, Kid
from picogram.bench.word_variants import Found, Variant, donors, find, read_captions, variants
from picogram.bitstream import parse
from picogram.diffusion.denoiser import Denoiser
from picogram.errors import BudgetTooSmall, UsageError
from picogram.models import shipped_manifest, weights_folder
from picogram.pipeline.prepare import sections_size
from picogram.profiles.registry import profile_named
from picogram.profiles.spec import ProfileSpec
from picogram.semantics.description import objects_text
from picogram.semantics.words import Words

PROFILES = ("stc", "misc", "sedic")
BPPS = (0.03,)
SEEDS = 3
MOST_SEEDS = 100


class _Against(Protocol):
    rows: tuple[Tensor, Tensor]

    def __call__(self, picture: Image.Image) -> Measured: ...


@dataclass(frozen=True)
class Tools:
    """What finds and codes words, what draws, and what measures: ``against(original)(picture)``."""

    words: Words
    denoiser: Denoiser
    against: Callable[[Image.Image], _Against]


@dataclass(frozen=True)
class Wish:
    """What to try. Raises UsageError for values out of range, UnsupportedProfile for a name that is none."""

    profiles: Sequence[str] = PROFILES
    bpps: Sequence[float] = BPPS
    seeds: int = SEEDS
    captions: Path | None = None
    specs: tuple[ProfileSpec, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        specs = tuple(profile_named(name) for name in self.profiles)
        for spec in specs:
            if not spec.sections:
                raise UsageError(f"profile {spec.name} has no words in its files to compare")
        if not specs or not self.bpps:
            raise UsageError("an ablation needs a profile and a rate")
        if not all(0 < bpp <= 24 for bpp in self.bpps):
            raise UsageError("rates are bits per pixel, above 0 and up to 24")
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise UsageError(f"seeds must be a whole number from 1 to {MOST_SEEDS}")
        object.__setattr__(self, "specs", specs)


def default_tools() -> Tools:
    """The models that are pulled and shipped. Raises ModelMissing and ModelDamaged."""
    from picogram.bench.compare import Networks
    from picogram.diffusion.embedded import load_denoiser
    from picogram.metrics import weights

    return Tools(Words(), load_denoiser(), Networks(weights.require()).against)


def ablate(
    paths: Sequence[Path],
    read: Callable[[Path], Image.Image],
    out: Path,
    wish: Wish,
    tools: Tools | None = None,
) -> Ablation:
    """Try all variants with all pictures; writes ``out``/ablation.json and .md.

    ``read``: file to RGB picture. Raises UsageError for fewer than two pictures, or if all have the same caption.
    """
    if len(paths) < 2:
        raise UsageError("an ablation needs at least two pictures: words are shuffled between them")
    captions = None if wish.captions is None else read_captions(wish.captions, [path.name for path in paths])
    console, begun = Console(stderr=True), time.process_time()
    tools = tools or default_tools()
    found = find(paths, read, wish.specs, tools.words, captions)
    ablation = Ablation(_settings(wish, tools.denoiser), program_versions(), model_digests())
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with (
        tempfile.TemporaryDirectory(prefix="picogram-ablate-") as scratch,
        Progress(*columns, console=console) as progress,
    ):
        run = _Run(ablation, wish, tools, found, _Features(Path(scratch)))
        task = progress.add_task("", total=len(paths) * len(wish.specs) * len(wish.bpps))
        for path in paths:
            picture = read(path)
            run.picture(path.name, picture, lambda: progress.advance(task))
            progress.update(task, description=path.stem)
            save(ablation, out / "ablation.json")  # what a run that is ended early has found
        run.kids()
    ablation.seconds = time.process_time() - begun
    save(ablation, out / "ablation.json")
    (out / "ablation.md").write_text(markdown(ablation), encoding="utf-8")
    return ablation


_Case = tuple[str, float, str, int]
"""Profile, bits per pixel, variant, seed."""


class _Features:
    """Rows of patches by case, on disk: there may be more of them than memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._widths: dict[tuple[str, str], int] = {}

    def add(self, case: str, which: str, rows: Tensor) -> None:
        """Append ``rows [N, D] float16`` of the network ``which``."""
        self._widths[case, which] = rows.shape[1]
        with self._path(case, which).open("ab") as file:
            file.write(np.ascontiguousarray(rows.numpy()).tobytes())

    def get(self, case: str, which: str) -> Tensor:
        """All rows, in float32."""
        flat = np.fromfile(self._path(case, which), np.float16)
        return torch.from_numpy(flat.reshape(-1, self._widths[case, which])).float()

    def _path(self, case: str, which: str) -> Path:
        return self._folder / f"{hashlib.sha256(case.encode()).hexdigest()[:24]}-{which}"


class _Run:
    """What a run carries from picture to picture."""

    def __init__(
        self, ablation: Ablation, wish: Wish, tools: Tools, found: Mapping[str, Found], features: _Features
    ) -> None:
        self._ablation, self._wish, self._tools = ablation, wish, tools
        self._found, self._features = found, features
        self._cases: dict[_Case, None] = {}

    def picture(self, name: str, picture: Image.Image, done: Callable[[], None]) -> None:
        """Add the rows of one picture; ``done`` after each profile and rate."""
        tools, ablation = self._tools, self._ablation
        ablation.pictures[name] = _about(name, picture, self._found)
        against = tools.against(picture)
        subject = Subject(picture, against, tools.words, tools.denoiser)
        tries = {spec: variants(name, self._found, spec) for spec in self._wish.specs}
        subject.code([v.said for some in tries.values() for v in some if v.said is not None])
        for spec, some in tries.items():
            for bpp in self._wish.bpps:
                self._one(name, subject, spec, bpp, some, against.rows)
                done()

    def _one(
        self,
        name: str,
        subject: Subject,
        spec: ProfileSpec,
        bpp: float,
        some: Sequence[Variant],
        original: tuple[Tensor, Tensor],
    ) -> None:
        """One picture in one profile at one rate: all variants, or none if one does not fit."""
        budget = budget_bytes(bpp, subject.picture.size)
        try:
            files = [subject.file(variant.said, spec, budget) for variant in some]
        except BudgetTooSmall as error:
            self._ablation.left_out.append(f"{name} as {spec.name} at {bpp:g} bpp, {error}")
            return
        self._keep(_originals(spec.name, bpp), original)
        for variant, data in zip(some, files, strict=True):
            seeds = range(self._wish.seeds) if variant.imagined else range(1)
            for seed in seeds:
                drawn = subject.draw(data, spec if variant.imagined else None, variant.drawn, seed)
                case = spec.name, bpp, variant.name, seed
                self._cases[case] = None
                self._keep(repr(case), (drawn.measured.efficient, drawn.measured.vgg))
                self._ablation.rows.append(_row(case, name, budget, data, drawn))

    def _keep(self, case: str, rows: tuple[Tensor, Tensor]) -> None:
        for which, some in zip(_NETWORKS, rows, strict=True):
            self._features.add(case, which, some)

    def kids(self) -> None:
        """Add the scores of all cases."""
        for case in self._cases:
            scores = [self._score(case, which) for which in _NETWORKS]
            self._ablation.kids.append(Kid(*case, *scores))

    def _score(self, case: _Case, which: str) -> float:
        real = self._features.get(_originals(case[0], case[1]), which)
        made = self._features.get(repr(case), which)
        return kid(real, made)[0] if min(len(real), len(made)) >= 2 else float("nan")


_NETWORKS = ("efficient", "vgg")


def _originals(profile: str, bpp: float) -> str:
    """The case of the originals; pictures that are left out differ by profile and rate."""
    return repr((profile, bpp))


def _row(case: _Case, name: str, budget: int, data: bytes, drawn: Drawn) -> AblationRow:
    profile, bpp, variant, seed = case
    measured = drawn.measured
    return AblationRow(
        profile,
        bpp,
        variant,
        name,
        seed,
        budget,
        len(data),
        sections_size(parse(data).optional),
        drawn.digest,
        measured.lpips,
        measured.dists,
        measured.psnr,
    )


def _about(name: str, picture: Image.Image, found: Mapping[str, Found]) -> dict[str, Any]:
    own = found[name]
    objects = next(iter(own.objects.values()), ())
    return {
        "width": picture.width,
        "height": picture.height,
        "sha256": hashlib.sha256(picture.tobytes()).hexdigest(),
        "caption": own.caption,
        "objects": objects_text(objects),
        "caption_when_shuffled": donors(name, found)[0],
    }


def _settings(wish: Wish, denoiser: Denoiser) -> dict[str, Any]:
    plans = {spec.name: asdict(spec.plans[denoiser.kind]) for spec in wish.specs}
    return {
        "profiles": list(wish.profiles),
        "bpps": list(wish.bpps),
        "seeds": wish.seeds,
        "captions": "the captioner" if wish.captions is None else wish.captions.name,
        "plans": plans,
    }


def program_versions() -> dict[str, str]:
    """Of what a measurement ran on."""
    return {
        "picogram": package_version(),
        "torch": torch.__version__,
        "Python": platform.python_version(),
    }


def model_digests() -> dict[str, str]:
    """SHA-256 of the weights in the package, by name."""
    found = {path.stem: shipped_manifest(path.stem) for path in sorted(weights_folder().glob("*.json"))}
    return {name: str(manifest["sha256"]) for name, manifest in found.items() if "sha256" in manifest}
