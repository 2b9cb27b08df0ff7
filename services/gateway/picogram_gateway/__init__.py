# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The HTTP gateway: requests in, jobs out. No model runs here, and torch is never imported by it."""
