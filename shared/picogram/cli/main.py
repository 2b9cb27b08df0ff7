# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The ``picogram`` command. Torch, the gateway and the benchmark load inside the command that needs them.

When a result goes to stdout, everything for a person goes to stderr. Exit codes: 0, the code of the last
failure (see ``picogram.errors``), 130 after Ctrl-C, 1 when the reader of a pipe went away.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import picogram
from picogram.bitstream import Limits
from picogram.cli import bench_command, keys_command, models_command, queue_command, worker_command
from picogram.cli.batch import for_each, missing_extra, report, say
from picogram.cli.files import check_target, open_streams, read_bytes, write_bytes
from picogram.cli.focus_arguments import given_focus
from picogram.cli.options import takes
from picogram.cli.paths import IMAGE_SUFFIXES, STREAM, InputFile, expand, plan
from picogram.cli.progress import progress_bar
from picogram.cli.remote import API_KEY, ApiKeyName, Server, codec, signed
from picogram.cli.words_shown import (
    caption_cost,
    given_caption,
    given_objects,
    print_description,
    show_details,
    show_heard,
    show_words,
    warn,
)
from picogram.errors import UsageError
from picogram.images import MEDIA_TYPES
from picogram.request import DecodeOptions, EncodeOptions
from picogram.semantics.description import MASK_SIDES

app = typer.Typer(name="picogram", no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(models_command.app, name="models")
app.add_typer(keys_command.app, name="keys")
app.add_typer(queue_command.app, name="queue")
app.command()(worker_command.worker)
app.command()(bench_command.bench)


class ImageFormat(StrEnum):
    """What ``decode --format`` accepts."""

    PNG = "png"
    WEBP = "webp"
    AVIF = "avif"
    JPEG = "jpeg"


Inputs = Annotated[
    list[str],
    typer.Argument(metavar="INPUTS...", help="Files, folders, patterns, or - for stdin.", show_default=False),
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out", "-o", help="File, folder, or - for stdout. Default: beside each input.", show_default=False
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite/--no-overwrite", help="Replace existing results.")]


def _version(wanted: bool) -> None:
    if wanted:
        say(f"picogram {picogram.__version__}")
        raise typer.Exit


@app.callback()
def picogram_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Photographs in a few hundred to a few thousand bytes. Reconstructions are partly imagined."""


@app.command()
@takes(EncodeOptions)
def encode(
    inputs: Inputs,
    out: Out = None,
    caption_file: Annotated[
        Path | None, typer.Option(help="The caption in a UTF-8 file.", show_default=False)
    ] = None,
    objects_file: Annotated[
        Path | None,
        typer.Option(
            "--objects",
            help="The objects, for --profile misc or sedic, as caption --json lists them. Default: a captioner's.",
            show_default=False,
        ),
    ] = None,
    focus_mask: Annotated[
        Path | None,
        typer.Option(
            help="An image that is bright where it matters most, instead of --focus.", show_default=False
        ),
    ] = None,
    overwrite: Overwrite = False,
    server: Server = None,
    api_key_env: ApiKeyName = API_KEY,
    **given: Any,
) -> int:
    """Code images as .pico files. Give at most one of --bytes, --bpp and --quality."""
    given["caption"] = given_caption(given["caption"], caption_file)
    given["focus"] = given_focus(given["focus"], focus_mask)
    options = EncodeOptions(**given, objects=given_objects(objects_file))

    def encode_one(item: InputFile) -> None:
        check_target(item.target, overwrite)
        start = time.perf_counter()
        source = sys.stdin.buffer if item.source is None else item.source
        encoded = by.encode(source, options)
        aside = item.target is None
        write_bytes(item.target, encoded.data, overwrite)
        seconds = time.perf_counter() - start
        told = f"{len(encoded.data)} bytes, {encoded.bpp:.4f} bpp, {seconds:.2f} s"
        say(f"{_title(item)}: {told}", aside=aside)
        show_words(encoded.description, caption_cost(encoded), aside=aside)
        show_heard(encoded.heard, aside=aside)
        warn(item.name, encoded.warnings)

    sources = expand(inputs, IMAGE_SUFFIXES)
    if len(sources) > 1 and (options.caption or options.objects is not None or focus_mask is not None):
        raise UsageError("a caption, objects or a focus mask fit one image only")
    items = plan(sources, out, picogram.SUFFIX, folder=_has_folder(inputs))
    with codec(server, api_key_env) as by:
        return for_each(items, encode_one, "encoding")


@app.command()
@takes(DecodeOptions)
def decode(
    inputs: Inputs,
    out: Out = None,
    format: Annotated[
        ImageFormat | None,
        typer.Option(help="Image format. Default: by the suffix of -o, else png.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    server: Server = None,
    api_key_env: ApiKeyName = API_KEY,
    **given: Any,
) -> int:
    """Turn .pico files back into images. What a file does not hold is imagined."""
    options = DecodeOptions(**given)
    items = expand(inputs, [picogram.SUFFIX])
    folder = _has_folder(inputs)
    media_type = f"image/{format or _format_of(out, folder=folder or len(items) > 1)}"

    def decode_one(item: InputFile) -> None:
        check_target(item.target, overwrite)
        start = time.perf_counter()
        data = read_bytes(item.source, Limits.max_file_bytes)
        with progress_bar("drawing", shown=len(items) == 1) as progress:
            decoded = by.decode(data, media_type, options, progress)
        write_bytes(item.target, signed(decoded, media_type), overwrite)
        width, height = decoded.size
        say(
            f"{_title(item)}: {width}x{height}, {time.perf_counter() - start:.2f} s",
            aside=item.target is None,
        )
        show_words(decoded.description, aside=True)
        warn(item.name, decoded.warnings)

    planned = plan(items, out, MEDIA_TYPES[media_type].suffix, folder=folder)
    with codec(server, api_key_env) as by:
        return for_each(planned, decode_one, "decoding")


@app.command()
def inspect(
    files: Inputs,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and file.")] = False,
    server: Server = None,
    api_key_env: ApiKeyName = API_KEY,
) -> int:
    """Show what .pico files say of themselves, words included, without decoding the pictures."""

    def inspect_one(item: InputFile) -> None:
        described = by.inspect(read_bytes(item.source, Limits.max_file_bytes)).as_dict()
        if as_json:
            print(json.dumps({"file": item.name} | described))
        else:
            _show(item.name, described)

    with codec(server, api_key_env) as by:
        return for_each(expand(files, [picogram.SUFFIX]), inspect_one, "inspecting")


@app.command()
def caption(
    images: Inputs,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and image.")] = False,
    mask_side: Annotated[
        int, typer.Option(help="Rows and columns of masks: 8 suits --profile misc, 16 sedic.")
    ] = MASK_SIDES[0],
    server: Server = None,
    api_key_env: ApiKeyName = API_KEY,
) -> int:
    """Describe images in words, as encode with --profile stc, misc or sedic would."""
    if mask_side not in MASK_SIDES[:2]:
        raise UsageError(f"--mask-side is 8 or 16, not {mask_side}")

    def caption_one(item: InputFile) -> None:
        source = sys.stdin.buffer if item.source is None else item.source
        print_description(item.name, by.describe(source, mask_side), as_json=as_json)

    with codec(server, api_key_env) as by:
        return for_each(expand(images, IMAGE_SUFFIXES), caption_one, "describing")


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.", show_default=False)
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Port to listen on. Default: 8080.", show_default=False),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(
            help="URL of a job store whose workers do the work. Default: embedded workers.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Run the HTTP gateway, with embedded workers unless --redis names a job store."""
    try:
        from picogram_gateway.serve import main as serve_forever
    except ModuleNotFoundError as error:
        raise missing_extra(f"the server (no module {error.name})", "local") from error
    serve_forever(host=host, port=port, redis=redis)
    return 0


def _has_folder(arguments: Sequence[str]) -> bool:
    return any(argument != STREAM and os.path.isdir(argument) for argument in arguments)


def _title(item: InputFile) -> str:
    return item.name if item.target is None else f"{item.name} -> {item.target}"


def _format_of(out: str | None, *, folder: bool) -> str:
    """The image format that the name given with -o asks for. Raises UsageError for a strange suffix."""
    suffix = Path(out).suffix.lower() if out else ""
    if not suffix or folder or out is None or out.endswith(("/", "\\")) or os.path.isdir(out):
        return ImageFormat.PNG
    for name in ImageFormat:
        if suffix in (f".{name}", MEDIA_TYPES[f"image/{name}"].suffix):
            return name
    raise UsageError(f"cannot tell an image format from {out}; use --format")


def _show(name: str, described: dict[str, Any]) -> None:
    say(name)
    for key, value in described.items():
        if key == "details":
            show_details(value)
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{part} {size}" for part, size in value.items())
        if isinstance(value, tuple):
            value = "; ".join(value) or "none"
        say(f"  {key:<13} {f'{value:.4f}' if isinstance(value, float) else value}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; whatever goes wrong is one line on stderr."""
    open_streams()
    try:
        command = typer.main.get_command(app)
        given = None if arguments is None else list(arguments)
        code = command(args=given, prog_name="picogram", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit and would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # Recent typer carries its own copy of click, so usage errors are known by their method only.
        explain = getattr(error, "format_message", None)
        if explain is None:
            return report(error)
        # Nothing to explain: no arguments at all, and the help was shown.
        return report(UsageError(explain())) if explain() else UsageError.exit_code


def run() -> NoReturn:
    """The entry point of the ``picogram`` script."""
    sys.exit(main())


if __name__ == "__main__":
    run()
