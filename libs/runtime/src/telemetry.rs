//! Logs, traces and metrics of a process.
//!
//! Logs go to stderr, traces over OTLP if an endpoint is configured, metrics are asked for as text. A trace is
//! carried between services in the W3C header `traceparent`.
use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::ConfigErrors;
use crate::error::chain;
use crate::{Environment, LogFormat, MeshConfig, RuntimeError};

/// Upper bounds of the time histograms, in seconds: a cached check takes microseconds, a model's answer half a minute.
const BUCKETS_S: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// Samples wait in memory until they are put into their buckets; nobody may ever ask for the text.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// How long the last traces may take to leave.
const FLUSH_CAP: Duration = Duration::from_secs(2);

/// Whether spans are exported. Without, nothing is spent on trace headers.
static EXPORTING: AtomicBool = AtomicBool::new(false);

/// Sends the last traces when it is dropped; keep it as long as the process runs.
#[derive(Debug)]
#[must_use = "the last traces are sent when this is dropped"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.provider
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_CAP)
        {
            tracing::warn!(error = %chain(&error), "the last traces were not sent");
        }
    }
}

/// Sets up logs, traces and metrics of the process, once. `service` is its name in traces. Needs the runtime.
///
/// # Errors
/// A filter or endpoint that cannot be used, or a second call.
pub fn init(service: &'static str, config: &MeshConfig) -> Result<Telemetry, RuntimeError> {
    recorder();
    let filter = EnvFilter::try_new(&config.rust_log).map_err(|error| wrong("RUST_LOG", &error))?;
    let provider = match &config.otel_exporter_otlp_endpoint {
        Some(endpoint) => Some(exporter(service, endpoint)?),
        None => None,
    };
    let traces = provider.as_ref().map(|provider| {
        // Spans of ours only, whatever the log's filter says: an export must not trace itself.
        let ours = Targets::new().with_target("weft", LevelFilter::INFO);
        tracing_opentelemetry::layer().with_tracer(provider.tracer(service)).with_location(false).with_filter(ours)
    });
    tracing_subscriber::registry()
        .with(traces)
        .with(logs(config.weft_log_format).with_filter(filter))
        .try_init()
        .map_err(|error| RuntimeError::Telemetry(error.to_string()))?;
    EXPORTING.store(provider.is_some(), Ordering::Relaxed);
    if matches!(config.env, Environment::Prod | Environment::Staging) {
        log_panics();
    }
    Ok(Telemetry { provider })
}

/// All metrics of the process in Prometheus' text format.
pub fn metrics_text() -> String {
    recorder().render()
}

/// Makes `span` a part of the trace that a request says it belongs to.
pub fn continue_trace(span: &Span, headers: &HeaderMap) {
    if exporting() && headers.contains_key("traceparent") {
        let parent = TraceContextPropagator::new().extract(&Incoming(headers));
        // Refused only for a span that nobody records.
        let _recorded = span.set_parent(parent);
    }
}

/// Tells the next service which span calls it.
pub(crate) fn send_trace(span: &Span, headers: &mut HeaderMap) {
    if exporting() {
        TraceContextPropagator::new().inject_context(&span.context(), &mut Outgoing(headers));
    }
}

/// Whether spans are exported.
pub(crate) fn exporting() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

/// The process's metrics, set up when first asked for.
pub(crate) fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets(&BUCKETS_S).unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::error!("another metrics recorder is installed; ours stays empty");
        }
        let upkeep = handle.clone();
        // A thread and not a task: metrics belong to the process, whichever runtimes come and go in it.
        let started = std::thread::Builder::new().name("metrics-upkeep".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(UPKEEP_EVERY);
                upkeep.run_upkeep();
            }
        });
        if let Err(error) = started {
            tracing::error!(%error, "metrics are only tidied up when they are asked for");
        }
        handle
    })
}

fn wrong(key: &str, error: &dyn std::error::Error) -> RuntimeError {
    let mut errors = ConfigErrors::default();
    errors.push(key, &chain(error));
    RuntimeError::Telemetry(errors.to_string())
}

fn exporter(service: &'static str, endpoint: &str) -> Result<SdkTracerProvider, RuntimeError> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| wrong("OTEL_EXPORTER_OTLP_ENDPOINT", &error))?;
    let resource = Resource::builder().with_service_name(service).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

fn logs<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let pretty = match format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Pretty => true,
    };
    if pretty {
        fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal()).boxed()
    } else {
        fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(stderr).boxed()
    }
}

/// Where real users are, a panic is a log line with its place, and without its message: that may quote them.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic");
    }));
}

struct Incoming<'a>(&'a HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Outgoing<'a>(&'a mut HeaderMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        // The propagator writes `traceparent` and `tracestate`; an empty state says nothing.
        if !value.is_empty()
            && let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value))
        {
            self.0.insert(name, value);
        }
    }
}
