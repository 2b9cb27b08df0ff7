#!/usr/bin/env bash
# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
# What texts and masks are coded with: soft prompts of the language model, counts of the coder `static`, counts of masks.
# Half an hour on one core: 16 + 6 + 6 minutes for the prompts, a few for `static`, one for masks.
# Writes text-1, static_model and mask_counts, whose names are fixed: files that were coded with others cannot be read with these.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source training/scripts/_photographs
models text

LM=(--lm "$CACHE/text/text-lm-1.safetensors" --tokenizer "$CACHE/text/tokenizer-1.json")
mkdir -p "$OUT"
python -m training.words.train_prompt --recipe training/runs/prompt-short.json --data "$FLICKR" "${LM[@]}" --out "$WORK/prompt-short"
python -m training.words.train_prompt --recipe training/runs/prompt-short-mixed.json --start "$WORK/prompt-short/best.safetensors" \
    --data "$FLICKR" "${LM[@]}" --out "$WORK/prompt-short-mixed"
python -m training.words.train_prompt --recipe training/runs/prompt-dense.json --data training/words/dense.jsonl "${LM[@]}" \
    --out "$WORK/prompt-dense"
python -m training.words.export_text --short "$WORK/prompt-short-mixed/best.safetensors" \
    --dense "$WORK/prompt-dense/best.safetensors" "${LM[@]}" --out "$OUT"
python -m training.words.train_static --captions "$FLICKR" --out "$OUT"
python -m training.words.train_masks --out "$OUT"
