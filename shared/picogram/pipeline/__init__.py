# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""From a picture to a file and back: words, rate, latent, drawing. ``picogram.api`` puts the parts in a row."""
