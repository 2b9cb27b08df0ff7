# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Untrained networks of a family's shapes: to measure time and memory, and to test everything but the pictures.

Sizes are those of the published configurations; ``tiny`` keeps their structure and little else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTokenizer

from picogram_decoder.hub.hub_models import Family, HubModel
from picogram_decoder.hub.parts import TEXT_ENCODERS, Parts, fresh_scheduler

Config = Mapping[str, Any]
# their constructors have no types
_UnetClass: Any = UNet2DConditionModel
_VaeClass: Any = AutoencoderKL

SCHEDULER: Final[Config] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}
START, END = "<|startoftext|>", "<|endoftext|>"
_PLAIN, _CROSS = ("DownBlock2D", "UpBlock2D"), ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
_SD: Final[Config] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (_CROSS[0],) * 3 + (_PLAIN[0],),
    "up_block_types": (_PLAIN[1],) + (_CROSS[1],) * 3,
}
_UNETS: Final[Mapping[Family, Config]] = {
    "sd15": {**_SD, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd21": {
        **_SD,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": (_PLAIN[0], _CROSS[0], _CROSS[0]),
        "up_block_types": (_CROSS[1], _CROSS[1], _PLAIN[1]),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 1280 + 6 * 256,
    },
}
_TINY_UNETS: Final[Mapping[Family, Config]] = {
    "sd15": {"cross_attention_dim": 16, "attention_head_dim": 2},
    "sd21": {"cross_attention_dim": 16, "attention_head_dim": (1, 2, 2, 2)},
    "sdxl": {
        "transformer_layers_per_block": (1, 1, 2),
        "cross_attention_dim": 32,
        "attention_head_dim": (1, 2, 2),
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 16 + 6 * 4,
    },
}
_CLIP_L: Final[Config] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
_CLIP_H: Final[Config] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}
_CLIP_G: Final[Config] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
_TINY_CLIP: Final[Config] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 16,
}
_TEXTS: Final[Mapping[Family, tuple[Config, ...]]] = {
    "sd15": (_CLIP_L,),
    "sd21": (_CLIP_H,),
    "sdxl": (_CLIP_L, _CLIP_G),
}
_VAE: Final[Config] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
_SCALES: Final[Mapping[Family, float]] = {"sd15": 0.18215, "sd21": 0.18215, "sdxl": 0.13025}


def blank_parts(
    model: HubModel,
    *,
    tiny: bool = False,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    prediction: str = "epsilon",
) -> Parts:
    """Random weights, the same for a seed and a device; on the device ``meta`` none at all, to count with."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    small = {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4} if tiny else {}
    with _made(device, torch.float32 if model.upcast else dtype):
        scale = _SCALES[model.family]
        vae = _VaeClass(**{**_VAE, **small}, sample_size=model.tile, scaling_factor=scale)
    with _made(device, dtype):
        unet = _UnetClass(sample_size=64, **_unet(model.family, tiny))
        texts = [
            kind(_clip({**config, **(_TINY_CLIP if tiny else {})}, tokenizer))
            for kind, config in zip(TEXT_ENCODERS, _TEXTS[model.family], strict=False)
        ]
        control = _control(unet) if model.controlled else None
    for network in (unet, vae, control, *texts):
        if network is not None:
            network.eval().requires_grad_(False)
    return Parts(
        unet=unet,
        vae=vae,
        text_encoders=tuple(texts),
        tokenizers=(tokenizer,) * model.text_encoders,
        scheduler=fresh_scheduler(model, {**SCHEDULER, "prediction_type": prediction}),
        control=control,
    )


def byte_tokenizer() -> Any:
    """A tokenizer of the right class whose tokens are bytes."""
    return CLIPTokenizer(vocab=byte_vocabulary(), merges=[], model_max_length=77)


def byte_vocabulary() -> dict[str, int]:
    """Bytes, bytes that end a word, start and end."""
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{byte}</w>" for byte in alphabet), START, END]
    return {token: number for number, token in enumerate(tokens)}


def _unet(family: Family, tiny: bool) -> dict[str, Any]:
    config = {**_UNETS[family]}
    if tiny:
        widths = (8, 16, 16, 16)[: len(config["block_out_channels"])]
        config |= {**_TINY_UNETS[family], "block_out_channels": widths, "norm_num_groups": 4}
    return config


def _clip(config: Config, tokenizer: Any) -> CLIPTextConfig:
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    small = config["hidden_size"] < 100
    return CLIPTextConfig(vocab_size=len(tokenizer) if small else 49408, **ids, **config)


def _control(unet: Any) -> Any:
    """A ControlNet with random weights where training starts from zero, so that the control picture counts."""
    control: Any = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
    layers = [*control.controlnet_down_blocks, control.controlnet_mid_block]
    for layer in [*layers, control.controlnet_cond_embedding.conv_out]:
        torch.nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
    return control


@contextmanager
def _made(device: str | torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Within, networks are made where and of what they will be: large ones exist once."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)
