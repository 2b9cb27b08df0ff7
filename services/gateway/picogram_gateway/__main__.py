# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m picogram_gateway``: the embedded server, gateway and workers in one process."""

from __future__ import annotations

import argparse

from picogram_gateway.serve import main
from picogram_gateway.settings import Settings

if __name__ == "__main__":
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="picogram_gateway", description=__doc__)
    parser.add_argument("--host", default=defaults.host, help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", default=defaults.port, type=int, help="port (default: %(default)s)")
    arguments = parser.parse_args()
    main(arguments.host, arguments.port)
