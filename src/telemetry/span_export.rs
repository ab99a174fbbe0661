//! Sends spans to a collector (OTLP over gRPC), if one is configured.
//!
//! INVARIANT (only `config` reads the environment): the libraries read variables of their own (`OTEL_…`) for whatever a caller
//! leaves unset, and add headers from them. So everything is set here, and every header that they add is taken away.

use std::fmt;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanLimits};
use tonic::service::Interceptor;
use tonic::{Request, Status};
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;
use ulid::Ulid;

use super::{TelemetryConfig, TelemetryError, TraceParent};
use crate::client_tls::TrustedAuthorities;

/// The name of this service and of its spans' library.
const SERVICE: &str = "ragward";
/// The most spans that wait to be sent; more are dropped. The library's own default, like the three after it.
const SPANS_WAITING_MAX: usize = 2_048;
/// The most spans of one call to the collector.
const SPANS_PER_CALL_MAX: usize = 512;
/// The time between two calls to the collector, if there are few spans.
const SEND_INTERVAL: Duration = Duration::from_secs(5);
/// The longest that one call to the collector may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Opens an exporter. The exporter contacts the collector later, and no request waits for it. Call this function
    /// inside tokio.
    ///
    /// # Errors
    /// If the address is malformed, or the file of authorities cannot be used.
    pub fn open(config: &TelemetryConfig) -> Result<Option<Self>, TelemetryError> {
        let Some(exporter) = exporter(config)? else { return Ok(None) };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(SPANS_WAITING_MAX)
            .with_max_export_batch_size(SPANS_PER_CALL_MAX)
            .with_scheduled_delay(SEND_INTERVAL);
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches.build()).build();
        let resource = Resource::builder_empty().with_detector(Box::new(TelemetryResourceDetector));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_span_limits(SpanLimits::default())
            .with_resource(resource.with_service_name(SERVICE).build())
            .build();
        Ok(Some(Self { provider }))
    }

    /// Checks the settings, without sending any spans. Call this inside tokio.
    ///
    /// # Errors
    /// If the address is malformed, or the file of authorities cannot be used.
    pub fn check(config: &TelemetryConfig) -> Result<(), TelemetryError> {
        exporter(config).map(drop)
    }

    /// Returns a layer that collects the spans of this crate. It leaves out everything below the level info, because
    /// debug events may name ids.
    #[must_use]
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> {
        let layer = tracing_opentelemetry::layer().with_tracer(self.provider.tracer(SERVICE));
        let layer = layer.with_location(false).with_threads(false).with_tracked_inactivity(false);
        layer.with_filter(Targets::new().with_target(SERVICE, Level::INFO))
    }
}

fn exporter(config: &TelemetryConfig) -> Result<Option<SpanExporter>, TelemetryError> {
    let ca_file = config.otlp_ca_file.as_deref();
    let Some(address) = &config.otlp_endpoint else {
        return ca_file.map_or(Ok(None), |path| Err(TelemetryError::NoCollector(path.to_owned())));
    };
    let wrong = |detail: String| TelemetryError::Endpoint { endpoint: address.clone(), detail };
    let trusted = TrustedAuthorities::read(ca_file).map_err(|e| wrong(e.to_string()))?;
    let endpoint = trusted.endpoint(address).map_err(|e| wrong(e.to_string()))?;
    // The channel is made here, because the exporter's own has no TLS.
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_channel(endpoint.connect_lazy())
        .with_timeout(SEND_TIMEOUT)
        .with_interceptor(WithoutHeaders)
        .build();
    exporter.map(Some).map_err(|e| wrong(e.to_string()))
}

/// Takes away the headers that the library has added to a call. The channel adds those of gRPC afterwards.
#[derive(Clone, Copy, Debug)]
struct WithoutHeaders;

impl Interceptor for WithoutHeaders {
    fn call(&mut self, mut call: Request<()>) -> Result<Request<()>, Status> {
        call.metadata_mut().clear();
        Ok(call)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_tls::sample::Authority;

    #[tokio::test]
    async fn certificates_need_a_collector_with_tls() {
        let authority = Authority::new("ours");
        let absent = authority.directory().join("absent.pem");
        let (plain, over_tls) = (Some("http://127.0.0.1:4317"), Some("https://localhost:4317"));
        let rows = [
            ("no collector", None, None, None),
            ("a collector", plain, None, None),
            ("a collector with TLS", over_tls, Some(authority.file()), None),
            ("certificates without a collector", None, Some(authority.file()), Some("names no collector")),
            ("certificates without TLS", plain, Some(authority.file()), Some("only an `https://` address uses")),
            ("certificates that are not there", over_tls, Some(absent), Some("cannot read the certificates")),
            ("no address", Some("not an address"), None, Some("must have the form")),
        ];
        for (name, endpoint, otlp_ca_file, expected) in rows {
            let otlp_endpoint = endpoint.map(str::to_owned);
            let config = TelemetryConfig { otlp_endpoint, otlp_ca_file, ..TelemetryConfig::default() };
            let refused = SpanExport::check(&config).err().map(|e| e.to_string());
            assert_eq!(refused.is_some(), expected.is_some(), "{name}: {refused:?}");
            assert!(refused.unwrap_or_default().contains(expected.unwrap_or_default()), "{name}");
        }
    }
}
