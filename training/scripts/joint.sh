#!/usr/bin/env bash
# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
# The joint space of pictures and captions. 8 minutes on one core; scores take some minutes more.
# Before it features of pictures and states of captions are made, once (not timed); taco.sh uses them, too.
# The run ends by itself when held-out scores have not risen for six looks. Arguments go to the run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source training/scripts/_photographs
models text features

RECIPE=${RECIPE:-training/runs/joint-01.json}
RUN=${RUN:-$WORK/$(basename "$RECIPE" .json)}
MODEL=${MODEL:-2}
states
python -m training.joint.train --recipe "$RECIPE" --data "$WORK/states" --out "$RUN" "$@"
python -m training.joint.export "$RUN" --model "$MODEL" --recipe "$RECIPE" --out "$RUN" --overwrite # to be measured
python -m training.joint.validate --data "$FLICKR" --weights "$RUN/joint-$MODEL.safetensors" --out "$RUN/scores.json"
python -m training.joint.export "$RUN" --model "$MODEL" --recipe "$RECIPE" --out "$OUT" --scores "$RUN/scores.json"
