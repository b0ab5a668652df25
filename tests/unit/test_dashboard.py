"""examples/prometheus: the dashboard asks for metrics that there are, and a real Prometheus answers it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from lab.cli.metrics import PORT, served
from lab.core.scheduled.model import Rules
from lab.events.client import Control
from lab.process.clock import HostClock
from lab.report.metric_families import MetricKind
from lab.report.metrics import RUN_METRICS
from lab.report.service_metrics import SERVICE_METRICS
from lab.session.events_service import ServiceOptions, serving
from lab.session.listeners import Wanted
from lab.session.live_state import LiveState
from tests.unit.prometheus_tools import fetched, free_port, program, running
from tests.unit.real_histories import unpacked

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "prometheus"
DASHBOARD: dict[str, Any] = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
KINDS = (*RUN_METRICS, *SERVICE_METRICS)
EXPOSED: dict[str, MetricKind] = {name: kind for kind in KINDS for name in kind.exposed}
SELECTOR = re.compile(r"(freezelab_\w+)(?:\{([^}]*)\})?")
LATER = {"cells": "matrix", "workloads": "tolerance", "fleets": "rollout"}


def asked() -> Iterator[tuple[str, str]]:
    """Every query: where it stands, and what it is."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"].partition("(")[2].rpartition(",")[0]
    for found in re.finditer(r"expr: (.*)", (EXAMPLES / "alerts.yml").read_text()):
        yield "alerts.yml", found[1]


def test_queries_name_metrics_and_labels_that_there_are() -> None:
    for where, query in asked():
        found = SELECTOR.findall(query)
        assert found, where
        for name, matchers in found:
            assert name in EXPOSED, f"{where}: {name}"
            for label in re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers):
                assert label in EXPOSED[name].labels, f"{where}: {name} has no label {label}"
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            shown = {label for name, _ in SELECTOR.findall(target["expr"]) for label in EXPOSED[name].labels}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= shown, panel["title"]


def test_every_metric_is_documented_and_no_other() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    documented = set(re.findall(r"`(freezelab_\w+)`", text))
    main = {kind.exposed[0] for kind in KINDS}
    assert documented - set(EXPOSED) == set()
    assert main - documented == set()
    for kind in KINDS:
        line = next(line for line in text.splitlines() if f"| `{kind.exposed[0]}`" in line)
        assert f"| {kind.kind} |" in line
        assert all(f"`{label}`" in line for label in kind.labels), line


def test_the_dashboard_is_what_grafana_imports() -> None:
    assert (DASHBOARD["schemaVersion"], DASHBOARD["uid"]) == (42, "freezelab")
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    placed: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & placed, panel["title"]
        placed |= cells
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_promtool_accepts_the_configuration_and_the_rules(tmp_path: Path) -> None:
    for name in ("prometheus.yml", "alerts.yml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    for kind, name in (("config", "prometheus.yml"), ("rules", "alerts.yml")):
        argv = [str(program("promtool")), "check", kind, name]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
    assert f'"127.0.0.1:{PORT}"' in (EXAMPLES / "prometheus.yml").read_text()


@contextmanager
def prometheus(targets: list[str], folder: Path) -> Iterator[str]:
    """A real Prometheus, which scrapes these once a second; its URL."""
    config = folder / "prometheus.yml"
    jobs = ", ".join(f'"{target}"' for target in targets)
    config.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{EXAMPLES / 'alerts.yml'}]\n"
        f"scrape_configs:\n  - {{job_name: freezelab, static_configs: [{{targets: [{jobs}]}}]}}\n"
    )
    at = f"127.0.0.1:{free_port()}"
    argv: list[str | Path] = [
        program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={at}", "--log.level=warn",
    ]  # fmt: skip
    with running(argv, f"http://{at}/-/ready", folder):
        yield f"http://{at}"


def answers(url: str, query: str) -> list[dict[str, Any]]:
    given = json.loads(fetched(f"{url}/api/v1/query?{urlencode({'query': query})}")[0])
    assert given["status"] == "success", query
    return list(given["data"]["result"])


def without_variables(query: str) -> str:
    return query.replace("$__rate_interval", "10s").replace("$playbook", ".*").replace("$guest", ".*")


@pytest.fixture
def homes(tmp_path: Path) -> list[Path]:
    """State folders with runs of each kind that the dashboard has panels for."""
    made = []
    for name in ("matrix", "tolerance", "rollout"):
        folder = tmp_path / name / "runs" / f"20261128-{name}"
        folder.mkdir(parents=True)
        unpacked(name, folder)
        made.append(tmp_path / name)
    return made


def test_a_real_prometheus_has_an_answer_to_every_query(homes: list[Path], tmp_path: Path) -> None:
    options = ServiceOptions("default", Rules(), ["127.0.0.1:0=web-0"], [], Wanted([], [], [], []))
    short = Path("/tmp") / f"fl-d{free_port()}"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, short, ignore_errors=True)
        service = stack.enter_context(serving(short, options, HostClock()))
        host, port, _ = service.bound[0]
        for way in ("/metadata/scheduledevents?api-version=2020-07-01", "/metadata/nothing"):
            subprocess.run(
                ["curl", "-s", "-o", "/dev/null", "-H", "Metadata: true", f"http://{host}:{port}{way}"],
                check=True,
                timeout=20,
            )
        Control(short, None).announce({"all": True, "notice_ns": 3_600_000_000_000})
        urls = [stack.enter_context(served(LiveState(home), "127.0.0.1", 0)) for home in (*homes, short)]
        url = stack.enter_context(prometheus([each.split("/")[2] for each in urls], tmp_path))
        until = time.monotonic() + 60
        while sum(float(one["value"][1]) for one in answers(url, "up")) < len(urls) or not answers(
            url, "rate(freezelab_scheduled_events_polls_total[10s])"
        ):
            assert time.monotonic() < until, answers(url, "up")
            time.sleep(0.5)
        empty = [
            (where, query)
            for where, query in asked()
            if where != "alerts.yml" and not answers(url, without_variables(query))
        ]
        assert empty == []
        fired = set()
        while ("FreezelabRunNotPassed", "inconclusive") not in fired and time.monotonic() < until + 60:
            fired = {
                (one["metric"]["alertname"], one["metric"].get("outcome")) for one in answers(url, "ALERTS")
            }
            time.sleep(0.5)
        assert fired <= {("FreezelabNoRun", None), ("FreezelabRunNotPassed", "inconclusive")}
        assert ("FreezelabRunNotPassed", "inconclusive") in fired  # the rollout
        asking = fetched(f"{url}/api/v1/targets")[0]
        assert '"lastError":""' in asking
