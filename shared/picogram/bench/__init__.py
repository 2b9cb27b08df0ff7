# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Picogram against classical codecs at equal bytes: codecs, the search for a setting, measures and reports.

picture, budget ── search (codecs) ──> Choice ── measure ──> Row ── report ──> JSON, tables, plots
"""
