# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Text coders: an exact language model, vLLM with floats, a static model, raw bytes; see docs/text.md."""
