"""What the server says to Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from mezzotint.apps.server.asking import Asks, Serves
from mezzotint.apps.server.queue import OPEN
from mezzotint.apps.server.service import Service
from mezzotint.apps.server.tables import jobs, outputs, reading

router = APIRouter()
STATES = (*OPEN, "done", "failed", "cancelled")


class _Told(Collector):
    """What is known now; counted anew at each request, so that it is right after a restart."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        with reading(self._service.engine) as connection:
            by_state = select(jobs.c.state, func.count()).group_by(jobs.c.state)
            counted: dict[str, int] = dict(connection.execute(by_state).tuples().all())
            made, size = connection.execute(
                select(func.count(), func.coalesce(func.sum(outputs.c.bytes), 0))
            ).one()
            spent = func.sum(jobs.c.finished - jobs.c.started)
            seconds = connection.scalar(select(spent).where(jobs.c.state == "done")) or 0.0
        family = GaugeMetricFamily("mezzotint_jobs", "Jobs by their state.", labels=["state"])
        for state in STATES:
            family.add_metric([state], counted.get(state, 0))
        yield family
        crew, hub = self._service.crew, self._service.hub
        for name, what, value in (
            ("workers", "Worker processes that live.", 0 if crew is None else crew.alive),
            ("tasks", "Tasks of the event loop.", 0 if crew is None else crew.tasks),
            ("listeners", "Clients that follow jobs.", len(hub)),
            ("outputs", "Pictures in the gallery.", made),
            ("output_bytes", "Bytes of their files.", size),
        ):
            yield GaugeMetricFamily(f"mezzotint_{name}", what, value)
        yield CounterMetricFamily("mezzotint_job_seconds", "Spent on jobs that are done.", seconds)


@router.get("/metrics", response_class=Response, include_in_schema=False)
def metrics(who: Asks, service: Serves) -> Response:
    """Numbers for Prometheus: for who may see all."""
    service.need(who, "admin")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told(service))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
