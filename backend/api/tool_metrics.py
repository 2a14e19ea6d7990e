"""What the tools API's `/metrics` tells beside what both servers tell."""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from backend.api.metrics import LATENCY_BUCKETS_S, Metrics
from backend.core.tool_runs import Outcome
from backend.core.toolbox import LoadedTool


class ToolMetrics(Metrics):
    def __init__(self) -> None:
        super().__init__()
        self.tool_calls = Counter("tool_calls", "Calls by outcome.", ["tool", "outcome"], registry=self.registry)
        self.tool_seconds = Histogram(
            "tool_seconds",
            "Time from the call to its result, waiting included.",
            ["tool"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.tool_running = Gauge("tool_running", "Calls that run now.", ["tool"], registry=self.registry)
        self.tool_waiting = Gauge("tool_waiting", "Calls that wait for a place.", ["tool"], registry=self.registry)

    def run_finished(self, tool: str, outcome: Outcome, duration_s: float) -> None:
        self.tool_calls.labels(tool, outcome).inc()
        self.tool_seconds.labels(tool).observe(duration_s)

    def observe_queues(self, tools: Iterable[LoadedTool]) -> None:
        for tool in tools:
            self.tool_running.labels(tool.spec.name).set(tool.queue.running)
            self.tool_waiting.labels(tool.spec.name).set(tool.queue.waiting)
