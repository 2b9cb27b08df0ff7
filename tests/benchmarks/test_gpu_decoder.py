# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the large models does its sums."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("diffusers")

from benchmarks.gpu_decoder import count_work, main
from picogram_decoder.hub.hub_models import MODELS


def test_tiny_models_are_measured_by_batch(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    main(["--tiny", "--models", "sd-turbo", "--batches", "1", "2", "--repeats", "1", "--out", str(out)])
    result = json.loads(out.read_text())
    rows = result["models"]["sd-turbo"]
    assert [row["batch"] for row in rows] == [1, 2]
    assert rows[0]["gain"] == 1
    assert all(row["step_seconds"] > 0 and row["images_per_second"] > 0 for row in rows)


def test_paper_counts_the_published_networks() -> None:
    found = count_work(MODELS["sd-turbo"], (64, 64), 100, 10)
    assert found["parameters"]["unet"] == 865_910_724
    assert found["parameters"]["vae"] == 83_653_863
    assert found["parameters"]["text_encoder_1"] == 340_387_840
    assert found["weights_bytes"] == 2 * sum(found["parameters"].values())
    assert found["gradient_pass_bytes"] > 2 * found["pass_bytes"]
