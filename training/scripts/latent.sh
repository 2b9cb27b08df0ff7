#!/usr/bin/env bash
# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
# A latent model, from the shipped one (START: from other weights). 75 minutes on one core with bfloat16 products.
# RECIPE=training/runs/latent-03.json, with a trunk, is for a GPU: a quarter of an hour on an H200 (expected), 10 hours on a core.
# Pictures are decoded before it, and 24 held-out ones coded after it: some minutes each. Arguments go to the run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source training/scripts/_photographs
models metrics text

RECIPE=${RECIPE:-training/runs/latent-03-core.json}
RUN=${RUN:-$WORK/$(basename "$RECIPE" .json)}
photographs
python -m training.latent.train --recipe "$RECIPE" --start "${START:-$WEIGHTS/latent-2.safetensors}" \
    --photos "$WORK/photos" --metrics "$CACHE/metrics" --out "$RUN" "$@"
python -m training.latent.validate "$RUN/average.safetensors" --photos "$WORK/photos" --images "$ARCHIVES/photos1024.tar" \
    --metrics "$CACHE/metrics" --out "$RUN/scores.json"
python -m training.latent.export "$RUN/average.safetensors" --photos "$WORK/photos" --model "${MODEL:-3}" --out "$OUT" \
    --command "training/scripts/latent.sh with $RECIPE"
