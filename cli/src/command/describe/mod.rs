//! `describe`: everything that is known about one object, what it means, and what to
//! do next.

mod backend;
mod limit;
mod listener;
mod pool;
mod proxy;
mod route;

pub(super) use self::proxy::next_look;
pub(crate) use self::{
    backend::page as backend_page, pool::page as pool_page, proxy::page as proxy_page,
};
use super::{
    Session, backend as backends, get,
    judgement::{self, Facts, Finding},
    limit as limits, session,
};
use crate::{
    args::{Describe, GetKind},
    clock,
    exit::{Exit, Failure},
    format,
    view::{BackendView, ObjectView, Traffic},
};

/// Describes one object.
pub(super) async fn run(session: &Session, args: Describe) -> Result<(), Failure> {
    let (screen, name) = (session.screen, &args.name);
    let names = || vec![format!("{}/{name}", args.kind.name())];
    let now = clock::unix_ms();
    match args.kind {
        GetKind::Backends => {
            let Some(view) = backends::read(session, name).await? else {
                let all = get::backends(session, "").await?;
                return get::choose(all, Some(name), "backend", |view| &view.id).map(drop);
            };
            let advice = advice(session, &view).await?;
            screen.answer(&view, names, || backend::page(&view, advice.as_deref(), now, screen))
        }
        GetKind::Pools => {
            let found = get::choose(get::pools(session).await?, Some(name), "pool", |v| &v.name)?;
            let view = first(found)?;
            let backends = get::backends(session, name).await?;
            screen.answer(&view, names, || pool::page(&view, &backends, now, screen))
        }
        GetKind::Proxies => {
            let found = get::choose(get::proxies(session).await?, Some(name), "proxy", |v| &v.id)?;
            let view = first(found)?;
            screen.answer(&view, names, || proxy::page(&view, now))
        }
        GetKind::Session => session::describe(session, name).await,
        GetKind::SessionKeys => session::show_keys(session, Some(name)).await,
        GetKind::Listeners => {
            let view = get::object(session, "listener", name).await?;
            let facts = Facts::gather(session).await?;
            screen.answer(&view, names, || listener::page(&view, &facts, screen))
        }
        GetKind::Limits => {
            let all = limits::all(session).await?;
            let view = first(get::choose(all, Some(name), "limit", limits::name_of)?)?;
            let proxies = get::proxies(session).await?;
            screen.answer(&view, names, || limit::page(&view, &proxies, screen))
        }
        GetKind::Routes => {
            let view = get::object(session, "route", name).await?;
            let facts = Facts::gather(session).await?;
            screen.answer(&view, names, || route::page(&view, &facts, screen))
        }
    }
}

/// What the answers of a backend's pool say of it.
async fn advice(session: &Session, view: &BackendView) -> Result<Option<String>, Failure> {
    let pools = get::pools(session).await?;
    // It may have gone meanwhile, with its backends.
    let Some(pool) = pools.iter().find(|pool| pool.name == view.pool) else { return Ok(None) };
    let backends = get::backends(session, &view.pool).await?;
    Ok(judgement::remedy_at_backend(view, pool, &backends))
}

fn first<T>(found: Vec<T>) -> Result<T, Failure> {
    found.into_iter().next().ok_or_else(|| Failure::new(Exit::NotFound, "it is gone"))
}

/// Headed lines of labels and values.
pub(super) struct Page {
    pub(super) text: String,
}

impl Page {
    pub(super) fn new(title: &str) -> Self {
        Self { text: format!("{title}\n") }
    }

    pub(super) fn row(&mut self, label: &str, value: &str) {
        self.padded(18, label, value);
    }

    /// A row of a section whose labels are longer than most.
    fn wide_row(&mut self, label: &str, value: &str) {
        self.padded(26, label, value);
    }

    fn padded(&mut self, width: usize, label: &str, value: &str) {
        let value = match value {
            "" => "-".to_owned(),
            value => value.replace(|c: char| c.is_control(), "?"),
        };
        self.text += &format!("  {label:<width$} {value}\n");
    }

    fn section(&mut self, title: &str) {
        self.text += &format!("{title}\n");
    }

    /// The settings of an object, and when it was last changed.
    fn settings(&mut self, view: &ObjectView) {
        for (field, value) in view.fields() {
            self.wide_row(field, &value);
        }
        self.wide_row("revision", &view.revision.to_string());
    }

    /// What is wrong, and what to do about the worst of it.
    fn problems(&mut self, findings: &[Finding], otherwise: &str) {
        if !findings.is_empty() {
            self.section("problems");
        }
        for finding in findings {
            self.section(&format!("  {}", finding.message));
        }
        let remedy = findings.iter().find_map(|finding| finding.remedy.as_deref());
        self.next_step(remedy.unwrap_or(otherwise));
    }

    pub(super) fn next_step(&mut self, step: &str) {
        self.text += &format!("next: {step}\n");
    }
}

/// Since when totals count: ` since 22:26:04 UTC, when the control plane started`.
pub(super) fn since(at_unix_ms: Option<u64>, now: u64) -> String {
    let Some(at) = at_unix_ms else { return String::new() };
    format!(" since {} UTC, when the control plane started", format::clock(at, now))
}

/// What clients get now, and what backends were given since the sums began.
fn traffic_section(page: &mut Page, traffic: &Traffic, now: u64) {
    let rate = format!("{} per second", format::rate(traffic.requests_per_second));
    let (in_flight, began) = (traffic.in_flight.to_string(), since(traffic.since_unix_ms, now));
    match &traffic.recent {
        Some(recent) => {
            page.section(&format!("clients, {}", recent.window()));
            page.row("answers", &format!("{} ({rate})", recent.answers));
            page.row("in flight", &in_flight);
            page.row("success", &recent.ok_ratio());
            let why = recent.why();
            page.row("failures", if why.is_empty() { "none" } else { &why });
            let latency = format!(
                "p50 {}  p99 {}",
                format::latency(recent.latency_p50_us),
                format::latency(recent.latency_p99_us)
            );
            page.row("latency", &latency);
            page.section(&format!("given to backends{began}"));
            page.row("requests", &traffic.requests_total.to_string());
        }
        None => {
            page.section(&format!("traffic{began}"));
            page.row("requests", &format!("{} ({rate})", traffic.requests_total));
            page.row("in flight", &in_flight);
        }
    }
    let ended = traffic.successes_total + traffic.failures_total;
    page.row("success", &format::percent(traffic.successes_total, ended));
    page.row("failures", &traffic.failures.by_kind());
    page.row("moved elsewhere", &traffic.retries_total.to_string());
    let latency = format!(
        "p50 {}  p99 {}  mean {}",
        format::latency(traffic.latency_p50_us),
        format::latency(traffic.latency_p99_us),
        format::latency(traffic.latency_mean_us),
    );
    page.row("latency", &latency);
    let bytes = format!(
        "{} to backends, {} from them",
        format::bytes(traffic.bytes_to_backend_total),
        format::bytes(traffic.bytes_from_backend_total),
    );
    page.row("bytes", &bytes);
}
