# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures to descriptions, descriptions to text sections, and text sections back to descriptions.

    pictures ── describe ──> [Description] ── code ──> [TextSections]        into files
    [Picogram] ── read ──> [ReadText]                                        out of files
    captions ── hear ──> states        picture, words ── place ──> Focus     for the encoder alone

``Words`` loads the captioner and the language model when they are first needed; importing this costs nothing. Without
the language model, texts are coded by the coders that need none, and read if such a coder wrote them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from picogram.bitstream import Picogram
from picogram.errors import ModelError, ModelMissing, PicogramError
from picogram.semantics.description import Description, Region, objects_text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from picogram.latent.focus import Focus
    from picogram.text.coder import CodedText, TextCoder

_EXACT = "exact-lm"
_OBJECT_PROMPTS = ("objects", "dense", "plain")


class Captioner(Protocol):
    """Whatever describes pictures."""

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        """One description for each RGB picture; ``objects`` False: nobody needs them. ``side``: of their masks."""


@dataclass(frozen=True)
class TextSections:
    """What a description costs: the sections' bytes (None: no such section) and by section who coded it.

    ``coders``: names like "exact-lm/short" or "static".
    """

    caption: bytes | None = None
    objects: bytes | None = None
    coders: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def optional(self) -> dict[str, bytes]:
        """The sections that are there, by name."""
        both = {"caption": self.caption, "objects": self.objects}
        return {name: section for name, section in both.items() if section is not None}


@dataclass(frozen=True)
class ReadText:
    """What a file says, as far as it can be read; None: nothing.

    ``problems``: by section why it could not be read. ``warnings`` says the same in sentences.
    """

    description: Description | None
    coders: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    problems: dict[str, str] = field(default_factory=dict)


@dataclass
class _Reading:
    """A file's text sections on their way out."""

    texts: dict[str, bytes] = field(default_factory=dict)
    masks: bytes = b""
    coders: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


class Words:
    """Captioner and text coder together. Safe to share between threads."""

    def __init__(self, coder: TextCoder | None = None, captioner: Captioner | None = None) -> None:
        """``coder``, ``captioner``: to be used instead of the models that are pulled."""
        self._coder, self._captioner = coder, captioner
        self._lock = Lock()

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        """A description of each RGB picture, of any size; captions may come out empty.

        ``objects`` False saves the time that objects take. ``side``: of the objects' masks, one of MASK_SIDES.

        Raises ModelMissing or ModelDamaged, with the command that helps, if the captioner's models are not here.
        """
        with self._lock:
            if self._captioner is None:
                self._captioner = _load_captioner()
        return self._captioner.describe(pictures, objects, side)

    def code(self, descriptions: Sequence[Description]) -> list[TextSections]:
        """The shortest sections for each description: always a caption, objects only if there are some.

        Raises UsageError for texts that cannot be coded and ModelDamaged.
        """
        from picogram.text.coder import PULL_COMMAND, TextCoder

        warnings: tuple[str, ...] = ()
        try:
            coder = self._text_coder()
        except ModelMissing:
            coder = TextCoder()
            warnings = (f"coded without the language model, in more bytes: run `{PULL_COMMAND}`",)
        of_captions = _coded_once(coder, [d.caption for d in descriptions])
        of_objects = _coded_once(
            coder, [objects_text(d.objects) for d in descriptions if d.objects], _OBJECT_PROMPTS
        )
        return [
            _sections(d, of_captions[d.caption], of_objects.get(objects_text(d.objects)), warnings)
            for d in descriptions
        ]

    def read(self, files: Sequence[Picogram]) -> list[ReadText]:
        """What each file says. A text that cannot be read is left out, with a warning; nothing is raised for it."""
        readings = [_taken_apart(file) for file in files]
        waiting = [(reading, name) for reading in readings for name in reading.texts]
        sections = [reading.texts[name] for reading, name in waiting]
        exact = any(reading.coders[name] == _EXACT for reading, name in waiting)
        found: dict[int, dict[str, str]] = {id(reading): {} for reading in readings}
        for (reading, name), text in zip(waiting, self._decode(sections, exact), strict=True):
            if isinstance(text, PicogramError):
                reading.problems[name] = str(text)
            else:
                found[id(reading)][name] = text
        return [_put_together(reading, found[id(reading)]) for reading in readings]

    def hear(self, captions: Sequence[str]) -> list[npt.NDArray[np.float16]]:
        """What a guided encoder hears of captions: ``[T, W]`` each. Raises ModelMissing or ModelDamaged."""
        if not captions:
            return []
        from picogram.semantics.joint import load_joint

        return [states.half().numpy() for states in load_joint().states(captions)]

    def place(self, picture: Image.Image, words: str) -> Focus:
        """Where an RGB picture shows what the words name. Raises ModelMissing or ModelDamaged."""
        from picogram.semantics.places import load_places

        return load_places().find(picture, words)

    def _text_coder(self) -> TextCoder:
        """The coder with the language model; ModelMissing or ModelDamaged without."""
        with self._lock:
            if self._coder is None:
                self._coder = _load_coder()
            return self._coder

    def _decode(self, sections: Sequence[bytes], exact: bool) -> list[str | PicogramError]:
        from picogram.text.coder import TextCoder

        problem: ModelError | None = None
        coder = self._coder or TextCoder()
        if exact:
            try:
                coder = self._text_coder()
            except ModelError as error:
                problem = error
        texts = coder.decode(sections)
        return [problem if problem and isinstance(text, ModelMissing) else text for text in texts]


@cache
def default_words() -> Words:
    """The instance that this process shares."""
    return Words()


def _load_captioner() -> Captioner:
    try:
        from picogram.semantics.captioner import load_captioner

        return load_captioner()
    except (ModuleNotFoundError, OSError) as error:
        raise _not_here(error) from error


def _load_coder() -> TextCoder:
    from picogram.text.coder import TextCoder

    try:
        from picogram.text.lm.loading_lm import load_lm_coder

        return TextCoder(load_lm_coder())
    except (ModuleNotFoundError, OSError) as error:
        raise _not_here(error) from error


def _coded_once(
    coder: TextCoder, texts: Sequence[str], kinds: Sequence[str] | None = None
) -> dict[str, CodedText]:
    """Each different text with its code; variants of a description have most of theirs in common."""
    different = list(dict.fromkeys(texts))
    return dict(zip(different, coder.encode(different, kinds=kinds), strict=True))


def _not_here(error: ModuleNotFoundError | OSError) -> ModelMissing:
    if isinstance(error, OSError):
        return ModelMissing(f"the models for words cannot be read: {error}")
    return ModelMissing(f'words need the module {error.name}: pip install "picogram-codec[text]"')


def _sections(
    description: Description, caption: CodedText, objects: CodedText | None, warnings: tuple[str, ...]
) -> TextSections:
    coders, section = {"caption": _coder_name(caption)}, None
    if objects:
        from picogram.semantics.objects import join_objects

        coders["objects"] = _coder_name(objects)
        section = join_objects(objects.section, description.objects)
    return TextSections(caption.section, section, coders, warnings)


def _coder_name(coded: CodedText) -> str:
    return f"{coded.coder}/{coded.kind}" if coded.kind else coded.coder


def _taken_apart(file: Picogram) -> _Reading:
    from picogram.text.coder import coder_of

    reading = _Reading(problems={name: "it is damaged" for name in file.damaged})
    for name, section in file.optional.items():
        try:
            text = section
            if name == "objects":
                from picogram.semantics.objects import split_objects

                text, reading.masks = split_objects(section)
            reading.coders[name] = coder_of(text)
            reading.texts[name] = text
        except PicogramError as error:
            reading.problems[name] = str(error)
    return reading


def _put_together(reading: _Reading, texts: dict[str, str]) -> ReadText:
    caption: str | None = None
    objects: tuple[Region, ...] = ()
    if "caption" in texts:
        try:
            caption = Description(texts["caption"]).caption
        except PicogramError as error:
            reading.problems["caption"] = str(error)
    if "objects" in texts:
        from picogram.semantics.objects import read_objects

        try:
            objects = read_objects(texts["objects"], reading.masks)
        except PicogramError as error:
            reading.problems["objects"] = str(error)
    names = {"caption": "the caption was left out", "objects": "the objects were left out"}
    warnings = tuple(f"{names[name]}: {problem}" for name, problem in sorted(reading.problems.items()))
    description = None if caption is None and not objects else Description(caption or "", objects)
    return ReadText(description, reading.coders, warnings, reading.problems)
