# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Which files a command reads and where each result goes.

    "a.png" "photos/" "*.jpg" "-"  ──expand──> [InputFile(source, relative, problem)]  ──plan──> [InputFile(…, target)]

Nothing is read or written here. What is wrong with one input (missing, an empty folder, a result that falls
on another's) is kept in ``InputFile.problem``, so that the others still run.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from picogram.errors import PicogramError, UsageError

STREAM = "-"

# fmt: off
IMAGE_SUFFIXES = frozenset((
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif",
    ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm",
))
# fmt: on


@dataclass(frozen=True)
class InputFile:
    """One input. ``source`` None is stdin, ``target`` None is stdout.

    ``relative`` is the path below the folder that was named on the command line, or just the file's name.
    """

    name: str
    source: Path | None
    relative: Path
    target: Path | None = None
    problem: PicogramError | None = None


def expand(arguments: Sequence[str], suffixes: Collection[str]) -> list[InputFile]:
    """Files as named, folders searched below for ``suffixes``, patterns that the shell left alone, "-"."""
    if list(arguments).count(STREAM) > 1:
        raise UsageError("stdin can be read once only")
    return [item for argument in arguments for item in _expanded(argument, suffixes)]


def _expanded(argument: str, suffixes: Collection[str]) -> list[InputFile]:
    try:
        return _expand(argument, suffixes)
    except OSError as error:  # a name too long, a folder that may not be entered: the others go on
        return [_failed(argument, error.strerror or str(error))]
    except ValueError as error:
        return [_failed(argument, str(error))]


def _expand(argument: str, suffixes: Collection[str]) -> list[InputFile]:
    path = Path(argument)
    if argument == STREAM:
        return [InputFile(STREAM, None, Path("stdin"))]
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
        items = [InputFile(str(p), p, p.relative_to(path)) for p in found]
        return items or [_failed(argument, f"no {_kinds(suffixes)} in this folder")]
    if path.exists():
        return [InputFile(argument, path, Path(path.name))]
    if glob.has_magic(argument):
        matches = (Path(match) for match in sorted(glob.glob(argument, recursive=True)))
        items = [InputFile(str(p), p, Path(p.name)) for p in matches if p.is_file()]
        return items or [_failed(argument, "nothing matches")]
    return [_failed(argument, "no such file")]


def plan(items: Sequence[InputFile], out: str | None, suffix: str, *, folder: bool) -> list[InputFile]:
    """The items with their targets: ``out`` a file or a folder, or None for beside the input.

    ``folder`` says that several results are to be expected. Raises UsageError where ``out`` cannot serve.
    """
    folder = folder or len(items) > 1
    if out == STREAM or (out is None and [item.source for item in items] == [None]):
        if folder:
            raise UsageError("only one result can go to stdout; name a folder with -o")
        return list(items)
    if out is not None and not out:
        raise UsageError("-o needs a name")
    into = out is not None and (folder or out.endswith(("/", "\\")) or os.path.isdir(out))
    if out is not None and into and os.path.exists(out) and not os.path.isdir(out):
        raise UsageError(f"{out} is a file; several results need a folder")
    taken: dict[Path, str] = {}
    return [_placed(item, out, suffix, into, taken) for item in items]


def _placed(item: InputFile, out: str | None, suffix: str, into: bool, taken: dict[Path, str]) -> InputFile:
    if item.problem is not None:
        return item
    if out is None:
        if item.source is None:
            raise UsageError("stdin among other inputs needs -o FOLDER")
        target = item.source.with_suffix(suffix)
    else:
        target = Path(out) / item.relative.with_suffix(suffix) if into else Path(out)
    if target in taken:
        return replace(item, problem=UsageError(f"{target} is already the result of {taken[target]}"))
    taken[target] = item.name
    if item.source is not None and _same(item.source, target):
        return replace(item, problem=UsageError("the result would replace the input"))
    return replace(item, target=target)


def _same(source: Path, target: Path) -> bool:
    return target.exists() and target.samefile(source)


def _failed(name: str, message: str) -> InputFile:
    return InputFile(name, None, Path(name), problem=UsageError(message))


def _kinds(suffixes: Collection[str]) -> str:
    return "images" if len(suffixes) > 1 else f"{next(iter(suffixes))} files"
