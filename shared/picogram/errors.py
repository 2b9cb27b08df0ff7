# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Everything that can go wrong and be named.

    PicogramError
    ├── UsageError              arguments that make no sense together or are out of range
    │   └── BudgetTooSmall      no file of that picture fits the byte budget
    ├── ImageError
    │   ├── UnreadableImage     not an image, or a damaged one
    │   ├── UnsupportedImage    an image we refuse by policy (animated, unknown format)
    │   └── ImageTooLarge       more pixels than the limit
    ├── BitstreamError
    │   ├── NotAPicogram        the magic is missing
    │   ├── CorruptBitstream    truncated, altered, or impossible fields
    │   ├── UnsupportedVersion  written by a newer Picogram
    │   ├── UnsupportedProfile  this decoder has no such profile or section
    │   ├── UnknownModel        names a model that this installation lacks
    │   └── LimitExceeded       claims more pixels or bytes than the limits allow
    ├── ModelError
    │   ├── ModelMissing        weights are not where they should be
    │   ├── ModelDamaged        weights do not match their hash
    │   └── SelfCheckFailed     a fresh file did not decode to what was coded: a faulty machine
    └── JobError
        ├── QueueFull           try again later
        ├── BrokerUnavailable   the job store cannot be reached
        ├── JobTimeout          the deadline passed
        ├── JobCanceled         somebody asked for that
        ├── JobUnknown          no such job, or its result has expired
        ├── JobConflict         an idempotency key came again with another request
        ├── JobOutOfMemory      it does not fit a worker's memory even alone
        ├── JobAbandoned        workers died of it again and again
        └── JobFailed           a fault of ours; the worker's log has it

``slug`` is stable: it ends the HTTP problem type and is printed by the CLI, whose exit code is ``exit_code``.
"""

from __future__ import annotations

from typing import ClassVar


class PicogramError(Exception):
    """Base of all errors this package raises on purpose; ``str(error)`` is one line for a person."""

    slug: ClassVar[str] = "error"
    title: ClassVar[str] = "Picogram error"
    exit_code: ClassVar[int] = 1


class UsageError(PicogramError):
    slug, title, exit_code = "usage", "Invalid arguments", 2


class BudgetTooSmall(UsageError):
    slug, title = "budget-too-small", "Byte budget too small"


class ImageError(PicogramError):
    slug, title, exit_code = "image", "Image problem", 3


class UnreadableImage(ImageError):
    slug, title = "unreadable-image", "Unreadable image"


class UnsupportedImage(ImageError):
    slug, title = "unsupported-image", "Unsupported image"


class ImageTooLarge(ImageError):
    slug, title = "image-too-large", "Image too large"


class BitstreamError(PicogramError):
    slug, title, exit_code = "bitstream", "Bitstream problem", 4


class NotAPicogram(BitstreamError):
    slug, title = "not-a-picogram", "Not a picogram"


class CorruptBitstream(BitstreamError):
    slug, title = "corrupt-bitstream", "Corrupt bitstream"


class UnsupportedVersion(BitstreamError):
    slug, title = "unsupported-version", "Unsupported bitstream version"


class UnsupportedProfile(BitstreamError):
    slug, title = "unsupported-profile", "Unsupported profile"


class UnknownModel(BitstreamError):
    slug, title = "unknown-model", "Unknown model"


class LimitExceeded(BitstreamError):
    slug, title = "limit-exceeded", "Limit exceeded"


class ModelError(PicogramError):
    slug, title, exit_code = "model", "Model problem", 5


class ModelMissing(ModelError):
    slug, title = "model-missing", "Model missing"


class ModelDamaged(ModelError):
    slug, title = "model-damaged", "Model damaged"


class SelfCheckFailed(ModelError):
    slug, title = "self-check-failed", "Self-check failed"


class JobError(PicogramError):
    slug, title, exit_code = "job", "Job problem", 6


class QueueFull(JobError):
    slug, title = "queue-full", "Queue full"


class BrokerUnavailable(JobError):
    slug, title = "broker-unavailable", "Job store unavailable"


class JobTimeout(JobError):
    slug, title = "job-timeout", "Deadline passed"


class JobCanceled(JobError):
    slug, title = "job-canceled", "Job canceled"


class JobUnknown(JobError):
    slug, title = "job-unknown", "Unknown job"


class JobConflict(JobError):
    slug, title = "idempotency-conflict", "Idempotency key already used"


class JobOutOfMemory(JobError):
    slug, title = "out-of-memory", "Out of memory"


class JobAbandoned(JobError):
    slug, title = "job-abandoned", "Job abandoned"


class JobFailed(JobError):
    slug, title = "internal", "Internal error"
