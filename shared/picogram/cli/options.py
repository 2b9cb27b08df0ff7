# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The options of ``encode`` and ``decode``, derived from what ``EncodeOptions`` and ``DecodeOptions`` offer.

@takes(EncodeOptions)
def encode(inputs, out, **given): ...        given: the values of --bytes, --bpp, ... by name
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from picogram.request import Argument, arguments_of

Command = TypeVar("Command", bound=Callable[..., int])


def takes(options: type) -> Callable[[Command], Command]:
    """A command that also takes these options; lists, which come from files, are the command's own affair."""
    derived = [_parameter(argument) for argument in arguments_of(options) if not argument.json]

    def extended(command: Command) -> Command:
        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[parameter.name])
            for parameter in inspect.signature(command).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        first = sum(parameter.default is inspect.Parameter.empty for parameter in own) + 1
        taken = [*own[:first], *derived, *own[first:]]
        command.__signature__ = inspect.Signature(taken, return_annotation=int)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in taken} | {"return": int}
        return command

    return extended


def _parameter(argument: Argument) -> inspect.Parameter:
    """What may be given is the options' to check, in the same words for everybody."""
    names = [f"--{argument.name}", *([f"-{argument.short}"] if argument.short else [])]
    shown = argument.default is not None
    help = argument.help.replace("`", "")
    option = typer.Option(
        *names,
        help=f"{help[0].upper()}{help[1:]}.",
        show_default=shown,
        parser=argument.value,
        metavar=f"<{argument.kind.__name__}>",
    )
    kind: Any = argument.kind if shown else argument.kind | None
    return inspect.Parameter(
        argument.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=argument.default,
        annotation=Annotated[kind, option],
    )
