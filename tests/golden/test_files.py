# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Files written once decode for ever: to the same integers, by two readers, under any threads, batches and kernels."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from make_golden import GOLDEN, latent_hash, latent_integers, thumbnail
from reference_reader import Reader, parse_by_table
from safetensors.torch import load_file

import picogram
from picogram.bitstream import parse
from picogram.exact import Kernel
from picogram.latent.codec import load_codec, prior_tensors
from picogram.latent.coding import decode_latents
from picogram.latent.exact_prior import ExactPrior
from picogram.models import latent_weights

MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())
names = pytest.mark.parametrize("name", sorted(MANIFEST))


def read(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def test_the_manifest_lists_every_golden_file_unchanged() -> None:
    assert sorted(p.name for p in GOLDEN.glob("*.pico")) == sorted(MANIFEST)
    for name, entry in MANIFEST.items():
        assert hashlib.sha256(read(name)).hexdigest() == entry["sha256"]


@names
def test_golden_files_decode_to_the_same_integers(name: str) -> None:
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert latent_hash(read(name)) == MANIFEST[name]["latent_sha256"]
    finally:
        torch.set_num_threads(threads)


@names
def test_the_reader_written_from_the_document_finds_the_same_integers(name: str) -> None:
    file = read(name)
    found = Reader(latent_weights(parse_by_table(file)["model"])).latent(file)
    assert np.array_equal(found, latent_integers(file))


@names
@pytest.mark.parametrize("kernel", ["float64", "float32", "int64"])
def test_kernels_and_batches_of_eight_decode_golden_files_alike(name: str, kernel: Kernel) -> None:
    file = parse(read(name))
    codec = load_codec(file.header.model)
    tensors = load_file(latent_weights(file.header.model))
    prior = ExactPrior(prior_tensors(tensors), codec.prior.config, kernel)
    width, height = (-(-side // 16) for side in file.header.coded_size)
    batch = decode_latents(prior, [file.latent[1:]] * 8, [file.latent[0]] * 8, height, width)
    expected = latent_integers(read(name))
    for y in batch:
        assert np.array_equal((y.permute(1, 2, 0) * 256).long().numpy(), expected)


@names
def test_golden_files_look_the_same(name: str) -> None:
    picture = picogram.decode(read(name), steps=0)
    assert list(picture.size) == MANIFEST[name]["size"]
    difference = np.abs(np.subtract(thumbnail(picture), MANIFEST[name]["thumbnail"]))
    assert int(difference.max()) <= 2
