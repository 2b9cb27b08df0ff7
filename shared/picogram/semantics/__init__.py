# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a photograph shows: image features, objects with masks, and the description that goes into a file."""
