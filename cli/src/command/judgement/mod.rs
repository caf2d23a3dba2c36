//! What is right and what is wrong: a pure function of what the control plane tells.

mod answers;
mod facts;
mod loops;
mod planes;
mod routing;
mod serving;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

pub(super) use self::answers::remedy_of as remedy_of_pool;
pub(crate) use self::{answers::remedy_at as remedy_at_backend, facts::Facts};

/// How a check ended.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Ok,
    Warning,
    Failed,
}

/// One line of the list.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Finding {
    pub(super) group: &'static str,
    /// A stable name for programs.
    pub(super) check: &'static str,
    pub(super) level: Level,
    /// `kind/name` of what it is about, unless it is about many.
    pub(super) object: Option<String>,
    pub(super) message: String,
    /// What to do, unless all is well.
    pub(super) remedy: Option<String>,
    /// About how it is set up, or told better by another finding: no news of the fleet's state.
    #[serde(skip)]
    pub(super) is_advice: bool,
}

impl Finding {
    /// Whether whoever asks how the fleet is must be told.
    pub(super) fn is_trouble(&self) -> bool {
        self.level != Level::Ok && !self.is_advice
    }
}

/// The only finding when nobody can be asked.
pub(super) fn unreachable(why: &str) -> Finding {
    let (message, remedy) = why.split_once("; ").unwrap_or((why, "look at its log"));
    Finding {
        group: "control plane",
        check: "control_plane_reachable",
        level: Level::Failed,
        object: None,
        message: message.to_owned(),
        remedy: Some(remedy.to_owned()),
        is_advice: false,
    }
}

/// Judges everything, in the order in which it is to be mended.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    planes::control_plane(facts, &mut Group { name: "control plane", findings: &mut findings });
    planes::proxies(facts, &mut Group { name: "proxies", findings: &mut findings });
    routing::listeners(facts, &mut Group { name: "listeners", findings: &mut findings });
    let mut routes = Group { name: "routes", findings: &mut findings };
    answers::without_pool(facts, &mut routes);
    routing::routes(facts, &mut routes);
    serving::pools(facts, &mut Group { name: "pools", findings: &mut findings });
    let mut backends = Group { name: "backends", findings: &mut findings };
    loops::backends(facts, &mut backends);
    serving::backends(facts, &mut backends);
    findings
}

/// What is wrong with one object, the worst first.
pub(super) fn about(facts: &Facts, kind: &str, name: &str) -> Vec<Finding> {
    let object = format!("{kind}/{name}");
    let mut findings = judge(facts);
    findings.retain(|finding| finding.object.as_deref() == Some(&*object));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
}

struct Group<'a> {
    name: &'static str,
    findings: &'a mut Vec<Finding>,
}

impl Group<'_> {
    fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.push(check, Level::Ok, None, message.into(), None);
    }

    /// About one object, which is named `kind/name`.
    fn warn(
        &mut self,
        check: &'static str,
        object: impl Into<Option<String>>,
        message: String,
        remedy: impl Into<String>,
    ) {
        self.push(check, Level::Warning, object.into(), message, Some(remedy.into()));
    }

    /// The same, about how it is set up.
    fn advise(
        &mut self,
        check: &'static str,
        object: impl Into<Option<String>>,
        message: String,
        remedy: impl Into<String>,
    ) {
        self.warn(check, object, message, remedy);
        self.is_advice();
    }

    /// The last one is about how it is set up, or told better by another.
    fn is_advice(&mut self) {
        if let Some(last) = self.findings.last_mut() {
            last.is_advice = true;
        }
    }

    /// The same, for what keeps requests from being served.
    fn fail(
        &mut self,
        check: &'static str,
        object: impl Into<Option<String>>,
        message: String,
        remedy: impl Into<String>,
    ) {
        self.push(check, Level::Failed, object.into(), message, Some(remedy.into()));
    }

    /// A pool cannot serve: a failure, or a warning where something answers in its place.
    fn cannot_serve(
        &mut self,
        check: &'static str,
        object: impl Into<Option<String>>,
        message: String,
        remedy: String,
        pool: &str,
        facts: &Facts,
    ) {
        match facts.instead(pool) {
            Some(instead) => self.warn(check, object, format!("{message}; {instead}"), remedy),
            None => self.fail(check, object, message, remedy),
        }
    }

    fn push(
        &mut self,
        check: &'static str,
        level: Level,
        object: Option<String>,
        message: String,
        remedy: Option<String>,
    ) {
        self.findings.push(Finding {
            group: self.name,
            check,
            level,
            object,
            message,
            remedy,
            is_advice: false,
        });
    }

    /// One line when nothing of this group was found.
    fn else_ok(&mut self, check: &'static str, message: impl Into<String>) {
        if self.findings.iter().all(|finding| finding.group != self.name) {
            self.ok(check, message);
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        })
    }
}
