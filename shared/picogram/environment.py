# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a process learns from where it runs: its settings, with errors that a person can read."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from picogram.errors import UsageError

S = TypeVar("S", bound=BaseSettings)


def read_settings(kind: type[S]) -> S:
    """The settings that the environment gives. Raises UsageError, which names the first variable that is wrong."""
    try:
        return kind()
    except ValidationError as error:
        first = error.errors()[0]
        name = "".join(
            f"{kind.model_config.get('env_prefix', '')}{part}".upper() for part in first["loc"][:1]
        )
        raise UsageError(f"{name}: {first['msg']}" if name else str(first["msg"])) from error
