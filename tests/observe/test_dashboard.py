# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Dashboard and alerts ask for metrics, labels and values that gateway and workers really export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import promql_parser
import pytest
import yaml
from prometheus_client.metrics_core import Metric

from picogram.jobs import Job, MemoryBroker, Result
from picogram.jobs.observer import Ending
from picogram.observe.metrics import WorkerMetrics
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.telemetry import GatewayMetrics, QueueDepth

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "picogram.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
SCRAPES = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
SCRAPED = {"job", "instance"}
"""Labels that the scraper adds."""
VARIABLES = {"$__rate_interval": "5m", "$step": "encoder"}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in ALERTS["groups"] for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str]]:
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"]
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            yield f"{panel['title']} {target['refId']}", query
    for rule in rules():
        yield rule["alert"], rule["expr"]


QUERIES = dict(queries())


def exported() -> dict[str, set[str]]:
    """Labels by name of sample, of everything that is exported once work has been done."""
    workers, gateway = WorkerMetrics(), GatewayMetrics()
    job = Job("encode", b"abc", ("encoder",))
    workers.announce("encoder")
    workers.loaded("encoder", 1.0)
    workers.fetched("encoder", [job])
    with workers.started("encoder", [job]):
        pass
    workers.batch("encoder", "", 1, 0.1)
    workers.finished("encoder", job, Result(b"", "text/plain"), "done")
    gateway.requests.labels("/v1/encode", "POST", "200").inc()
    gateway.seconds.labels("/v1/encode").observe(1.0)
    gateway.bitstream_bytes.labels("base").observe(900)
    families: list[Metric] = [*workers.registry.collect(), *gateway.registry.collect()]
    labels: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


@pytest.fixture(scope="module")
def samples() -> dict[str, set[str]]:
    return {**exported(), "picogram_queue_depth": {"step", "priority"}, "up": set()}


def selectors(node: Any) -> Iterator[Any]:
    """All metrics that a query reads."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for part in parts(node):
        yield from selectors(part)


def parts(node: Any) -> list[Any]:
    if isinstance(node, promql_parser.MatrixSelector):
        return [node.vector_selector]
    if isinstance(node, promql_parser.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, promql_parser.Call):
        return list(node.args)
    if isinstance(
        node, promql_parser.AggregateExpr | promql_parser.ParenExpr | promql_parser.UnaryExpr
    ) or hasattr(node, "expr"):
        return [node.expr]
    return []


def named_labels(node: Any) -> set[str]:
    """Labels that a query groups or joins by."""
    names: set[str] = set()
    modifier = getattr(node, "modifier", None)
    if isinstance(node, promql_parser.AggregateExpr) and modifier is not None:
        names |= set(modifier.labels)
    if isinstance(node, promql_parser.BinaryExpr) and modifier is not None:
        names |= set(modifier.matching.labels) if modifier.matching else set()
        names |= set(modifier.group_labels or ())
    return names.union(*(named_labels(part) for part in parts(node)))


async def test_queue_depth_is_exported_with_the_labels_asked_for() -> None:
    import asyncio

    collector = QueueDepth(MemoryBroker(), asyncio.get_running_loop())
    (family,) = await asyncio.to_thread(lambda: list(collector.collect()))
    assert family.name == "picogram_queue_depth"
    assert {frozenset(sample.labels) for sample in family.samples} == {frozenset({"step", "priority"})}


@pytest.mark.parametrize("title", QUERIES)
def test_queries_read_what_is_exported(title: str, samples: dict[str, set[str]]) -> None:
    query = promql_parser.parse(QUERIES[title])
    found = list(selectors(query))
    assert found
    known = set(SCRAPED)
    for selector in found:
        assert selector.name in samples, f"nobody exports {selector.name}"
        known |= samples[selector.name]
        wanted = {matcher.name for matcher in selector.matchers.matchers}
        assert wanted <= samples[selector.name] | SCRAPED, f"{selector.name} has no such label"
    assert named_labels(query) <= known


@pytest.mark.parametrize("title", QUERIES)
def test_queries_ask_for_values_that_occur(title: str) -> None:
    possible = {"outcome": set(get_args(Ending)), "priority": {"high", "normal"}, "direction": {"in", "out"}}
    possible["step"] = {"encoder", "decoder", "lmm", "inspector"}
    possible["code"] = {"200", "404", "429", "500", "503", "504"}
    possible["route"] = {"/v1/encode", "/v1/decode"}
    possible["job"] = {scrape["job_name"] for scrape in SCRAPES["scrape_configs"]}
    for selector in selectors(promql_parser.parse(QUERIES[title])):
        for matcher in selector.matchers.matchers:
            pattern = re.compile(matcher.value)
            assert any(pattern.fullmatch(value) for value in possible[matcher.name]), str(matcher)


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_legends_name_labels_that_survive_the_query(
    panel: dict[str, Any], samples: dict[str, set[str]]
) -> None:
    for target in panel["targets"]:
        query = promql_parser.parse(QUERIES[f"{panel['title']} {target['refId']}"])
        left = named_labels(query) | (SCRAPED if "group_left" in target["expr"] else set())
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= left


def test_every_metric_is_on_the_dashboard(samples: dict[str, set[str]]) -> None:
    shown = {s.name for p in panels() for t in p["targets"] for s in selectors(parse_target(p, t))}
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in samples}
    missing = {
        name
        for name in families
        if name.startswith("picogram_") and not any(s.startswith(name) for s in shown)
    }
    assert not missing


def parse_target(panel: dict[str, Any], target: dict[str, Any]) -> Any:
    return promql_parser.parse(QUERIES[f"{panel['title']} {target['refId']}"])


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    cells = [
        (x, y)
        for panel in everything
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert [panel["title"] for panel in everything if panel["type"] == "row"] == [
        "Traffic",
        "Queues",
        "Workers",
        "Codec bytes",
    ]


def test_alerts_are_documented_and_mention_labels_that_they_have() -> None:
    told = (DEPLOY.parent / "docs" / "observability.md").read_text()
    for rule in rules():
        assert f"`{rule['alert']}`" in told
        assert rule["labels"]["severity"] in ("warning", "critical")
        labels = named_labels(promql_parser.parse(rule["expr"])) | SCRAPED
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= labels


def test_metrics_are_documented(samples: dict[str, set[str]]) -> None:
    told = (DEPLOY.parent / "docs" / "observability.md").read_text()
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in samples}
    assert not {name for name in families if name.startswith("picogram_") and f"`{name}" not in told}


def test_the_scraper_knows_services_and_ports_of_the_compose_file() -> None:
    compose = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())
    for scrape in SCRAPES["scrape_configs"]:
        (found,) = scrape["dns_sd_configs"]
        for name in found["names"]:
            environment = compose["services"][name]["environment"]
            ports = {environment.get("PICOGRAM_METRICS_PORT"), environment.get("PICOGRAM_HEALTH_PORT")}
            assert str(found["port"]) in ports
    assert GatewaySettings.model_fields["health_port"].default == 9000
