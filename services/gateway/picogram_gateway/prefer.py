# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The ``Prefer`` header (RFC 7240): whether to answer at once, and how long to wait first. What is unknown is ignored."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_MAX_DIGITS: Final = 6


@dataclass(frozen=True)
class Preference:
    """What the caller would like. ``wait``: seconds before a job that is not done is answered with 202."""

    respond_async: bool = False
    wait: int | None = None

    def __bool__(self) -> bool:
        """Whether anything was asked for."""
        return self.respond_async or self.wait is not None

    def __str__(self) -> str:
        """As in ``Preference-Applied``."""
        wait = [] if self.wait is None else [f"wait={self.wait}"]
        return ", ".join(["respond-async"] * self.respond_async + wait)

    @property
    def seconds(self) -> float | None:
        """How long to wait; None: to the end."""
        return 0.0 if self.respond_async and self.wait is None else self.wait


def parse_prefer(values: Iterable[str]) -> Preference:
    """The preferences in all ``Prefer`` headers of a request; of one given twice, the first counts."""
    found: dict[str, str] = {}
    for item in ",".join(values).split(","):
        name, _, value = item.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    wait = found.get("wait", "")
    in_range = re.fullmatch(r"[0-9]+", wait) and len(wait) <= _MAX_DIGITS
    return Preference("respond-async" in found, int(wait) if in_range else None)
