# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The examples in ``docs/client.md`` run as they stand, but for the server's port."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_gateway import Workers, listening
from PIL import Image

TEXT = (Path(__file__).parents[2] / "docs" / "client.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
PRINTED = [
    r"\d+ \d\.\d+ 7\n",
    r"\{'header': \d+, 'latent': 7, 'caption': \d+\}\n",
    r"A boat\. None\n",
    r"encoder: 50%\n",
    r"2 7\n",
    r"([0-9a-f]{32} (queued|running|done) \d\.\d\n){2}done done\n",
    r"queued\n(.*\n)*done\n",
    r".+ urn:uuid:.+\n",
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(Workers().backend) as url:
        yield url


@pytest.mark.parametrize(
    ("example", "printed"), list(zip(EXAMPLES, PRINTED, strict=True)), ids=range(len(PRINTED))
)
def test_examples_run(url: str, tmp_path: Path, example: str, printed: str) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.jpg")
    assert "http://127.0.0.1:8080" in example
    program = [sys.executable, "-W", "error", "-c", example.replace("http://127.0.0.1:8080", url)]
    done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stderr == ""
    assert re.fullmatch(printed, done.stdout), done.stdout
