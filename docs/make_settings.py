# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Writes docs/settings.md from the settings classes: ``python docs/make_settings.py``. A test keeps the two together."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from picogram.jobs.queue_settings import QueueSettings
from picogram.observe.log_settings import LogSettings
from picogram.workers.worker_settings import WorkerSettings
from picogram_decoder.decoder_settings import DecoderSettings
from picogram_decoder.hub.hub_settings import HubSettings
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_lmm.lmm_settings import LmmSettings

PAGE = Path(__file__).with_name("settings.md")
INTRODUCTION = """\
# Settings

<!-- Written by docs/make_settings.py from the settings classes; do not edit. -->

Every setting is an environment variable. An empty value counts as unset. Who reads a setting is in the heading; a value
that makes no sense ends the process at its start with exit code 2 and one line that names the variable.

Besides these, `PICOGRAM_CACHE` names the folder of pulled models ([models](models.md)), `PICOGRAM_API_KEY` the key that
the command line sends, and torch takes its threads from `OMP_NUM_THREADS`: 1 where several workers share the cores.
"""
SECTIONS: tuple[tuple[str, type[BaseSettings]], ...] = (
    ("Job store: gateway and all workers, with equal values", QueueSettings),
    ("Workers, and the gateway for those within it", WorkerSettings),
    ("Logs and traces: all", LogSettings),
    ("Gateway", GatewaySettings),
    ("Decoder worker, and the gateway for the one within it", DecoderSettings),
    ("The same, with a model from the hub", HubSettings),
    ("Language-model worker", LmmSettings),
)


def page() -> str:
    """The whole page."""
    told: set[str] = set()
    parts = [INTRODUCTION]
    for title, kind in SECTIONS:
        prefix = str(kind.model_config.get("env_prefix", ""))
        fields = {name: field for name, field in kind.model_fields.items() if prefix + name not in told}
        told |= {prefix + name for name in fields}
        parts.append(f"\n## {title}\n\n| variable | default | |\n|---|---|---|\n")
        parts += [_row(prefix, name, field) for name, field in fields.items()]
    return "".join(parts)


def _row(prefix: str, name: str, field: FieldInfo) -> str:
    about = (field.description or "").replace("|", "\\|") + _choices(field.annotation)
    default = _default(field.get_default(call_default_factory=True))
    return f"| `{(prefix + name).upper()}` | {default} | {about} |\n"


def _default(value: Any) -> str:
    if value is None or value == "":
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int) and value >= 2**20 and value % 2**20 == 0:
        return f"`{value}` ({value // 2**20} MiB)"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _choices(annotation: Any) -> str:
    if get_origin(annotation) is not None and all(isinstance(each, str) for each in get_args(annotation)):
        return f" One of {', '.join(f'`{each}`' for each in get_args(annotation))}."
    return ""


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
