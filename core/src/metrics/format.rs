//! The two texts that Prometheus reads, and which of them a client wants.

/// How a scrape is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Prometheus' own text, version 0.0.4, which everything reads.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What a client wants that sends this `Accept`: OpenMetrics, if it names it and does
    /// not like plain text better.
    #[must_use]
    pub fn wanted(accept: &str) -> Self {
        let (mut open_metrics, mut text) = (0.0_f32, 0.0_f32);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut quality = 1.0_f32;
            let mut known = true;
            for part in parts {
                let (key, value) = part.split_once('=').unwrap_or((part, ""));
                match (key.trim().to_ascii_lowercase().as_str(), value.trim().trim_matches('"')) {
                    ("q", value) => quality = value.parse().unwrap_or(0.0),
                    ("version", version) => {
                        let text = media.starts_with("text/");
                        known = if text { version == "0.0.4" } else { version == "1.0.0" };
                    }
                    _ => {}
                }
            }
            let best = match media.as_str() {
                "application/openmetrics-text" => &mut open_metrics,
                "text/plain" | "text/*" | "*/*" => &mut text,
                _ => continue,
            };
            if known {
                *best = best.max(quality);
            }
        }
        if open_metrics > 0.0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// The `Content-Type` of the answer.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// A scrape in this format. `open_metrics` is what [`super::exposition::encode`] made.
    #[must_use]
    pub fn of(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Text => plain(&open_metrics),
        }
    }
}

/// In plain text a counter's family has the name of its samples, and there are neither
/// units nor an end.
fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        let renamed = match line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            Some((name, help)) if lines.peek().is_some_and(|next| is_counter(next, name)) => {
                format!("# HELP {name}_total {help}")
            }
            _ => {
                match line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")) {
                    Some(name) => format!("# TYPE {name}_total counter"),
                    None => {
                        text.push_str(line);
                        text.push('\n');
                        continue;
                    }
                }
            }
        };
        text.push_str(&renamed);
        text.push('\n');
    }
    text
}

/// Whether a line says that the family is a counter.
fn is_counter(line: &str, name: &str) -> bool {
    let rest = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_prefix(name));
    rest == Some(" counter")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_what_it_likes_best() {
        for (accept, expected) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=1.0.0", Format::OpenMetrics),
            ("application/openmetrics-text;version=9.0.0", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=0.3,text/plain;version=0.0.4;q=0.5", Format::Text),
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                 version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                 encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;\
                 escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(Format::wanted(accept), expected, "{accept}");
        }
    }

    #[test]
    fn plain_text_names_counters_as_their_samples() {
        let text = Format::Text.of(
            "# HELP a_seconds How long\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
             a_seconds_total{p=\"# UNIT \"} 1\n# HELP b Now\n# TYPE b gauge\nb 2\n# EOF\n"
                .to_owned(),
        );
        assert_eq!(
            text,
            "# HELP a_seconds_total How long\n# TYPE a_seconds_total counter\n\
             a_seconds_total{p=\"# UNIT \"} 1\n# HELP b Now\n# TYPE b gauge\nb 2\n"
        );
    }
}
