# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Which broker: a setting, and nothing else differs."""

from __future__ import annotations

from picogram.jobs.broker import Broker
from picogram.jobs.memory import MemoryBroker
from picogram.jobs.queue_settings import QueueSettings


def open_broker(settings: QueueSettings) -> Broker:
    """The broker of the job store that the settings name, else one within this process.

    Nothing is connected yet: a store that is away shows as BrokerUnavailable when it is used.
    """
    if settings.redis_url is None:
        return MemoryBroker(settings.queue_depth, settings.result_ttl_seconds, settings.max_result_bytes)
    from picogram.jobs.redis import RedisBroker

    return RedisBroker.of(settings)
