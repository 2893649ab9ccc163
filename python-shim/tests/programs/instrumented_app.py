"""An app with the instrumentation of Sentry and OpenTelemetry, set up as their manuals say.

What they would send is appended to the file that TOLD names, one JSON object a line.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import sentry_sdk
from celery import Celery, signals
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport


def tell(**what):
    """Append a line."""
    with Path(os.environ["TOLD"]).open("a") as file:
        file.write(json.dumps(what) + "\n")


class TellingTransport(Transport):
    """Takes the place of Sentry's server."""

    def capture_envelope(self, envelope):
        """Tell of each event and transaction."""
        for item in envelope.items:
            event = item.payload.json
            if item.type in {"event", "transaction"} and event:
                tell(
                    sentry=item.type,
                    transaction=event.get("transaction"),
                    trace=event["contexts"]["trace"],
                    celery=event.get("extra", {}).get("celery-job"),
                    exceptions=[
                        one["type"] for one in event.get("exception", {}).get("values", [])
                    ],
                )


class TellingExporter(SpanExporter):
    """Takes the place of a collector."""

    def export(self, spans):
        """Tell of each span."""
        for span in spans:
            tell(
                span=span.name,
                trace=f"{span.context.trace_id:032x}",
                parent=f"{span.parent.span_id:016x}" if span.parent else None,
                attributes={key: str(value) for key, value in span.attributes.items()},
                is_error=not span.status.is_unset and not span.status.is_ok,
            )
        return SpanExportResult.SUCCESS


@signals.celeryd_init.connect
def init_sentry(**_):
    """Set Sentry up when a worker starts."""
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        transport=TellingTransport,
        integrations=[CeleryIntegration()],
        traces_sample_rate=1.0,
    )


@signals.worker_process_init.connect
def instrument(**_):
    """Begin to trace, in the process that runs tasks."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(TellingExporter()))
    CeleryInstrumentor().instrument(tracer_provider=provider)


app = Celery("instrumented")


@app.task
def add(x, y):
    """Return the sum."""
    return x + y


@app.task
def fail():
    """Fail."""
    raise ValueError("failed")


@app.task
def sends():
    """Send another task."""
    return add.delay(1, 2).id
