# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The embedded captioner: EfficientNet-Lite0 sees, the language model writes (after Liu et al., LLaVA, 2023).

    photo ── 224 x 224 ── features: whole picture and 3 x 3 cells ── projector ── 10 embeddings ─┐
                                                       [soft prompt | picture | start | words ...] ── beam search

Objects come from the same features (``regions``); their details are captions of their crops. This runs on the writing
side only, so it uses floats.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from picogram.latent.codec import unpack_floats
from picogram.models import shipped_manifest, shipped_weights
from picogram.semantics.description import Description, Region
from picogram.semantics.features import FeatureNet, Features, load_features, preprocess
from picogram.semantics.regions import MASK_SIDE, find_regions
from picogram.text.lm.adapted import adapt
from picogram.text.lm.exact_lm import RESIDUAL_BITS, Cache, ExactLM
from picogram.text.lm.generate import BeamSearch, beam_search
from picogram.text.lm.loading_lm import load_exact_lm, load_tokenizer, unpack_prompts
from picogram.text.lm.tokens import LMTokenizer

CAPTIONER = 1
CELLS = 3
_BATCH = 8
_DETAIL_WORDS = 8
_DANGLING = frozenset(
    ("a", "an", "and", "at", "by", "for", "from", "has", "in", "is", "of", "on", "the", "to", "with")
)


class EmbeddedCaptioner:
    """Writes captions of photographs."""

    def __init__(
        self,
        model: ExactLM,
        tokens: LMTokenizer,
        net: FeatureNet,
        tensors: dict[str, Tensor],
        familiar: Collection[str] = (),
    ) -> None:
        """``tensors``: as ``training.words.export_captioner`` writes them; ``familiar``: names frequent in training."""
        self.tokens, self.net, self.search, self.familiar = tokens, net, BeamSearch(), frozenset(familiar)
        self.insist = True
        self.prompt = unpack_prompts(tensors)["caption"]
        self.vocabulary = tensors["vocabulary"].long()
        floats = unpack_floats(
            {k: v for k, v in tensors.items() if not k.startswith("prompt.") and k != "vocabulary"}
        )
        self.projector = {
            k.removeprefix("projector."): v for k, v in floats.items() if k.startswith("projector.")
        }
        self.model = adapt(model, {k.removeprefix("adapters."): v for k, v in floats.items()})

    @torch.inference_mode()
    def features(self, pictures: Sequence[Image.Image]) -> Features:
        """What the network sees in "RGB" pictures of any size."""
        found: Features = self.net(torch.stack([preprocess(p) for p in pictures]))
        return found

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = MASK_SIDE
    ) -> list[Description]:
        """A caption for each "RGB" picture, empty where nothing sensible came out, and up to three objects.

        ``side``: of the objects' masks; captions and names do not depend on it.
        """
        found: list[Description] = []
        for start in range(0, len(pictures), _BATCH):
            part = pictures[start : start + _BATCH]
            regions = [find_regions(self.net, picture, side=side) for picture in part]
            captions = self.captions(self.features(part))
            for picture, some, seen in zip(part, regions, captions, strict=True):
                caption = (
                    f"A photo of {_noun(some[0].name)}." if some and self._overlooks(seen, some) else seen
                )
                detailed = [replace(r, detail=self.detail(picture, r.name, r.mask)) for r in some if objects]
                found.append(Description(caption, tuple(detailed)))
        return found

    def _overlooks(self, caption: str, regions: Sequence[Region]) -> bool:
        """Whether a caption names none of the objects that were found and the surest is none it learned to name.

        On objects that are frequent in the training captions the captioner is right more often than the classifier; of
        others it invents stories, even if it is made to begin with their name.
        """
        named = any(region.name in caption.lower() for region in regions)
        return self.insist and not named and regions[0].name not in self.familiar

    def detail(self, picture: Image.Image, name: str, mask: npt.NDArray[np.bool_]) -> str:
        """What the model says of an object when it looks at the part of the picture around its mask.

        Empty for objects that the training captions hardly know.
        """
        if name not in self.familiar:
            return ""
        crop = picture.crop(_box(mask, *picture.size))
        [caption] = self.captions(self.features([crop]), [self.tokens.split(_noun(name, start=True))])
        words = caption.split()[1 + len(name.split()) :]
        phrase = re.split(r"[.,;:!?]", " ".join(words))[0].split()[:_DETAIL_WORDS]
        while phrase and phrase[-1] in _DANGLING:
            phrase.pop()
        return " ".join(phrase)

    def captions(
        self,
        features: Features,
        starts: Sequence[Sequence[int]] | None = None,
    ) -> list[str]:
        """A sentence for each picture of a batch; ``starts``: as for ``beam_search``."""
        starts = starts or [()] * len(features.pooled)
        seen = torch.cat((features.pooled[:, None], features.tokens(CELLS)), 1)
        x = torch.round(self._project(seen).double() * 2.0**RESIDUAL_BITS)
        room = self.prompt.shape[2] + x.shape[1] + self.search.longest + 1
        cache = Cache(self.model.config, len(x), room)
        for row in range(len(x)):
            cache.preset(row, self.prompt)
        self.model.forward(x, cache)
        texts = beam_search(self.model, cache, self.vocabulary, self.search, starts)
        return [sentence(self.tokens.join(ids)) if ids else "" for ids in texts]

    def _project(self, seen: Tensor) -> Tensor:
        """The trained ``FeatureProjector``: ``[B, n, 1280]`` to ``[B, n, width]``."""
        p = self.projector
        x = F.layer_norm(seen, seen.shape[-1:], p["norm.weight"], p["norm.bias"])
        x = F.gelu(F.linear(x, p["first.weight"], p["first.bias"]) + p["place"])
        x = F.linear(x, p["second.weight"], p["second.bias"])
        return F.layer_norm(x, x.shape[-1:]) * p["size"]


def _noun(name: str, start: bool = False) -> str:
    """A name with its article."""
    article = "an" if name[0] in "aeiou" else "a"
    return f"{article.capitalize() if start else article} {name}"


def _box(mask: npt.NDArray[np.bool_], width: int, height: int) -> tuple[int, int, int, int]:
    """The mask's bounding box in pixels, an eighth of the picture wider on every side: left, top, right, bottom."""
    side = len(mask)
    more = side // MASK_SIDE
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom = max(0, rows[0] - more), min(side, rows[-1] + 1 + more)
    left, right = max(0, cols[0] - more), min(side, cols[-1] + 1 + more)
    edges = left * width // side, top * height // side, -(-right * width // side), -(-bottom * height // side)
    return int(edges[0]), int(edges[1]), int(edges[2]), int(edges[3])


def sentence(text: str) -> str:
    """A caption as people write it: no space before punctuation, a capital first. Looping or wordless text gives ""."""
    text = re.sub(r"\s+([.,;:!?'])", r"\1", " ".join(text.split()))
    words = re.findall(r"[a-z']+", text.lower())
    if len(words) < 2 or len(set(words)) < len(words) / 2.5:
        return ""
    return text[0].upper() + text[1:]


@lru_cache(maxsize=1)
def load_captioner() -> EmbeddedCaptioner:
    """The embedded captioner, one per process. ModelMissing or ModelDamaged name the command that helps."""
    manifest = shipped_manifest(f"captioner-{CAPTIONER}")
    tensors = load_file(shipped_weights(manifest))
    net = load_features()
    return EmbeddedCaptioner(load_exact_lm(), load_tokenizer(), net, tensors, manifest["familiar"])
