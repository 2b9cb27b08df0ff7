# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Any vision-language model that vLLM serves, as a captioner: pictures go in, descriptions come out.

    picture ── caption? ── one sentence
            ── objects? ── up to three names and places ── detail? of each

Answers are those of greedy decoding through the model's own chat template. What fails is dropped: an unusable caption
leaves the whole description empty, an unusable object is no region.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from picogram.errors import ModelError
from picogram.semantics.description import Description, Region
from picogram_lmm.cleaning import clean_caption, clean_detail, clean_name
from picogram_lmm.prompts import Question, question
from picogram_lmm.vllm_engine import prepare_process

MAX_OBJECTS = 3
MASK_SIDE = 8
_ALL = (0, 8)
_PARTS = {
    "top": ((0, 3), _ALL),
    "bottom": ((5, 8), _ALL),
    "left": (_ALL, (0, 3)),
    "right": (_ALL, (5, 8)),
    "center": ((2, 6), (2, 6)),
    "centre": ((2, 6), (2, 6)),
    "middle": ((2, 6), (2, 6)),
}
"""From and to which eighth of the rows and of the columns."""


class VllmCaptioner:
    """Describes pictures with a model of vLLM's, many at a time."""

    def __init__(self, model: str, objects: bool = True, **options: Any) -> None:
        """``model``: name or directory, for example ``Qwen/Qwen2.5-VL-3B-Instruct``; ``objects``: ask for them too.

        ``options`` go to ``vllm.LLM``. ModelError if vLLM cannot load the model.
        """
        prepare_process()
        from vllm import LLM

        settings: dict[str, Any] = {"enforce_eager": True, "limit_mm_per_prompt": {"image": 1}}
        try:
            self.llm = LLM(model=model, **(settings | options))
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"vLLM cannot load {model}: {str(error).splitlines()[0]}") from error
        self.objects = objects

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = MASK_SIDE
    ) -> list[Description]:
        """A description of each RGB picture, empty where the model had nothing usable to say. ``side``: of masks."""
        captions = [clean_caption(a) for a in self.ask(pictures, [question("caption")] * len(pictures))]
        regions: list[tuple[Region, ...]] = [()] * len(pictures)
        if self.objects and objects:
            regions = self._regions(pictures, [c is not None for c in captions], side)
        return [
            Description(c, found) if c else Description() for c, found in zip(captions, regions, strict=True)
        ]

    def ask(self, images: Sequence[Image.Image], questions: Sequence[Question]) -> list[str]:
        """The model's answers, as they are; every picture has its question."""
        from vllm import SamplingParams

        if not images:
            return []
        chats = [
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_pil", "image_pil": image.convert("RGB")},
                        {"type": "text", "text": asked.text},
                    ],
                }
            ]
            for image, asked in zip(images, questions, strict=True)
        ]
        params = [SamplingParams(temperature=0.0, max_tokens=asked.max_tokens) for asked in questions]
        outputs = self.llm.chat(chats, params, use_tqdm=False)
        return [output.outputs[0].text for output in outputs]

    def _regions(
        self, images: Sequence[Image.Image], wanted: Sequence[bool], side: int
    ) -> list[tuple[Region, ...]]:
        chosen = [i for i, want in enumerate(wanted) if want]
        answers = self.ask([images[i] for i in chosen], [question("objects")] * len(chosen))
        parsed = [(i, parse_objects(answer, side)) for i, answer in zip(chosen, answers, strict=True)]
        found = [(i, name, mask) for i, objects in parsed for name, mask in objects]
        asked = question("detail")
        details = self.ask(
            [images[i] for i, _, _ in found],
            [
                Question(asked.id, asked.version, asked.text.format(name=n), asked.max_tokens)
                for _, n, _ in found
            ],
        )
        regions: list[tuple[Region, ...]] = [()] * len(images)
        for (index, name, mask), detail in zip(found, details, strict=True):
            regions[index] += (Region(name, clean_detail(detail), mask),)
        return regions


def parse_objects(answer: str, side: int = MASK_SIDE) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Names and maps from lines like ``dog; bottom left``; what does not look like one is passed over."""
    found: dict[str, npt.NDArray[np.bool_]] = {}
    for line in answer.splitlines():
        head, *rest = re.split(r"[;:,(]| - ", line, maxsplit=1)
        name = clean_name(head)
        if name is not None and name not in found and len(found) < MAX_OBJECTS:
            found[name] = place_mask(rest[0] if rest else "", side)
    return list(found.items())


def place_mask(words: str, side: int = MASK_SIDE) -> npt.NDArray[np.bool_]:
    """The part of the picture that words like ``top left`` name, ``[side, side]``; all of it if they name none."""
    mask = np.ones((side, side), dtype=np.bool_)
    for word in dict.fromkeys(re.findall(r"[a-z]+", words.lower())):
        if word in _PARTS:
            part = np.zeros_like(mask)
            (top, bottom), (left, right) = _PARTS[word]
            part[top * side // 8 : bottom * side // 8, left * side // 8 : right * side // 8] = True
            mask = mask & part if (mask & part).any() else part
    return mask
