# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The coder ``vllm-float``: texts under any language model that vLLM serves, for one deployment on both sides.

    text ── the model's own tokens ── float logits rounded to 1/256 ── integer counts ── range coder

Float logits differ between processors, versions and kernels, so a stream starts with a fingerprint of the engine, and
another engine refuses it. The fingerprint covers what was asked for and the bits of the logits of a probe. On CPUs,
products of one row are computed as products of two, because vLLM's kernels round a single row in another way; then the
size of the batch makes no difference. On GPUs that takes ``VLLM_BATCH_INVARIANT=1``, without which no engine starts.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from picogram.errors import CorruptBitstream, ModelError, PicogramError, UnknownModel
from picogram.text import raw
from picogram.text.fixed import fixed_symbol, read_fixed
from picogram.text.token_rangecoder import WideRangeDecoder, WideRangeEncoder
from picogram_lmm.coding_processor import ReadingScript, RoundingProcessor, Row, WritingScript
from picogram_lmm.vllm_engine import DEFAULT_ROWS, Engine

_FINGERPRINT_TOTAL = 1 << 16
_ENDINGS = (236, 16, 4)
"""A text ends with a newline token; with the model's own end token, if newlines occur in it; or is written raw."""
_LINE, _OWN, _RAW = range(3)
_PROBE_STEPS = 4


class VllmFloatCoder:
    """A ``FloatCoder`` for ``picogram.text.coder.TextCoder``."""

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        dtype: str = "float32",
        prompt: str = "Caption of a photo:",
        rows: int = DEFAULT_ROWS,
        **options: Any,
    ) -> None:
        """``model``: a name or directory as vLLM takes it; ``prompt``: what stands before every text, on both sides.

        ModelError if the model cannot be loaded or gives its logits in another way from run to run.
        """
        self.engine = Engine(model, RoundingProcessor, rows, revision=revision, dtype=dtype, **options)
        llm = self.engine.llm
        self.batching = _make_batch_invariant(llm)
        self._tokenizer: Any = llm.get_tokenizer()
        self._room: int = llm.llm_engine.model_config.max_model_len
        self._prompt = self._split(prompt) or [self._own_end]
        newline = self._split("\n")
        self._newline = newline[0] if len(newline) == 1 else None
        facts = [model, revision, dtype, prompt, _version(), *_processor(), self.batching, self._probe()]
        if facts[-1] != self._probe():
            raise ModelError(f"{model} does not give the same logits twice on this machine")
        digest = hashlib.sha256("\n".join(map(str, facts)).encode()).digest()
        self.fingerprint = int.from_bytes(digest[:2], "big")

    def write(self, encoders: Sequence[WideRangeEncoder], texts: Sequence[str]) -> None:
        """Append each text to its stream. One that does not survive the model's tokens is written raw."""
        for encoder in encoders:
            encoder.encode(self.fingerprint, 1, _FINGERPRINT_TOTAL)
        jobs: list[tuple[WideRangeEncoder, int, WritingScript]] = []
        for encoder, text in zip(encoders, texts, strict=True):
            ids = self._tokens(text)
            ending = self._ending(ids)
            encoder.encode(*fixed_symbol(_ENDINGS, ending))
            if ids is None or ending == _RAW:
                raw.write(encoder, text)
            else:
                jobs.append((encoder, self._end(ending), WritingScript([*ids, self._end(ending)])))
        scripts = [script for _, _, script in jobs]
        self._run(scripts, [end for _, end, _ in jobs], [len(s.ids) for s in scripts])
        for encoder, _, script in jobs:
            for symbol in script.symbols:
                encoder.encode(*symbol)

    def read(self, decoders: Sequence[WideRangeDecoder]) -> list[str | PicogramError]:
        """The text of each stream; UnknownModel for one that another engine wrote, CorruptBitstream for nonsense."""
        found: list[str | PicogramError | None] = []
        jobs: list[tuple[int, int, ReadingScript]] = []
        for index, decoder in enumerate(decoders):
            try:
                self._check_fingerprint(decoder)
                ending = read_fixed(decoder, _ENDINGS)
                found.append(raw.read(decoder) if ending == _RAW else None)
                if ending != _RAW:
                    end = self._end(ending)
                    jobs.append((index, end, ReadingScript(decoder, end, self._limit)))
            except PicogramError as error:
                found.append(error)
        scripts = [script for _, _, script in jobs]
        self._run(scripts, [end for _, end, _ in jobs], [self._limit + 1] * len(jobs))
        for index, _, script in jobs:
            script.finish()
            found[index] = script.error or self._text(script.ids)
        return [text if text is not None else CorruptBitstream("no text") for text in found]

    @property
    def _limit(self) -> int:
        return self._room - len(self._prompt) - 1

    @property
    def _own_end(self) -> int:
        end: int | None = self._tokenizer.eos_token_id
        if end is None:
            raise ModelError("the model has no end token")
        return end

    def _end(self, ending: int) -> int:
        if ending == _LINE:
            if self._newline is None:
                raise CorruptBitstream("the words end with a token that this model does not have")
            return self._newline
        return self._own_end

    def _ending(self, ids: list[int] | None) -> int:
        if ids is None or len(ids) > self._limit:
            return _RAW
        if self._newline is not None and self._newline not in ids:
            return _LINE
        return _OWN if self._own_end not in ids else _RAW

    def _tokens(self, text: str) -> list[int] | None:
        """Tokens that spell the text, or None."""
        ids = self._split(" " + text)
        back = self._text(ids)
        return ids if back == text else None

    def _split(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _text(self, ids: list[int]) -> str | PicogramError:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text[1:] if text.startswith(" ") else CorruptBitstream("the coded words are not a text")

    def _check_fingerprint(self, decoder: WideRangeDecoder) -> None:
        found = decoder.target(_FINGERPRINT_TOTAL)
        decoder.advance(found, 1, _FINGERPRINT_TOTAL)
        if found != self.fingerprint:
            raise UnknownModel(f"the words need vLLM engine {found:04x}; this one is {self.fingerprint:04x}")

    def _run(
        self, scripts: Sequence[WritingScript | ReadingScript], ends: list[int], limits: list[int]
    ) -> None:
        prompts = [{"prompt_token_ids": self._prompt}] * len(scripts)
        self.engine.run(prompts, scripts, ends, limits)

    def _probe(self) -> str:
        script = _Probe()
        self.engine.run([{"prompt_token_ids": self._prompt}], [script], [self._own_end], [_PROBE_STEPS])
        return script.digest.hexdigest()


class _Probe:
    """Says the likeliest tokens and hashes all logits."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def step(self, index: int, logits: Row) -> int:
        self.digest.update(logits.tobytes())
        return int(logits.argmax())


def _version() -> str:
    import vllm

    return str(vllm.__version__)


def _processor() -> list[str]:
    limits = [os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")]
    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
    )
    return [platform.machine(), device, *limits]


def _make_batch_invariant(llm: Any) -> str:
    """Make logits independent of the batch, and say how; ModelError where that cannot be."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        llm.apply_model(pad_single_rows)
        return "two-rows"
    if os.environ.get("VLLM_BATCH_INVARIANT") == "1":
        return "invariant"
    raise ModelError("set VLLM_BATCH_INVARIANT=1: without it logits depend on what else is in the batch")


def pad_single_rows(model: nn.Module) -> int:
    """Let every linear layer of a vLLM CPU model see at least two rows; how many layers that were."""
    found: list[Any] = [module for module in model.modules() if hasattr(module, "cpu_linear")]
    for module in found:
        module.cpu_linear = _padded(module.cpu_linear)
    return len(found)


def _padded(inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.numel() != x.shape[-1]:
            return inner(x, weight, bias)
        twice = x.reshape(1, -1).repeat(2, 1)
        return inner(twice, weight, bias)[:1].reshape(*x.shape[:-1], -1)

    return linear
