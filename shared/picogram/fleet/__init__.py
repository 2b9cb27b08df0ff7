# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A whole fleet on one machine without containers, for demonstrations and for tests of the real processes.

python -m picogram.fleet ──┬── valkey-server      (unless --redis names one)
                           ├── picogram_gateway   http://127.0.0.1:8080
                           ├── picogram_encoder, picogram_decoder, picogram_lmm, any number of each
                           └── SIGTERM or Ctrl-C: gateway, workers and store end in that order, drained
"""

from picogram.fleet.processes import Fleet, FleetProcess
from picogram.fleet.store_server import ValkeyServer, find_server, free_port

__all__ = ["Fleet", "FleetProcess", "ValkeyServer", "find_server", "free_port"]
