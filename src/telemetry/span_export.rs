//! Sends spans to a collector (OTLP over gRPC), if one is configured.

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

/// An exporter of spans. Waiting spans are sent when it is dropped.
pub struct SpanExport {
    provider: SdkTracerProvider,
}

impl fmt::Debug for SpanExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpanExport")
    }
}

impl SpanExport {
    /// Opens an exporter. It contacts the collector later, and nothing waits for that. Call this inside tokio.
    ///
    /// # Errors
    /// If the address is malformed.
    pub fn open(endpoint: &str) -> Result<Self, TelemetryError> {
        let exporter = exporter(endpoint)?;
        let resource = Resource::builder().with_service_name(SERVICE).build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Self { provider })
    }

    /// Checks that an address is well-formed, without sending any spans. Call this inside tokio.
    ///
    /// # Errors
    /// If the address is malformed.
    pub fn check(endpoint: &str) -> Result<(), TelemetryError> {
        exporter(endpoint).map(drop)
    }

    /// Returns a layer that collects the spans of this crate. It leaves out everything at the level debug, which may
    /// name ids.
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

/// Returns the trace of a call whose span was just made: the caller's, the exporter's, or a new one. It has 32
/// hexadecimal digits.
#[must_use]
pub fn trace_id(span: &Span, parent: Option<TraceParent>) -> String {
    if let Some(TraceParent { trace_id, span_id, sampled }) = parent {
        let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        let (trace_id, span_id) = (TraceId::from(trace_id), SpanId::from(span_id));
        let is_remote = true;
        let remote = SpanContext::new(trace_id, span_id, flags, is_remote, TraceState::NONE);
        if span.set_parent(Context::new().with_remote_span_context(remote)).is_err() {
            tracing::trace!("spans are not exported, so this span has no parent");
        }
    }
    let context = span.context();
    let exported = context.span().span_context().trace_id();
    if exported != TraceId::INVALID {
        return exported.to_string();
    }
    // The last 80 of the 128 bits of a ULID are random.
    format!("{:032x}", parent.map_or_else(|| u128::from(Ulid::new()), |parent| parent.trace_id))
}
