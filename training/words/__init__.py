# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Training of everything that has to do with words: soft prompts, the captioner, start counts."""
