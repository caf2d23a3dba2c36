//! Metrics as both planes give them to Prometheus: what a metric is, how a scrape is
//! written, and what is the same for every process.
//!
//! Nothing is kept here. Whoever is scraped reads the counters that it has anyway, and
//! writes them in the order of its definitions: a metric costs nothing until somebody
//! asks for it.
//!
//! | module | does |
//! |---|---|
//! | [`exposition`] | writes the text |
//! | [`mod@format`] | which of the two texts a client gets |
//! | [`process`] | memory, descriptors and processor time |
//! | [`upstream`] | requests at pools and backends |

pub mod exposition;
pub mod format;
pub mod process;
pub mod upstream;

use std::{fmt, str::FromStr};

pub use self::{exposition::Exposition, format::Format};

/// What there is to know about a metric before it has a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Definition {
    /// As PromQL spells it, unit and `_total` included.
    pub name: &'static str,
    /// What its values mean.
    pub kind: Kind,
    /// The names of its labels, in the order of their values.
    pub labels: &'static [&'static str],
    /// One sentence without a full stop, a quote or a backslash.
    pub help: &'static str,
}

/// What the values of a metric mean.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often values fell below certain bounds, with their sum and number.
    Histogram,
}

impl Kind {
    /// As the exposition and the documentation spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Definition {
    /// A counter; `name` ends in `_total`.
    #[must_use]
    pub const fn counter(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Counter, labels, help }
    }

    /// A gauge.
    #[must_use]
    pub const fn gauge(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Gauge, labels, help }
    }

    /// A histogram.
    #[must_use]
    pub const fn histogram(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Histogram, labels, help }
    }
}

/// Its row in `docs/metrics.md`.
impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<String> = self.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, labels) = (self.name, self.kind.name(), labels.join(", "));
        write!(f, "| `{name}` | {kind} | {labels} | {} |", self.help)
    }
}

/// The version of the build, as a label of a gauge that is always 1.
pub const BUILD_INFO: Definition =
    Definition::gauge("lb_build_info", &["version"], "Always 1; the version of the build");

/// Whether a scrape has series for single backends.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PerBackend {
    /// Up to [`Self::AUTO_MAX`] backends.
    #[default]
    Auto,
    /// Always, however many there are.
    On,
    /// Never: pools only.
    Off,
}

impl PerBackend {
    /// The most backends of which [`Self::Auto`] tells one by one: some 5 000 series for
    /// each process that is scraped.
    pub const AUTO_MAX: usize = 500;

    /// Whether this many backends are told one by one.
    #[must_use]
    pub fn applies_to(self, backends: usize) -> bool {
        match self {
            Self::Auto => backends <= Self::AUTO_MAX,
            Self::On => true,
            Self::Off => false,
        }
    }
}

impl FromStr for PerBackend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            other => Err(format!("{other:?} is not auto, on or off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_fleet_is_told_by_pool_unless_asked_for() {
        assert!(PerBackend::Auto.applies_to(500) && !PerBackend::Auto.applies_to(501));
        assert!(PerBackend::On.applies_to(10_000) && !PerBackend::Off.applies_to(1));
        assert_eq!("off".parse(), Ok(PerBackend::Off));
        assert!("Off".parse::<PerBackend>().is_err());
    }

    #[test]
    fn a_definition_is_a_row_of_the_documentation() {
        let row = Definition::counter("lb_a_total", &["pool", "result"], "How often").to_string();
        assert_eq!(row, "| `lb_a_total` | counter | `pool`, `result` | How often |");
    }
}
