# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a running fleet tells of itself: logs (``logs``), Prometheus metrics (``metrics``) and traces (``tracing``).

Worker ── Observer calls ──┬── LogObserver      structlog lines with job and trace ids
                           ├── WorkerMetrics    counters and histograms, read at /metrics
                           └── TracingObserver  OpenTelemetry spans, exported over OTLP/HTTP if wanted
"""
