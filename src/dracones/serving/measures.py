"""What a Prometheus server reads: requests, refusals, verdicts, seconds, batches, the models themselves."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from dracones.serving.models import Served

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Measures:
    """Counters of one service; labels are names of models in service and of routes, never what a client sent."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._file: dict[str, str] = {}
        held = self.registry
        self.requests = Counter("dracones_requests", "Requests answered.", ["route", "status"], registry=held)
        self.admitted = Counter("dracones_admitted", "Requests let in.", registry=held)
        self.finished = Counter("dracones_finished", "Requests let in whose answer was handed over.", registry=held)
        self.inside = Gauge("dracones_inside", "Requests in the house.", registry=held)
        self.allowed = Gauge("dracones_allowed", "Requests that may be in the house now.", registry=held)
        self.images = Counter("dracones_images", "Images judged.", ["model", "verdict"], registry=held)
        self.seconds = Histogram(
            "dracones_request_seconds", "From admission to answer.", ["model"], buckets=_SECONDS, registry=held
        )
        self.batch_images = Histogram(
            "dracones_batch_images", "Images a batch.", ["model"], buckets=_IMAGES, registry=held
        )
        self.batch_seconds = Histogram(
            "dracones_batch_seconds", "Seconds a batch was scored.", ["model"], buckets=_SECONDS, registry=held
        )
        self.waiting = Gauge("dracones_waiting_images", "Images that wait to be scored.", ["model"], registry=held)
        self.threshold = Gauge(
            "dracones_threshold", "Score above which an image is anomalous.", ["model"], registry=held
        )
        self.info = Gauge("dracones_model", "1 for the file in service.", ["model", "sha256"], registry=held)
        self.reloads = Counter("dracones_reloads", "Changed model files.", ["model", "outcome"], registry=held)
        self.audit_written = Counter("dracones_audit_records", "Lines of the audit log.", registry=held)
        self.audit_lost = Counter("dracones_audit_lost", "Lines that could not be written.", registry=held)
        self.log_martingale = Gauge(
            "dracones_monitor_log_martingale",
            "Evidence that the images have changed; of all sources together where none is named.",
            ["model", "source"],
            registry=held,
        )
        self.alarm = Gauge("dracones_monitor_alarm", "1: the images have changed.", ["model", "source"], registry=held)

    def change(self, model: str, source: str, state: Mapping[str, Any]) -> None:
        """What the monitor says of a source."""
        self.log_martingale.labels(model, source).set(state["log_martingale"])
        self.alarm.labels(model, source).set(state["alarm"])

    def batches(self, name: str) -> Callable[[int, float], None]:
        """What a batcher tells of its batches."""
        images, seconds = self.batch_images.labels(name), self.batch_seconds.labels(name)

        def observe(count: int, took: float) -> None:
            images.observe(count)
            seconds.observe(took)

        return observe

    def model(self, served: "Served") -> None:
        """Which file is in service under a name."""
        current = served.current
        self.info.labels(served.name, current.sha256).set(1)
        self._file[served.name] = current.sha256
        self.waiting.labels(served.name).set_function(lambda: served.batcher.waiting)
        self.threshold.labels(served.name).set(float("nan") if current.threshold is None else current.threshold)

    def reloaded(self, served: "Served", swapped: bool) -> None:
        """A changed file was put in service, or was not."""
        self.reloads.labels(served.name, "swapped" if swapped else "refused").inc()
        if swapped:
            self.info.remove(served.name, self._file[served.name])
            self.model(served)

    def text(self) -> bytes:
        """All of it in Prometheus' own format."""
        return generate_latest(self.registry)
