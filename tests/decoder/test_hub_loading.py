# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Models of the hub from folders and from its cache: what is found, what is refused, and in which words."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

import pytest
import torch

pytest.importorskip("diffusers")

import huggingface_hub.constants
from safetensors.torch import load_file, save_file
from tiny_hub import cache, save, sums

from picogram.errors import ModelDamaged, ModelMissing, UsageError
from picogram_decoder.hub import hub_fetch
from picogram_decoder.hub.hub_denoiser import HubDenoiser
from picogram_decoder.hub.hub_fetch import find_files
from picogram_decoder.hub.hub_load import load_hub_denoiser
from picogram_decoder.hub.hub_models import MODELS, Repository
from picogram_decoder.hub.hub_settings import HubSettings
from picogram_decoder.hub.parts import load_parts

UNET = Path("unet", "diffusion_pytorch_model.fp16.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(MODELS["sd-turbo"], tmp_path / "model")


def load(folder: Path, name: str = "sd-turbo") -> HubDenoiser:
    return load_hub_denoiser(name, HubSettings(local_dir=folder, device="cpu"))


@pytest.mark.parametrize("name", MODELS)
def test_every_model_loads_from_a_folder(name: str, tmp_path: Path) -> None:
    denoiser = load(save(MODELS[name], tmp_path / "model"), name)
    model, parts = MODELS[name], denoiser.parts
    assert (parts.control is not None) == model.controlled
    assert len(parts.text_encoders) == len(parts.tokenizers) == (2 if model.family == "sdxl" else 1)
    assert (denoiser.align, denoiser.tile, denoiser.kind) == (model.align, model.tile, model.kind)
    assert type(parts.scheduler()).__name__ == model.scheduler
    assert parts.scheduler() is not parts.scheduler()
    assert not any(p.requires_grad for p in parts.unet.parameters())
    hidden = denoiser.read(["a cat"]).hidden
    assert hidden.shape == (1, 77, parts.unet.config.cross_attention_dim)


def test_every_revision_is_a_commit_and_every_licence_is_named() -> None:
    for model in MODELS.values():
        for repository in filter(None, (model.base, model.control)):
            assert len(repository.revision) == 40
            assert repository.licence


def test_a_branch_is_no_revision() -> None:
    with pytest.raises(UsageError, match="40 hexadecimal"):
        Repository("somebody/something", "main", "MIT")


def test_weights_without_a_variant_load_too(tmp_path: Path) -> None:
    assert load(save(MODELS["sd-turbo"], tmp_path / "model", variant=None)).device.type == "cpu"


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(UsageError, match="sd15-tile"):
        load_hub_denoiser("sd99")


def test_a_gpu_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="no GPU cuda:99"):
        load_hub_denoiser("sd-turbo", HubSettings(local_dir=folder, device="cuda:99"))


def test_settings_come_from_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICOGRAM_DECODER_LOCAL_DIR", str(folder))
    monkeypatch.setenv("PICOGRAM_DECODER_DTYPE", "bfloat16")
    monkeypatch.setenv("PICOGRAM_DECODER_DEVICE", "cpu")
    assert load_hub_denoiser("sd-turbo").parts.unet.dtype == torch.bfloat16
    monkeypatch.setenv("PICOGRAM_DECODER_ATTENTION", "gradient")
    with pytest.raises(UsageError, match="many steps"):
        load_hub_denoiser("sd-turbo")
    monkeypatch.setenv("PICOGRAM_DECODER_REVISION", "main")
    with pytest.raises(UsageError, match="PICOGRAM_DECODER_REVISION"):
        load_hub_denoiser("sd-turbo")


@pytest.mark.parametrize(
    "lacking",
    [UNET, Path("vae/config.json"), Path("tokenizer/vocab.json"), Path("scheduler/scheduler_config.json")],
)
def test_a_missing_file_is_named(folder: Path, lacking: Path) -> None:
    (folder / lacking).unlink()
    with pytest.raises(ModelMissing, match=lacking.parent.name):
        load(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="LOCAL_DIR"):
        load(tmp_path / "nowhere")


def test_cut_weights_are_damaged(folder: Path) -> None:
    weights = folder / UNET
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelDamaged, match="unet"):
        load(folder)


def test_a_lacking_weight_is_not_made_up(folder: Path) -> None:
    for weights in (folder / UNET, folder / "text_encoder" / "model.fp16.safetensors"):
        before = weights.read_bytes()
        tensors = load_file(weights)
        tensors.pop(sorted(tensors)[0])
        save_file(tensors, weights, {"format": "pt"})
        with pytest.raises(ModelDamaged, match=weights.parent.name):
            load(folder)
        weights.write_bytes(before)


def test_networks_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = save(MODELS["sdxl-turbo"], tmp_path / "model")
    with pytest.raises(ModelDamaged, match="sd-turbo"):
        load(folder)


def test_a_list_of_hashes_is_obeyed(folder: Path) -> None:
    sums(folder)
    assert load(folder)
    weights = folder / UNET
    tensors = load_file(weights)
    tensors["conv_out.bias"] += 1
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ModelDamaged, match="SHA-256"):
        load(folder)
    (folder / "SHA256SUMS").write_text("")
    with pytest.raises(ModelDamaged, match="does not list"):
        load(folder)
    (folder / "SHA256SUMS").write_text("nonsense\n")
    with pytest.raises(ModelDamaged, match="cannot be read"):
        load(folder)


def test_a_pickle_is_opened_for_its_hash_alone(tmp_path: Path) -> None:
    model = MODELS["sd15-tile"]
    folder = save(model, tmp_path / "model")
    weights = folder / "controlnet" / "diffusion_pytorch_model.safetensors"
    pickle = weights.with_suffix(".bin")
    torch.save(load_file(weights), pickle)
    weights.unlink()
    settings, cpu = HubSettings(local_dir=folder), torch.device("cpu")
    with pytest.raises(ModelDamaged, match="SHA-256"):
        load(folder, "sd15-tile")
    with pytest.raises(ModelMissing, match="safetensors"):
        load_parts(model, find_files(MODELS["sd21-tile"], settings), torch.float32, cpu)
    assert model.control is not None
    known = MappingProxyType({pickle.name: hub_fetch._sha256(pickle)})
    model = replace(model, control=replace(model.control, sha256=known))
    assert load_parts(model, find_files(model, settings), torch.float32, cpu).control is not None


def test_a_downloaded_model_loads_offline_and_is_checked(tmp_path: Path) -> None:
    model = MODELS["sdxl-tile"]
    source = save(model, tmp_path / "model")
    (source / "controlnet").rename(tmp_path / "control")
    settings = HubSettings(cache_dir=tmp_path / "hub", offline=True, device="cpu")
    with pytest.raises(ModelMissing, match="is not downloaded"):
        load_hub_denoiser(model.name, settings)
    snapshot = cache(model.base, source, tmp_path / "hub")
    assert model.control is not None
    cache(model.control, tmp_path / "control", tmp_path / "hub")
    assert load_hub_denoiser(model.name, settings).parts.control is not None
    other = settings.model_copy(update={"revision": "0" * 40})
    with pytest.raises(ModelMissing, match="0000000000 is not downloaded"):
        load_hub_denoiser(model.name, other)
    blob = (snapshot / UNET).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    with pytest.raises(ModelDamaged, match="SHA-256"):
        load_hub_denoiser(model.name, settings)


def test_a_model_without_a_published_controlnet_asks_for_one() -> None:
    with pytest.raises(ModelMissing, match="ControlNet of your own"):
        load_hub_denoiser("sd21-tile", HubSettings(offline=True))


@contextmanager
def hub(status: int, code: str) -> Iterator[str]:
    """A hub that answers everything with one error."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "2")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"{}")

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "RepoNotFound", "the hub has no stabilityai/sd-turbo"),
        (404, "RevisionNotFound", "the hub has no .* at b261bac6fd"),
        (403, "GatedRepo", "terms"),
        (400, "", "the hub does not answer"),
    ],
)
def test_what_the_hub_refuses_is_told_in_a_line(
    status: int, code: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub(status, code) as url:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        with pytest.raises(ModelMissing, match=words) as caught:
            load_hub_denoiser("sd-turbo", HubSettings(cache_dir=tmp_path, device="cpu"))
    assert "\n" not in str(caught.value)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picogram_decoder.hub.parts", None)
    with pytest.raises(ModelMissing, match=r"pip install 'picogram-codec\[decoder-hub\]'"):
        load_hub_denoiser("sd-turbo")


def test_only_what_is_needed_is_asked_for() -> None:
    patterns = hub_fetch.base_patterns(MODELS["sdxl-tile"])
    assert "text_encoder_2/model.fp16.safetensors" in patterns
    assert not any("safety" in p or p.endswith((".bin", ".ckpt")) or p.startswith("*") for p in patterns)


def test_names_and_settings_cost_no_heavy_import() -> None:
    code = (
        "import sys, json, picogram_decoder.hub.hub_load, picogram_decoder.decoder_handler;"
        "print(json.dumps([m for m in ('diffusers', 'transformers', 'huggingface_hub') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
