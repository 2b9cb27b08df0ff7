# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a process learns from where it runs: its settings, with errors that a person can read."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from picogram.errors import UsageError

S = TypeVar("S", bound=BaseSettings)


def read_settings(kind: type[S], **given: Any) -> S:
    """The settings that the environment gives, but for those given here (None: not given).

    Raises UsageError, which names the first variable that is wrong.
    """
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "".join(
            f"{kind.model_config.get('env_prefix', '')}{part}".upper() for part in first["loc"][:1]
        )
        said = first["msg"].removeprefix("Value error, ")
        if os.environ.get(name, "").startswith("tcp://"):
            said += "; Kubernetes sets it for a service of that name: set enableServiceLinks to false"
        raise UsageError(f"{name}: {said}" if name else said) from error
