# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The three verbs: encode, decode, inspect. Models load on first use; importing this is cheap.

``encode_detailed`` and ``decode_detailed`` also return words and warnings. ``prepare`` and ``assemble`` are the steps of
encoding with words (``picogram.pipeline``), for workers of which each holds some of the models.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Unpack

import numpy as np
from PIL import Image

from picogram import images
from picogram.bitstream import Limits, Picogram, parse
from picogram.bitstream.container import section_sizes
from picogram.errors import UsageError
from picogram.pipeline.draw import Watch, draw
from picogram.pipeline.prepare import PreparedWords
from picogram.profiles.registry import profile_of
from picogram.request import DecodeArguments, DecodeOptions, EncodeArguments, EncodeOptions, options_of
from picogram.results import Decoded, Encoded
from picogram.semantics.description import Description, objects_text
from picogram.semantics.words import ReadText, Words, default_words

ImageSource = Image.Image | np.ndarray[Any, Any] | builtins.bytes | str | Path | BinaryIO


@dataclass(frozen=True)
class Section:
    """What one section costs, who coded it and, for a text section, what it says or why it cannot be read."""

    bytes: int
    bits: int
    bpp: float
    coder: str
    text: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Inspection:
    """What a file says of itself and where its bytes went. ``rate`` is the rate index 0..255.

    ``sections`` are sizes in bytes, ``details`` say more of each. ``checks`` says which checksums hold, "ok" or
    "damaged": of the ``file``, or of ``picture`` and ``words`` where there are text sections.
    """

    version: int
    profile: str
    width: int
    height: int
    downscale: int
    model: int
    rate: int
    file_bytes: int
    bpp: float
    header_bytes: int
    sections: dict[str, int]
    details: dict[str, Section] = field(default_factory=dict)
    checks: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def encode(
    image: ImageSource,
    options: EncodeOptions | None = None,
    *,
    words: Words | None = None,
    **arguments: Unpack[EncodeArguments],
) -> builtins.bytes:
    """Code an image as a whole ``.pico`` file.

    ``arguments`` are the fields of ``picogram.EncodeOptions``, unless these are given whole. At most one of ``bytes``
    (never exceeded), ``bpp`` (bits per original pixel, never exceeded) and ``quality`` (0 to 100); the default is
    quality 35. Profiles "stc", "misc" and "sedic" carry a ``caption``, the latter two ``objects`` (up to 3 with masks
    of side 8, up to 8 with masks of side 16, 32 or 64); None: what the captioner finds. All counts include them. The
    encoder of profile "taco" listens to a caption that is not in the file; "": to none. ``focus`` moves bits to what
    matters most, in any profile: words that name it ("the red boat"), or an array of weights 0..1 over the picture.
    ``effort`` 1 and 2 search long for a better file of the same size. Raises ImageError for bad images, UsageError for
    bad arguments, BudgetTooSmall where no file fits and ModelMissing where models for words are needed that have not
    been pulled.
    """
    return encode_detailed(image, options, words=words, **arguments).data


def encode_detailed(
    image: ImageSource,
    options: EncodeOptions | None = None,
    *,
    words: Words | None = None,
    **arguments: Unpack[EncodeArguments],
) -> Encoded:
    """``encode``, with the words and warnings.

    A captioner's words share a twentieth of the budget: details of objects go first, then objects, then the caption,
    with a warning each; without any words the file has profile base. What was given is never left out.
    """
    asked = options_of(EncodeOptions, options, arguments, "encode")
    picture = _read(image)
    (prepared,) = prepare([picture], [asked], words=words)
    return assemble(picture, prepared, asked)


def prepare(
    images: Sequence[ImageSource], asked: Sequence[EncodeOptions], *, words: Words | None = None
) -> list[PreparedWords]:
    """The words of images, coded together, all for one profile: captions and objects that are given, the captioner's
    where there is None; and what the encoder is to hear of them.

    Raises what ``encode`` does for bad images and captions. Loads no latent model.
    """
    from picogram.pipeline import prepare as step

    return step.prepare([_read(image) for image in images], asked, words or default_words())


def assemble(
    image: ImageSource,
    prepared: PreparedWords,
    options: EncodeOptions,
    progress: Callable[[float], None] | None = None,
) -> Encoded:
    """The file of an image whose words are ready. Loads no language model.

    ``progress`` hears how much of the search that ``effort`` asks for is done, 0 to 1, and may stop it by raising.

    Raises what ``encode`` does for bad images, BudgetTooSmall if words that were given do not fit.
    """
    from picogram.pipeline import assemble as step

    return step.assemble(_read(image), prepared, options, progress)


def decode(
    data: builtins.bytes,
    options: DecodeOptions | None = None,
    *,
    limits: Limits | None = None,
    **arguments: Unpack[DecodeArguments],
) -> Image.Image:
    """The picture of a ``.pico`` file: RGB, at its original size. Raises BitstreamError subclasses.

    ``arguments`` are the fields of ``picogram.DecodeOptions``, unless these are given whole; 0 ``steps`` give the base
    picture. Words are read only if the profile draws by them, and damaged ones do not matter.
    """
    asked = options_of(DecodeOptions, options, arguments, "decode")
    if asked.steps == 0:
        file = _parse(data, limits)
        profile_of(file).reading_notes(file)
        return _drawn(file, None, asked).picture
    return decode_detailed(data, asked, limits=limits).picture


def decode_detailed(
    data: builtins.bytes,
    options: DecodeOptions | None = None,
    *,
    limits: Limits | None = None,
    words: Words | None = None,
    watch: Watch | None = None,
    **arguments: Unpack[DecodeArguments],
) -> Decoded:
    """``decode``, with the words, how the picture was drawn, and warnings. Words that cannot be read are warnings, never
    errors.

    ``watch`` sees the base picture and the progress, and may stop the work by raising.
    """
    asked = options_of(DecodeOptions, options, arguments, "decode")
    file = _parse(data, limits)
    notes = profile_of(file).reading_notes(file)
    read = _read_words(file, words)
    return replace(_drawn(file, read.description, asked, watch), warnings=notes + read.warnings)


def inspect(
    data: builtins.bytes,
    *,
    limits: Limits | None = None,
    words: Words | None = None,
    text: ReadText | None = None,
) -> Inspection:
    """Read a file's header, section sizes and words without decoding the picture. Raises BitstreamError subclasses.

    Needs a model only for words that were coded by one; ``text`` is what ``Words.read`` gave, if it has been asked.
    """
    picogram = _parse(data, limits)
    header = picogram.header
    read = text or _read_words(picogram, words)
    sections = section_sizes(data)
    pixels = header.width * header.height
    details = {name: _section(name, size, pixels, read) for name, size in sections.items()}
    details["latent"] = replace(details["latent"], coder=f"latent-{header.model}")
    return Inspection(
        version=header.version,
        profile=header.profile.name.lower(),
        width=header.width,
        height=header.height,
        downscale=1 << header.halvings,
        model=header.model,
        rate=picogram.latent[0],
        file_bytes=len(data),
        bpp=8 * len(data) / pixels,
        header_bytes=len(data) - sum(sections.values()),
        sections=sections,
        details=details,
        checks=_checks(picogram),
        warnings=read.warnings,
    )


def _section(name: str, size: int, pixels: int, read: ReadText) -> Section:
    problem = read.problems.get(name)
    text = None
    if read.description and problem is None:
        texts = {"caption": read.description.caption, "objects": objects_text(read.description.objects)}
        text = texts.get(name)
    return Section(size, 8 * size, 8 * size / pixels, read.coders.get(name, ""), text, problem)


def _checks(picogram: Picogram) -> dict[str, str]:
    """A file with another damage does not get this far."""
    if not picogram.optional and not picogram.damaged:
        return {"file": "ok"}
    return {"picture": "ok", "words": "damaged" if picogram.damaged else "ok"}


def _read_words(picogram: Picogram, words: Words | None) -> ReadText:
    if not picogram.optional and not picogram.damaged:
        return ReadText(None)
    (read,) = (words or default_words()).read([picogram])
    return read


def _drawn(
    file: Picogram, description: Description | None, asked: DecodeOptions, watch: Watch | None = None
) -> Decoded:
    (outcome,) = draw([file], [description], [asked], [watch] if watch else None)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _parse(data: builtins.bytes, limits: Limits | None) -> Picogram:
    if not isinstance(data, builtins.bytes | bytearray | memoryview):
        raise UsageError(f"expected the bytes of a .pico file, not {type(data).__name__}")
    return parse(builtins.bytes(data), limits)


def _read(image: ImageSource) -> Image.Image:
    if isinstance(image, Image.Image):
        return images.normalise(image)
    if isinstance(image, np.ndarray):
        return images.from_array(image)
    return images.read_image(Path(image) if isinstance(image, str) else image)
