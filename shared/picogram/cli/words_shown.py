# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Words on the command line: captions and objects that come in, and descriptions that are shown."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import picogram
from picogram.cli.batch import VISIBLE, say
from picogram.cli.files import read_bytes
from picogram.errors import LimitExceeded, UsageError
from picogram.results import Encoded
from picogram.semantics.description import MAX_CAPTION_CHARACTERS, Region, printable
from picogram.semantics.plain import MAX_JSON_CHARACTERS, objects_of_json, plain_description

_UTF8_BYTES = 4


def given_caption(text: str | None, file: Path | None) -> str | None:
    """The caption of --caption or --caption-file, without the one line break that ends most files.

    Raises UsageError if both are given or the file cannot be read, is far too long or is not UTF-8.
    """
    if file is None:
        return text
    if text is not None:
        raise UsageError("give at most one of --caption and --caption-file")
    try:
        data = read_bytes(file, _UTF8_BYTES * MAX_CAPTION_CHARACTERS + len(b"\r\n"))
        content = data.decode("utf-8")
    except LimitExceeded as error:
        raise UsageError(f"{file}: more than {MAX_CAPTION_CHARACTERS:,} characters") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not UTF-8") from error
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
    return content[:-2] if content.endswith("\r\n") else content.removesuffix("\n")


def given_objects(file: Path | None) -> tuple[Region, ...] | None:
    """The objects of --objects. Raises UsageError if the file cannot be read or is not the JSON of such a list."""
    if file is None:
        return None
    try:
        return objects_of_json(read_bytes(file, MAX_JSON_CHARACTERS))
    except (LimitExceeded, UsageError) as error:
        raise UsageError(f"{file}: {error}") from error


def show_words(description: picogram.Description | None, cost: str = "", *, aside: bool = False) -> None:
    """A line for the caption and one for each object; nothing where there are no words."""
    if description is None:
        return
    say(f"  caption{cost}: {printable(description.caption)}", aside=aside)
    for region in description.objects:
        detail = f": {printable(region.detail)}" if region.detail else ""
        say(f"  object: {printable(region.name)}{detail}", aside=aside)


def show_heard(heard: str | None, *, aside: bool = False) -> None:
    """A line for the caption that shaped a file and is not in it; nothing where none did."""
    if heard is not None:
        say(f"  listened to: {printable(heard)}", aside=aside)


def caption_cost(encoded: Encoded) -> str:
    """What the caption of a file cost, to be put behind its name."""
    if "caption" not in encoded.sections:
        return ""
    size = encoded.sections["caption"]
    share = 100 * size / len(encoded.data)
    return f" ({size} bytes, {share:.0f}% of the file, {encoded.coders.get('caption', '')})"


def warn(name: str, warnings: tuple[str, ...]) -> None:
    """One line on stderr for each warning."""
    for warning in warnings:
        print(f"warning: {name}: {printable(warning)}".translate(VISIBLE), file=sys.stderr)


def print_description(name: str, description: picogram.Description, *, as_json: bool) -> None:
    """A description on stdout: lines for a person, or one line of JSON as the server's."""
    if as_json:
        print(json.dumps({"file": name, **plain_description(description)}))
    else:
        say(name)
        show_words(description)


def show_details(details: dict[str, dict[str, Any]]) -> None:
    """What ``inspect`` knows of each section, a line each and one more for a text."""
    for name, section in details.items():
        coder = f", {section['coder']}" if section["coder"] else ""
        say(f"  {name:<13} {section['bytes']} bytes, {section['bits']} bits, {section['bpp']:.4f} bpp{coder}")
        if section["text"] is not None:
            say(f"  {'':<13} {printable(section['text'])}")
        if section["problem"] is not None:
            say(f"  {'':<13} cannot be read: {printable(section['problem'])}")
