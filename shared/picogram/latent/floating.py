# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The integer prior of a shipped model, turned back into floats, which have gradients.

Floats may round a value at an edge the other way; files never come from here.
"""

from __future__ import annotations

from torch import Tensor

from picogram.exact import FRACTION_BITS
from picogram.latent.exact_prior import ONE
from picogram.latent.prior import Prior, PriorConfig

_ANCHORS = ("rate_shift", "index_base", "hyper_mean", "hyper_index")


def float_prior(integers: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Integers of a shipped prior as the weights of ``picogram.latent.prior.Prior``; ``like``: its state, for shapes."""
    found = {name: integers[name].float() / ONE for name in _ANCHORS}
    for name in (n.removesuffix(".weight") for n in integers if n.endswith(".weight")):
        shape, unit = like[f"{name}.weight"].shape, 2.0 ** int(integers[f"{name}.shift"])
        rows = integers[f"{name}.weight"].float() / unit
        found[f"{name}.weight"] = rows.view(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)
        found[f"{name}.bias"] = integers[f"{name}.bias"].float() / (unit * 2.0**FRACTION_BITS)
    return found


def twin(integers: dict[str, Tensor], config: PriorConfig) -> Prior:
    """The float prior that a shipped one was made of, frozen; its hyper analysis, which is no part of it, untrained."""
    prior = Prior(config)
    prior.load_state_dict(float_prior(integers, prior.state_dict()), strict=False)
    return prior.eval().requires_grad_(False)
