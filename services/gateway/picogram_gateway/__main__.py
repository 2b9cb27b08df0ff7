# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m picogram_gateway``: the gateway, with all workers in this process or, given ``--redis``, over a store."""

from __future__ import annotations

import argparse
import sys

from picogram.errors import PicogramError
from picogram_gateway.serve import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="picogram_gateway", description=__doc__)
    parser.add_argument("--host", help="address to listen on (default: PICOGRAM_HOST, else 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port (default: PICOGRAM_PORT, else 8080)")
    parser.add_argument("--redis", help="URL of the job store (default: PICOGRAM_REDIS_URL, else none)")
    arguments = parser.parse_args()
    try:
        main(arguments.host, arguments.port, arguments.redis)
    except PicogramError as error:
        print(f"error: {error} [{error.slug}]", file=sys.stderr)
        sys.exit(error.exit_code)
