# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The job store of a fleet. Needs the extra [queue] (redis-py); nothing else imports it."""

from picogram.jobs.redis.redis_broker import RedisBroker

__all__ = ["RedisBroker"]
