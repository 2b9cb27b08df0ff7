# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Three probes, open to anybody: alive, started, ready."""

from __future__ import annotations

from fastapi import APIRouter, Request

from picogram_gateway import openapi
from picogram_gateway.exchange import dispatcher_of
from picogram_gateway.problems import not_ready

router = APIRouter(tags=["probes"])


@router.get("/livez", summary="Does the process respond?")
async def livez() -> dict[str, str]:
    """Always 200."""
    return {"status": "alive"}


@router.get("/startupz", summary="Are the models loaded?", responses=openapi.problems(503))
async def startupz(request: Request) -> dict[str, str]:
    """200 once the models of this process are loaded; a gateway with workers elsewhere has none."""
    if not dispatcher_of(request).warm:
        raise not_ready("the models are not loaded yet")
    return {"status": "started"}


@router.get("/readyz", summary="Should requests be sent here?", responses=openapi.problems(503))
async def readyz(request: Request) -> dict[str, str]:
    """200 while the models are loaded, the job store answers and nobody shuts the server down."""
    await dispatcher_of(request).check()
    return {"status": "ready"}
