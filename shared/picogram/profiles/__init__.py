# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The profiles of the format, one module each; ``registry`` lists them."""
