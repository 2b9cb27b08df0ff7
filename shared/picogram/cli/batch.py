# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Work on each of several inputs: one line per result, one per failure, a progress bar on terminals.

A failure is ``error: NAME: message [slug]`` on stderr; the others go on, and the last failure's code is the
exit code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence

from picogram.cli.paths import InputFile
from picogram.errors import PicogramError


def for_each(items: Sequence[InputFile], action: Callable[[InputFile], None], verb: str) -> int:
    """Runs ``action`` on each item without a problem and returns the exit code, 0 when all went well."""
    code = 0
    for item in _progress(items, verb):
        try:
            if item.problem is not None:
                raise item.problem
            action(item)
        except BrokenPipeError:
            raise  # nobody reads on: no further result can be delivered either
        except Exception as error:
            code = report(error, item.name)
    return code


def report(error: Exception, name: str | None = None) -> int:
    """Prints the one line of an error and returns its exit code; PICOGRAM_DEBUG=1 raises it instead."""
    if os.environ.get("PICOGRAM_DEBUG", "") not in ("", "0"):
        raise error
    known = as_picogram_error(error)
    print(f"error: {f'{name}: ' if name else ''}{known} [{known.slug}]".translate(VISIBLE), file=sys.stderr)
    return known.exit_code


_EXTRAS = {"torch": "torch", "safetensors": "torch", "gguf": "text", "tokenizers": "text"}
"""What brings a module, other than the extra that has everything."""


def as_picogram_error(error: Exception) -> PicogramError:
    """Foreign exceptions, which are ours to fix, still become one line."""
    if isinstance(error, PicogramError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return missing_extra(f"the Python module {error.name}", _EXTRAS.get(error.name or "", "demo"))
    if isinstance(error, OSError) and error.strerror:
        return PicogramError(f"{error.filename or 'file system'}: {error.strerror}")
    if isinstance(error, MemoryError):
        return PicogramError("not enough memory")
    return PicogramError(f"unexpected {type(error).__name__}: {error} (PICOGRAM_DEBUG=1 shows where)")


def missing_extra(what: str, extra: str) -> PicogramError:
    return PicogramError(f'{what} is not installed: pip install "picogram-codec[{extra}]"')


def say(text: str, *, aside: bool = False) -> None:
    """One line for a person, on stdout, or on stderr where stdout carries the result (``aside``)."""
    stream = sys.stderr if aside else sys.stdout
    encoding = stream.encoding or "utf-8"  # captions hold any script, some terminals do not
    print(text.translate(VISIBLE).encode(encoding, "backslashreplace").decode(encoding), file=stream)


def _progress(items: Sequence[InputFile], verb: str) -> Iterator[InputFile]:
    if len(items) < 2 or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    # Rich would divert a piped stdout to the terminal, so it may only take over one that is a terminal.
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )
    with bar:
        yield from bar.track(items, description=verb)


# File names may hold control characters, also ones that move a terminal's cursor, and undecodable bytes.
VISIBLE = {code: "?" for code in (*range(32), *range(127, 160), *range(0xDC80, 0xDD00))}
