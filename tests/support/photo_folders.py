# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Folders of drawn photographs as trainings read them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pictures import synthetic


def photo_folder(out: Path, count: int = 4, height: int = 80, width: int = 100) -> Path:
    """What ``training.photos.unpack`` leaves, of photographs without captions."""
    out.mkdir(parents=True, exist_ok=True)
    pixels = [np.asarray(synthetic(i, width, height)) for i in range(count)]
    (out / "photos.u8").write_bytes(b"".join(p.tobytes() for p in pixels))
    (out / "photos.json").write_text(json.dumps([[*p.shape[:2], None] for p in pixels]))
    return out


def caption_states(out: Path, photos: int, width: int) -> Path:
    """What ``training.joint.data`` leaves of captions: two a photo, of 2 and 3 tokens, whose states tell which it is."""
    out.mkdir(parents=True, exist_ok=True)
    places = [0]
    for _ in range(photos):
        places += [places[-1] + 2, places[-1] + 5]
    values = np.zeros((places[-1], width), np.float16)
    for caption in range(2 * photos):
        values[places[caption] : places[caption + 1], :] = np.random.default_rng(caption).normal(size=width)
    np.save(out / "states.npy", values)
    captions = list(range(0, 2 * photos + 1, 2))
    (out / "index.json").write_text(json.dumps({"captions": captions, "states": places}))
    return out
