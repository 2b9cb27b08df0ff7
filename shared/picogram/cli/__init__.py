# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The command line: ``picogram encode | decode | inspect | serve | bench | models``."""
