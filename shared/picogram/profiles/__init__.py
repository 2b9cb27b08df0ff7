# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Recipes that turn a picture into sections and sections into a picture."""
