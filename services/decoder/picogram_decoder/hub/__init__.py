# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Large diffusion models from a model hub behind the sampler's ``Denoiser``: docs/gpu-decoder.md. Needs the extra
``decoder-hub``; what is imported from here costs seconds, so only ``load`` is imported by others, and only when needed.

    models (which) ── fetch (files, hashes) ── parts (networks) ── denoiser (steps), prompts (words), guidance (attention)
"""
