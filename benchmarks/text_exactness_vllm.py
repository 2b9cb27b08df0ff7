# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The other engine: sections that ``text_exactness --sections`` wrote with torch, read and written again by vLLM.

    PYTHONPATH=shared:services/lmm .venv-vllm/bin/python -m benchmarks.text_exactness_vllm SECTIONS.json

Batches of 1, 8 and 16 take turns; the share of single texts is small, since they are slow. Prints mismatches and writes
``benchmarks/results/text_exactness_vllm.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from picogram.models.store import text_model_file
from picogram.text.coder import TextCoder
from picogram.text.lm.loading_lm import load_prompts, load_tokenizer
from picogram_lmm.exact_coder import VllmLMCoder

SHARES = {1: 0.1, 8: 0.3, 16: 0.6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/text_exactness_vllm.json"))
    args = parser.parse_args()
    stored = [(text, bytes.fromhex(section)) for text, section in json.loads(args.sections.read_text())]
    coder = TextCoder(VllmLMCoder(text_model_file(), load_tokenizer(), load_prompts()))
    rows, first = [], 0
    for batch, share in SHARES.items():
        count = round(share * len(stored))
        own, first = stored[first : first + count], first + count
        wrong = [0, 0]
        for start in range(0, len(own), batch):
            texts = [text for text, _ in own[start : start + batch]]
            sections = [section for _, section in own[start : start + batch]]
            coded = coder.encode(texts, coders=("exact-lm",), kinds=("short", "plain"))
            wrong[0] += sum(c.section != s for c, s in zip(coded, sections, strict=True))
            wrong[1] += sum(a != b for a, b in zip(coder.decode(sections), texts, strict=True))
        rows.append({"batch": batch, "texts": len(own), "bytes": wrong[0], "decoded": wrong[1]})
        print(rows[-1], flush=True)
        mismatches = sum(row["bytes"] + row["decoded"] for row in rows)
        found = {"texts": first, "mismatches": mismatches, "batches": rows}
        args.out.write_text(json.dumps(found, indent=1) + "\n")  # each time: a run may be stopped


if __name__ == "__main__":
    main()
