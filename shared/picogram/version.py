# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The version of this package, for whoever must not import all of it to know."""

VERSION = "0.1.0"
