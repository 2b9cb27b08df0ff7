#!/usr/bin/env bash
# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
# The captioner: a projector from picture features, low-rank adapters and a prompt, from the soft prompt that text.sh makes.
# 68 minutes on one core; before it features of all pictures are made, once (not timed).
# Writes captioner-1; no file depends on it. Scores, with OUT=shared/picogram/models/weights: `python -m training.words.validate_captioner`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source training/scripts/_photographs
models text features

LM=(--lm "$CACHE/text/text-lm-1.safetensors" --tokenizer "$CACHE/text/tokenizer-1.json")
PROMPT=${PROMPT:-$WORK/prompt-short-mixed/best.safetensors}
RUN=${RUN:-$WORK/captioner}
if [ ! -e "$WORK/features/photos.json" ]; then
    python -m training.words.extract_features "$FLICKR" --weights "$CACHE/features/features-1.safetensors" --out "$WORK/features"
fi
mkdir -p "$OUT"
python -m training.words.train_visual --recipe training/runs/captioner.json --data "$FLICKR" --features "$WORK/features" \
    "${LM[@]}" --prompt "$PROMPT" --out "$RUN"
python -m training.words.export_captioner --run "$RUN" --data "$FLICKR" --tokenizer "$CACHE/text/tokenizer-1.json" --out "$OUT"
