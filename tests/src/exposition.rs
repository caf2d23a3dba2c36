//! Reads what `/metrics` says, more strictly than Prometheus does.
//!
//! Whatever `promtool check metrics` finds wrong is a panic here: samples that do not
//! belong to the family above them, families and series that come twice, counters that do
//! not end in `_total`, families without help, histograms that do not add up.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use crate::client::Client;

/// The samples of one scrape, by their series as written: `name{label="value"}`.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    samples: BTreeMap<String, f64>,
}

#[derive(Debug, Default)]
struct Family {
    name: String,
    kind: String,
    helped: bool,
}

impl Scrape {
    /// Asks for metrics, in both formats, and reads both.
    pub async fn of(address: SocketAddr) -> Self {
        let text = fetch(address, "text/plain", "text/plain; version=0.0.4").await;
        drop(Self::parse(&text, false));
        let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        let open = fetch(address, accept, "application/openmetrics-text; version=1.0.0").await;
        let body = open.strip_suffix("# EOF\n").expect("it ends with its end");
        Self::parse(body, true)
    }

    /// The value of one series.
    #[must_use]
    pub fn value(&self, series: &str) -> f64 {
        self.find(series).unwrap_or_else(|| panic!("{series} is not there: {self:#?}"))
    }

    /// The value of one series, if it is there.
    #[must_use]
    pub fn find(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// All series of counters and histograms that are lower than in a scrape before.
    #[must_use]
    pub fn lower_than(&self, before: &Self) -> Vec<String> {
        let counts = |series: &str| {
            let name = series.split('{').next().unwrap_or_default();
            ["_total", "_bucket", "_count", "_sum"].iter().any(|suffix| name.ends_with(suffix))
        };
        let former = before.samples.iter().filter(|(series, _)| counts(series));
        former
            .filter(|(series, value)| self.find(series).is_some_and(|now| now < **value))
            .map(|(series, _)| series.clone())
            .collect()
    }

    fn parse(text: &str, open_metrics: bool) -> Self {
        assert!(text.ends_with('\n'), "the last line has an end");
        let (mut scrape, mut family) = (Self::default(), Family::default());
        let mut families = BTreeSet::new();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let mut word = || words.next().unwrap_or_else(|| panic!("{line} is cut short"));
                let (what, name, rest) = (word(), word(), word());
                match what {
                    "HELP" => {
                        assert!(families.insert(name.to_owned()), "{name} comes twice");
                        assert!(!rest.trim().is_empty(), "{name} has no help");
                        family =
                            Family { name: name.to_owned(), helped: true, ..Family::default() };
                    }
                    "TYPE" => {
                        assert!(family.name == name && family.helped, "{name} has no help");
                        assert!(["counter", "gauge", "histogram"].contains(&rest), "{line}");
                        family.kind = rest.to_owned();
                    }
                    "UNIT" => {
                        assert!(open_metrics && name.ends_with(&format!("_{rest}")), "{line}");
                    }
                    _ => panic!("{line} is no comment"),
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line} has no number"));
            family.check(series, open_metrics);
            assert!(scrape.samples.insert(series.to_owned(), value).is_none(), "{series} twice");
        }
        scrape.check_histograms();
        scrape
    }

    fn check_histograms(&self) {
        let mut last: BTreeMap<String, f64> = BTreeMap::new();
        let mut buckets: Vec<(String, f64, f64)> = Vec::new();
        for (series, value) in &self.samples {
            let Some((name, labels)) = series.split_once("_bucket{le=\"") else { continue };
            let (bound, labels) = labels.split_once('"').expect("a label's value has an end");
            let bound =
                if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a number") };
            let labels = labels.trim_start_matches(',').trim_end_matches('}');
            let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            buckets.push((format!("{name}_count{labels}"), bound, *value));
        }
        buckets.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        for (count, _, value) in buckets {
            let former = last.insert(count, value).unwrap_or_default();
            assert!(former <= value || value == 0.0 && former == 0.0, "buckets are cumulative");
        }
        for (count, all) in last {
            assert_eq!(self.value(&count), all, "{count} is not its last bucket");
        }
    }
}

impl Family {
    fn check(&self, series: &str, open_metrics: bool) {
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => {
                (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("{series} has no end")))
            }
            None => (series, ""),
        };
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        assert!(name.bytes().all(word), "{name} is no name");
        let suffixes: &[&str] = match self.kind.as_str() {
            "histogram" => &["_bucket", "_sum", "_count"],
            "counter" if open_metrics => &["_total"],
            _ => &[""],
        };
        let belongs = |suffix: &&str| name.strip_suffix(*suffix) == Some(self.name.as_str());
        assert!(suffixes.iter().any(belongs), "{series} stands below {self:?}");
        assert_eq!(name.ends_with("_total"), self.kind == "counter", "{series} of {self:?}");
        for label in labels.split("\",").filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once("=\"").expect("a label has a quoted value");
            assert!(!key.is_empty() && key.bytes().all(word), "{series}: {key}");
            assert!(!value.trim_end_matches('"').contains('"'), "{series}: {value}");
        }
    }
}

async fn fetch(address: SocketAddr, accept: &str, expected: &str) -> String {
    let mut client = Client::connect(address).await;
    // By a name that management would not answer to.
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: lb.monitoring\r\nAccept: {accept}\r\n\r\n");
    client.send(&request).await;
    let response = client.response().await;
    assert_eq!(response.status, 200, "{}", response.head);
    let found = response.field("Content-Type").unwrap_or_default();
    assert!(found.starts_with(expected), "{accept}: {found}");
    response.text()
}
