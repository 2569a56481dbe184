"""The one door to Prometheus' text format: figures in, a page out. What is counted is the business of who counts."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Self

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.errors import SettingsError

_FAMILIES: Final = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}


class Figure(NamedTuple):
    """One metric: a value a set of labels. Every row has the labels of the first one."""

    name: str  # a counter's ends in _total
    kind: Literal["counter", "gauge"]
    text: str
    rows: Sequence[tuple[Mapping[str, str], float]]


def exposition(figures: Iterable[Figure]) -> str:
    """The figures in Prometheus' text format."""
    return generate_latest(_registry(lambda: figures)).decode()


class MetricsPage:
    """`/metrics` over HTTP, in a thread of its own, until `close`."""

    def __init__(self, host: str, port: int, figures: Callable[[], Iterable[Figure]]) -> None:
        """Serve what `figures` says at each request. Raises SettingsError where the address can't be had."""
        try:
            self._server, self._thread = start_http_server(port, host, _registry(figures))
        except OSError as error:
            raise SettingsError(
                f"the metrics page can't have {host}:{port} ({error.strerror or error}): "
                "name another WATTRATE_METRICS_PORT, or 0 for none"
            ) from error
        self.port = self._server.server_port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Figures(Collector):
    def __init__(self, figures: Callable[[], Iterable[Figure]]) -> None:
        self._figures = figures

    def describe(self) -> Iterator[Metric]:
        """Nothing is known before it is asked for."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The figures now."""
        for figure in self._figures():
            labels = list(figure.rows[0][0]) if figure.rows else []
            family = _FAMILIES[figure.kind](figure.name, figure.text, labels=labels)
            for named, value in figure.rows:
                family.add_metric(list(named.values()), value)
            yield family


def _registry(figures: Callable[[], Iterable[Figure]]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(figures))
    return registry
