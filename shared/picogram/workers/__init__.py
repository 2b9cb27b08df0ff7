# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A worker as a process of its own: what the packages of the services run (``process``), its probes (``health``) and its
settings (``settings``). Below it are ``picogram.jobs``, which does the work, and ``picogram.observe``, which tells of it.
"""
