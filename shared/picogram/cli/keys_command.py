# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``picogram keys``: API keys for the server, which keeps only their SHA-256."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Annotated, Final

import typer

from picogram.cli.batch import say
from picogram.errors import UsageError

app = typer.Typer(help="API keys for the server.", no_args_is_help=True)

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_RANDOM_BYTES: Final = 32


@app.callback()
def keys_command() -> None:
    """API keys for the server, which keeps only their SHA-256."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is: letters, digits, dot, dash and underscore.")],
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", help="Append the line to this file rather than print it.", show_default=False
        ),
    ] = None,
) -> int:
    """Make a key. It is shown once, on stdout; the line NAME:SHA256 is for the server's PICOGRAM_API_KEYS_FILE.

    A name may have several keys, so that one can be replaced while the other still works.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a key: up to 64 letters, digits, dots, dashes and underscores"
        )
    key = f"pk_{secrets.token_urlsafe(_RANDOM_BYTES)}"
    line = f"{name}:{hashlib.sha256(key.encode()).hexdigest()}"
    if file is None:
        say(f"line for the server: {line}", aside=True)
    else:
        _append(file, line)
        say(f"{file} has the line for {name}; the server reads it when it starts", aside=True)
    say(key)
    return 0


def _append(file: Path, line: str) -> None:
    """For its owner only, where it is new: names of customers are nobody else's affair."""
    try:
        text = file.read_text("utf-8") if file.exists() else ""
        opener = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(opener, "a", encoding="utf-8") as end:
            end.write(("\n" if text and not text.endswith("\n") else "") + line + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot write {file}: {error}") from error
