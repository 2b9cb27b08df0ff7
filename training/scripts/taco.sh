#!/usr/bin/env bash
# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
# A latent model that listens: a text adapter and the joint image-text loss, on a latent model (START; default: the shipped one).
# 80 minutes on one core with bfloat16 products.
# Before it pictures are decoded and captions read by the language model, once (not timed). Arguments go to the run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source training/scripts/_photographs
models metrics text features

RECIPE=${RECIPE:-training/runs/taco-01.json}
RUN=${RUN:-$WORK/$(basename "$RECIPE" .json)}
photographs
states
if [ ! -e "$WORK/captioned/photos.json" ]; then
    python -m training.taco.pack "$FLICKR" --out "$WORK/captioned" # 6,977 whole captioned photographs, 1.1 GB
fi
python -m training.taco.train --recipe "$RECIPE" --start "${START:-$WEIGHTS/latent-2.safetensors}" \
    --photos "$WORK/photos" --captioned "$WORK/captioned" --states "$WORK/states" --metrics "$CACHE/metrics" --out "$RUN" "$@"
python -m training.latent.export "$RUN/average.safetensors" --photos "$WORK/photos" --model "${MODEL:-3}" --out "$OUT" \
    --command "training/scripts/taco.sh with $RECIPE"
