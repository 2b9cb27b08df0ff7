# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How far one long piece of work is: fractions go in, a bar on the terminal comes out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(verb: str, *, shown: bool = True) -> Iterator[Callable[[float], None] | None]:
    """What takes fractions, 0 to 1; None without ``shown``, or where stderr is no terminal.

    The bar appears with the first fraction and is gone at the end, so that short work shows none.
    """
    if not shown or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
    task = bar.add_task(verb, total=1.0)

    def show(fraction: float) -> None:
        bar.start()
        bar.update(task, completed=fraction)

    try:
        yield show
    finally:
        bar.stop()
