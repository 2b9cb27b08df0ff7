# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Measurements of ``--focus``: whether bits go to what the words name, by masks drawn by eye on held-out photographs."""
