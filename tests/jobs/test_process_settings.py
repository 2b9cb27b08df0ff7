# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Settings that cannot be are named as a person set them."""

from __future__ import annotations

import pytest

from picogram.environment import read_settings
from picogram.errors import UsageError
from picogram.workers.worker_settings import WorkerSettings
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_lmm.lmm_settings import LmmSettings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICOGRAM_MAX_BATCH", "3")
    assert read_settings(WorkerSettings).max_batch == 3


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("PICOGRAM_MAX_BATCH", "0", WorkerSettings),
        ("PICOGRAM_DRAIN_SECONDS", "soon", WorkerSettings),
        ("PICOGRAM_LMM_CODER", "magic", LmmSettings),
    ],
)
def test_the_variable_that_is_wrong_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, kind: type[WorkerSettings | LmmSettings]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=rf"^{name}: [^\n]+$"):
        read_settings(kind)


def test_the_float_coder_needs_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICOGRAM_LMM_ENGINE", "vllm")
    monkeypatch.setenv("PICOGRAM_LMM_CODER", "float")
    with pytest.raises(UsageError, match="PICOGRAM_LMM_FLOAT_MODEL"):
        read_settings(LmmSettings)
    monkeypatch.setenv("PICOGRAM_LMM_FLOAT_MODEL", "somebody/some-model")
    assert read_settings(LmmSettings).float_model == "somebody/some-model"


def test_a_drain_takes_as_long_as_a_job_may() -> None:
    """Else a client that may wait for its answer is cut off, and a batch that would end in time begins anew."""
    assert WorkerSettings().drain_seconds >= GatewaySettings().job_timeout_seconds
