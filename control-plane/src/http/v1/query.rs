//! What stands behind the question mark. What nobody reads is refused: a mistyped
//! `dry_run` must not write.

use std::time::Duration;

use lb_proto::document::unit::parse_duration;

use super::fault::Fault;

/// The longest wait. What waits longer is a client that has forgotten its request.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(3600);

/// The parameters of a request, read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Query {
    /// Check and answer, but store nothing.
    pub(super) dry_run: bool,
    /// Leave to remove over half of a pool's backends.
    pub(super) force: bool,
    /// Remove what the document does not declare.
    pub(super) prune: bool,
    /// How long live proxies are waited for.
    pub(super) wait: Option<Duration>,
    /// After how long what is left of a drain is cut.
    pub(super) timeout: Option<Duration>,
    /// Remove the backend when its drain has ended.
    pub(super) remove: bool,
    /// Only this pool's backends.
    pub(super) pool: Option<String>,
    /// How many events of before.
    pub(super) past: Option<usize>,
}

/// The parameters of every write.
pub(super) const WRITE: &[&str] = &["dry_run", "wait"];

/// Those of a drain.
pub(super) const DRAIN: &[&str] = &["dry_run", "remove", "timeout", "wait"];

/// Those of a batch.
pub(super) const BATCH: &[&str] = &["dry_run", "force", "prune", "wait"];

impl Query {
    /// Reads a query of which these are known.
    pub(super) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Fault> {
        let mut read = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for (pair, name, value) in pairs(query) {
            let shown: String = pair.chars().take(60).collect();
            if !known.contains(&name) {
                let there_is = match known {
                    [] => "this takes no parameters".to_owned(),
                    known => format!("known here are {}", known.join(", ")),
                };
                return Err(Fault::bad(format!(
                    "the parameter {shown:?} is not known; {there_is}"
                )));
            }
            if seen.contains(&name) {
                return Err(Fault::bad(format!(
                    "the parameter {name} is given twice; give it once"
                )));
            }
            seen.push(name);
            let wrong = |why: &str| Fault::bad(format!("the parameter {shown:?} is wrong: {why}"));
            match name {
                "dry_run" => read.dry_run = truth(value).map_err(wrong)?,
                "force" => read.force = truth(value).map_err(wrong)?,
                "prune" => read.prune = truth(value).map_err(wrong)?,
                "remove" => read.remove = truth(value).map_err(wrong)?,
                "timeout" => {
                    read.timeout = Some(parse_duration(value).map_err(|why| wrong(&why))?);
                }
                "pool" => read.pool = Some(value.to_owned()),
                "past" => {
                    let past = value.parse().map_err(|_| wrong("write a number, as in past=10"))?;
                    read.past = Some(past);
                }
                _ => {
                    let wait = parse_duration(value).map_err(|why| wrong(&why))?;
                    if wait > WAIT_MAX {
                        return Err(wrong("at most 1h is waited"));
                    }
                    read.wait = (!wait.is_zero()).then_some(wait);
                }
            }
        }
        Ok(read)
    }
}

/// Whether a query asks only what would be stored; where nothing could be, it is refused.
pub(super) fn is_dry_run(query: Option<&str>) -> bool {
    pairs(query).any(|(_, name, value)| name == "dry_run" && truth(value) == Ok(true))
}

/// What a query is made of: each parameter as it is written, its name and its value.
fn pairs(query: Option<&str>) -> impl Iterator<Item = (&str, &str, &str)> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (pair, name, value)
    })
}

fn truth(value: &str) -> Result<bool, &'static str> {
    match value {
        "" | "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("write true or false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read() {
        assert_eq!(Query::read(None, &[]).unwrap(), Query::default());
        let read = Query::read(Some("dry_run&wait=5s&force=false&prune=true"), BATCH).unwrap();
        let wait = Some(Duration::from_secs(5));
        assert_eq!(read, Query { dry_run: true, prune: true, wait, ..Query::default() });
        assert_eq!(Query::read(Some("wait=0s"), WRITE).unwrap().wait, None);
        assert_eq!(Query::read(Some("wait=1h"), WRITE).unwrap().wait, Some(WAIT_MAX));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bad in [
            "dryrun=true",
            "dry_run=yes",
            "wait=5",
            "wait=61m",
            "wait",
            "dry_run&dry_run",
            "prune=true",
        ] {
            assert!(Query::read(Some(bad), WRITE).is_err(), "{bad}");
        }
    }
}
