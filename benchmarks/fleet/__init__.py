# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Measurements of the fleet: overhead, batching, scaling, chaos, load and hostility, each a command that writes JSON."""
