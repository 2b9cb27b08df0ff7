# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Reading and writing bytes: stdin and stdout, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path

from picogram.errors import LimitExceeded, PicogramError, UsageError


def read_bytes(source: Path | None, limit: int) -> bytes:
    """The whole of a file, or of stdin for None. Raises LimitExceeded past ``limit`` bytes, UsageError."""
    try:
        if source is None:
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with source.open("rb") as file:
                data = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}") from error
    if len(data) > limit:
        raise LimitExceeded(f"more than the limit of {limit:,} bytes")
    return data


def open_streams() -> None:
    """A standard stream that was closed becomes an empty one, so that no other file takes its place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for as long as we run


def check_target(target: Path | None, overwrite: bool) -> None:
    """Refuses, before any work is done, a target that ``write_bytes`` would refuse. Raises UsageError."""
    if target is None:
        if sys.stdout.isatty():
            raise UsageError("refusing to write binary data to a terminal; use -o FILE or a pipe")
    elif target.is_dir():
        raise UsageError(f"{target} is a folder")
    elif not overwrite and _is_file(target):
        raise UsageError(f"{target} exists; use --overwrite to replace it")


def write_bytes(target: Path | None, data: bytes, overwrite: bool) -> None:
    """Write a file beside its destination and rename it; None is stdout.

    Raises UsageError when the target exists and ``overwrite`` is false, PicogramError when writing fails.
    """
    check_target(target, overwrite)
    if target is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        # A symbolic link stays one, and a device or named pipe (-o /dev/null) is written to, not replaced.
        target = Path(os.path.realpath(target))
        if target.exists() and not _is_file(target):
            target.write_bytes(data)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(target, data, overwrite)
    except FileExistsError as error:
        raise UsageError(f"{target} exists; use --overwrite to replace it") from error
    except OSError as error:
        raise PicogramError(f"cannot write {target}: {error.strerror or error}") from error


def _write_whole(target: Path, data: bytes, overwrite: bool) -> None:
    # The name is short and hidden whatever the target's; O_EXCL, and 0o666 for the umask to trim.
    scratch = target.parent / f".picogram-{os.getpid()}-{os.urandom(4).hex()}.tmp"
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            if overwrite and target.exists():  # what was private stays private
                os.chmod(scratch, stat.S_IMODE(target.stat().st_mode))
            file.write(data)
        if overwrite:
            scratch.replace(target)
        else:
            _move_to_new(scratch, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            scratch.unlink()


def _move_to_new(scratch: Path, target: Path) -> None:
    """A hard link fails if somebody made the target meanwhile, which a rename would silently replace."""
    try:
        os.link(scratch, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(target) from None
        scratch.replace(target)


def _is_file(target: Path) -> bool:
    """Whether a regular file is there, or a broken link, which would be a surprise to write through."""
    try:
        return stat.S_ISREG(target.stat().st_mode)
    except OSError:
        return target.is_symlink()
