//! Sends spans to a collector (OTLP over gRPC), where one is configured.

use std::fmt;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;
use ulid::Ulid;

use super::{TelemetryError, TraceParent};

/// The name of this service and of its spans' library.
const SERVICE: &str = "ragward";

/// Spans on their way to a collector. What waits is sent when this is dropped.
pub struct SpanExport {
    provider: SdkTracerProvider,
}

impl fmt::Debug for SpanExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpanExport")
    }
}

impl SpanExport {
    /// Prepares the way; the collector is contacted later, and nothing waits for it. Must run inside tokio.
    ///
    /// # Errors
    /// When the address is not one.
    pub fn open(endpoint: &str) -> Result<Self, TelemetryError> {
        let exporter = exporter(endpoint)?;
        let resource = Resource::builder().with_service_name(SERVICE).build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Self { provider })
    }

    /// Checks that spans can be sent to an address, without sending any. Must run inside tokio.
    ///
    /// # Errors
    /// When the address is not one.
    pub fn check(endpoint: &str) -> Result<(), TelemetryError> {
        exporter(endpoint).map(drop)
    }

    /// What takes the spans. Of this crate only, and never what is told at debug, which may name ids.
    #[must_use]
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> {
        let layer = tracing_opentelemetry::layer().with_tracer(self.provider.tracer(SERVICE));
        let layer = layer.with_location(false).with_threads(false).with_tracked_inactivity(false);
        layer.with_filter(Targets::new().with_target(SERVICE, Level::INFO))
    }
}

fn exporter(endpoint: &str) -> Result<SpanExporter, TelemetryError> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
    exporter.map_err(|e| TelemetryError::Endpoint { endpoint: endpoint.to_owned(), detail: e.to_string() })
}

impl Drop for SpanExport {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// The trace of a call whose span has just been made: the caller's, the exporter's, or a new one. 32 hexadecimal digits.
#[must_use]
pub fn trace_id(span: &Span, parent: Option<TraceParent>) -> String {
    if let Some(TraceParent { trace_id, span_id, sampled }) = parent {
        let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        let (trace_id, span_id) = (TraceId::from(trace_id), SpanId::from(span_id));
        let remote = SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE);
        // Nothing takes it where spans are not exported.
        span.set_parent(Context::new().with_remote_span_context(remote)).unwrap_or_default();
    }
    let context = span.context();
    let exported = context.span().span_context().trace_id();
    if exported != TraceId::INVALID {
        return exported.to_string();
    }
    // The last 80 of the 128 bits of a ULID are random.
    format!("{:032x}", parent.map_or_else(|| u128::from(Ulid::new()), |parent| parent.trace_id))
}
