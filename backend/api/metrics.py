"""What `/metrics` tells Prometheus. No label ever holds a user's name, a prompt or a path with an id in it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from backend.core.llm.breaker import Reason
from backend.core.llm.call_log import CallRecord

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # a client may make up others
LATENCY_BUCKETS_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The counters of one process. Observes model calls (`CallObserver`) and failing backends (`FailureObserver`)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._of_routes: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.requests = Counter(
            "http_requests", "Requests answered.", ["route", "method", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "http_request_seconds",
            "Time to the last byte.",
            ["route"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.open_streams = Gauge("open_streams", "Answers being streamed now.", registry=self.registry)
        self.model_calls = Counter(
            "llm_calls", "Model calls by outcome.", ["backend", "model", "outcome"], registry=self.registry
        )
        self.tokens = Counter(
            "llm_tokens", "Tokens read and written.", ["backend", "model", "kind"], registry=self.registry
        )
        self.first_token_seconds = Histogram(
            "llm_first_token_seconds",
            "Time to the first token.",
            ["backend"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.backend_up = Gauge(
            "llm_backend_up", "1 while a backend answers its probe.", ["backend"], registry=self.registry
        )
        self.prompt_log_dropped = Gauge(
            "prompt_log_dropped", "Model calls that the prompt log could not keep.", registry=self.registry
        )
        self.backend_failures = Counter(
            "llm_backend_failures", "Calls that a backend failed.", ["backend", "reason"], registry=self.registry
        )

    def count_request(self, route: str, method: str, status: int, elapsed_s: float) -> None:
        requests, seconds = self._of_route(route, method if method in METHODS else "other", status)
        requests.inc()
        seconds.observe(elapsed_s)

    def call_finished(self, record: CallRecord) -> None:
        backend, model = record.backend or "none", record.model or "none"
        self.model_calls.labels(backend, model, record.outcome).inc()
        if record.first_token_s is not None:
            self.first_token_seconds.labels(backend).observe(record.first_token_s)
        if record.usage:
            self.tokens.labels(backend, model, "prompt").inc(record.usage.prompt_tokens)
            self.tokens.labels(backend, model, "completion").inc(record.usage.completion_tokens)

    def backend_failed(self, backend: str, reason: Reason) -> None:
        self.backend_failures.labels(backend, reason).inc()

    def _of_route(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        key = (route, method, status)
        if key not in self._of_routes:  # as many as routes times statuses
            self._of_routes[key] = (
                self.requests.labels(route, method, str(status)),
                self.request_seconds.labels(route),
            )
        return self._of_routes[key]

    def render(self) -> bytes:
        return generate_latest(self.registry)
