# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The language-model worker on vLLM: describes pictures, and codes and decodes texts inside the engine (docs/vllm.md).

Only ``exact_model``, ``coding_processor``, ``engine``, ``exact_coder``, ``float_coder`` and ``captioner`` need vLLM, and
each imports it when it is used; the rest runs anywhere.
"""
