//! Writes a scrape, family by family, as OpenMetrics.
//!
//! The text itself is made by `prometheus-client`, without its registry of values: ours
//! are read where they are counted.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{Definition, Kind};
use crate::stats::LatencyHistogram;

/// The bounds of every histogram of durations, in microseconds. They are the edges of our
/// own buckets that are next to 0.1, 0.25, 0.5 ms and so on up to 10 s, so that each
/// count is exact and not interpolated.
pub const DURATION_BOUNDS_US: [u64; 16] = [
    128, 256, 512, 1024, 2560, 5120, 10_240, 24_576, 49_152, 98_304, 262_144, 524_288, 1_048_576,
    2_621_440, 5_242_880, 10_485_760,
];

/// The most labels of a metric.
const LABELS_MAX: usize = 4;

/// A scrape on its way.
#[derive(Debug)]
pub struct Exposition<'a>(DescriptorEncoder<'a>);

/// The samples of one metric.
#[derive(Debug)]
pub struct Family<'a> {
    encoder: MetricEncoder<'a>,
    labels: &'static [&'static str],
}

/// The text of a scrape, in the OpenMetrics format. `collect` writes one family after
/// the other.
pub fn encode<F>(collect: F) -> Result<String, fmt::Error>
where
    F: Fn(&mut Exposition<'_>) -> fmt::Result + Send + Sync + 'static,
{
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Collected(collect)));
    let mut text = String::with_capacity(16 * 1024);
    text::encode(&mut text, &registry)?;
    Ok(text)
}

struct Collected<F>(F);

impl<F> fmt::Debug for Collected<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collected").finish_non_exhaustive()
    }
}

impl<F> Collector for Collected<F>
where
    F: Fn(&mut Exposition<'_>) -> fmt::Result + Send + Sync + 'static,
{
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)(&mut Exposition(encoder))
    }
}

impl Exposition<'_> {
    /// Begins a family. Each is written once, with all of its samples.
    pub fn family(
        &mut self,
        definition: &Definition,
        samples: impl FnOnce(&mut Family<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let (name, unit) = base_name(definition);
        let kind = match definition.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        let encoder = self.0.encode_descriptor(name, definition.help, unit.as_ref(), kind)?;
        samples(&mut Family { encoder, labels: definition.labels })
    }

    /// A counter without labels.
    pub fn counter(&mut self, definition: &Definition, value: u64) -> fmt::Result {
        self.family(definition, |family| family.counter(&[], value))
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, definition: &Definition, value: f64) -> fmt::Result {
        self.family(definition, |family| family.gauge(&[], value))
    }
}

impl Family<'_> {
    /// One count.
    pub fn counter(&mut self, labels: &[&str], value: u64) -> fmt::Result {
        self.with(labels, |encoder| encoder.encode_counter::<NoLabelSet, _, f64>(&value, None))
    }

    /// One count of seconds.
    pub fn seconds(&mut self, labels: &[&str], value: f64) -> fmt::Result {
        self.with(labels, |encoder| encoder.encode_counter::<NoLabelSet, _, f64>(&value, None))
    }

    /// One value.
    pub fn gauge(&mut self, labels: &[&str], value: f64) -> fmt::Result {
        self.with(labels, |encoder| encoder.encode_gauge(&value))
    }

    /// Durations.
    pub fn histogram(&mut self, labels: &[&str], durations: &LatencyHistogram) -> fmt::Result {
        let mut buckets = [(f64::INFINITY, 0); DURATION_BOUNDS_US.len() + 1];
        for ((bound, _), us) in buckets.iter_mut().zip(DURATION_BOUNDS_US) {
            *bound = us as f64 / 1e6;
        }
        for (bucket, count) in durations.sparse() {
            // What lies on a bound was rounded down to it and is below the next one.
            let upper = LatencyHistogram::bucket_upper_us(bucket as usize);
            let place = DURATION_BOUNDS_US.partition_point(|bound| *bound <= upper);
            buckets[place].1 += count;
        }
        let sum = durations.sum_us() as f64 / 1e6;
        self.with(labels, |encoder| {
            encoder.encode_histogram::<NoLabelSet>(sum, durations.count(), &buckets, None)
        })
    }

    fn with(
        &mut self,
        values: &[&str],
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        debug_assert_eq!(self.labels.len(), values.len(), "each label has a value");
        if values.is_empty() {
            return write(&mut self.encoder);
        }
        let mut pairs = [("", ""); LABELS_MAX];
        for (pair, label) in pairs.iter_mut().zip(self.labels.iter().zip(values)) {
            *pair = (*label.0, *label.1);
        }
        let pairs = &pairs[..values.len().min(LABELS_MAX)];
        write(&mut self.encoder.encode_family(&pairs)?)
    }
}

/// The name without what the encoder adds: the unit, and `_total`.
fn base_name(definition: &Definition) -> (&'static str, Option<Unit>) {
    let name = definition.name;
    let name = match definition.kind {
        Kind::Counter => name.strip_suffix("_total").unwrap_or(name),
        Kind::Gauge | Kind::Histogram => name,
    };
    for (suffix, unit) in [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes)] {
        if let Some(base) = name.strip_suffix(suffix) {
            return (base, Some(unit));
        }
    }
    (name, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTER: Definition = Definition::counter("lb_a_total", &["pool"], "How often");
    const SECONDS: Definition = Definition::counter("process_cpu_seconds_total", &[], "Work");
    const GAUGE: Definition = Definition::gauge("lb_b_bytes", &[], "How much");
    const DURATIONS: Definition = Definition::histogram("lb_c_seconds", &["pool"], "How long");

    #[test]
    fn a_scrape_is_openmetrics() {
        let text = encode(|exposition| {
            exposition.family(&COUNTER, |family| {
                family.counter(&["a\"b"], 1)?;
                family.counter(&["c"], 2)
            })?;
            exposition.family(&SECONDS, |family| family.seconds(&[], 1.5))?;
            exposition.gauge(&GAUGE, 3.0)
        })
        .unwrap();
        let expected = "# HELP lb_a How often\n# TYPE lb_a counter\n\
            lb_a_total{pool=\"a\\\"b\"} 1\nlb_a_total{pool=\"c\"} 2\n\
            # HELP process_cpu_seconds Work\n# TYPE process_cpu_seconds counter\n\
            # UNIT process_cpu_seconds seconds\nprocess_cpu_seconds_total 1.5\n\
            # HELP lb_b_bytes How much\n# TYPE lb_b_bytes gauge\n# UNIT lb_b_bytes bytes\n\
            lb_b_bytes 3.0\n# EOF\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn every_bound_is_an_edge_of_our_buckets() {
        for bound in DURATION_BOUNDS_US {
            let below = LatencyHistogram::bucket_of(bound - 1);
            assert_eq!(LatencyHistogram::bucket_upper_us(below), bound - 1, "{bound}");
        }
    }

    #[test]
    fn durations_are_counted_below_their_bounds() {
        let mut durations = LatencyHistogram::default();
        for us in [0, 127, 128, 5119, 5120, 99_000_000] {
            durations.record(us);
        }
        let text = encode(move |exposition| {
            exposition.family(&DURATIONS, |family| family.histogram(&["p"], &durations))
        })
        .unwrap();
        for line in [
            "lb_c_seconds_count{pool=\"p\"} 6",
            "lb_c_seconds_bucket{le=\"0.000128\",pool=\"p\"} 2",
            "lb_c_seconds_bucket{le=\"0.000256\",pool=\"p\"} 3",
            "lb_c_seconds_bucket{le=\"0.00512\",pool=\"p\"} 4",
            "lb_c_seconds_bucket{le=\"0.01024\",pool=\"p\"} 5",
            "lb_c_seconds_bucket{le=\"10.48576\",pool=\"p\"} 5",
            "lb_c_seconds_bucket{le=\"+Inf\",pool=\"p\"} 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
