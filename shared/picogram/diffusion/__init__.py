# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The embedded diffusion model: a small network that restores base pictures, and the arithmetic of its steps."""
