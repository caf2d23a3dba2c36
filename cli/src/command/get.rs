//! `get`: lists of objects, and single ones.

mod pools;

use lb_core::model::{Invalid, Route, natural_order};
use lb_proto::{
    convert,
    document::missing,
    v1::{self as pb, object::Object as Wire},
};
use serde::Serialize;

use super::{Session, limit, object_table::object_table, session as session_keys};
use crate::{
    args::{Get, GetKind, OutputFormat},
    client::Client,
    clock,
    exit::{Exit, Failure},
    format,
    output::{self, Cell, Screen, Table, Tone},
    view::{self, BackendView, Counts, ObjectView, PoolView, ProxyView, slots},
};

pub(crate) use self::pools::pool_table;

/// Lists a kind, or one object of it.
pub(super) async fn run(session: &Session, args: Get) -> Result<(), Failure> {
    if args.pool.is_some() && args.kind != GetKind::Backends {
        return Err(Failure::new(
            Exit::Usage,
            format!("--pool chooses backends; 'lbctl get {}' does not take it", args.kind.name()),
        ));
    }
    let now = clock::unix_ms();
    let wide = session.screen.is_wide();
    let name = args.name.as_deref();
    match args.kind {
        GetKind::Backends => {
            let views = backends(session, args.pool.as_deref().unwrap_or_default()).await?;
            let found = choose(views, name, "backend", |view| &view.id)?;
            if let (Some(pool), []) = (&args.pool, &*found) {
                output::note(&format!(
                    "pool {pool} has no backends; 'lbctl add-backend HOST:PORT --pool {pool}' adds \
                     one"
                ));
                return session.screen.answer(&found, Vec::new, || {
                    session.screen.render(&backend_table(&found, now, wide))
                });
            }
            show(session, "backend", name, &found, |v| &v.id, |v| backend_table(v, now, wide))
        }
        GetKind::Pools => {
            let found = choose(pools(session).await?, name, "pool", |view| &view.name)?;
            show(session, "pool", name, &found, |v| &v.name, |v| pool_table(v, wide))
        }
        GetKind::Proxies => {
            let found = choose(proxies(session).await?, name, "proxy", |view| &view.id)?;
            show(session, "proxy", name, &found, |v| &v.id, |v| proxy_table(v, now, wide))
        }
        GetKind::SessionKeys => session_keys::show_keys(session, name).await,
        GetKind::Session => Err(Failure::new(
            Exit::Usage,
            "nobody keeps a list of sessions: each is in its client's cookie. 'lbctl describe \
             session COOKIE' tells of one, 'lbctl describe pool NAME' what became of all",
        )),
        GetKind::Limits => limit::list(session, name).await,
        GetKind::Listeners | GetKind::Routes => {
            let kind = args.kind.name();
            let found = match name {
                Some(name) => vec![object(session, kind, name).await?],
                None => objects(session, kind).await?,
            };
            show(session, kind, name, &found, ObjectView::name, |v| object_table(kind, v, wide))
        }
    }
}

/// Backends of a pool, or of all when it is empty, in people's order.
pub(super) async fn backends(session: &Session, pool: &str) -> Result<Vec<BackendView>, Failure> {
    let request = pb::ListBackendsRequest { pool: pool.to_owned(), id: String::new() };
    let answer = session.client.call(session.client.fleet().list_backends(request)).await?;
    let mut views: Vec<BackendView> = answer.backends.into_iter().map(BackendView::from).collect();
    views.sort_by(|a, b| a.pool.cmp(&b.pool).then_with(|| natural_order(&a.id, &b.id)));
    Ok(views)
}

/// All pools with the state of their backends.
pub(super) async fn pools(session: &Session) -> Result<Vec<PoolView>, Failure> {
    let request = pb::GetStatusRequest {};
    let answer = session.client.call(session.client.fleet().get_status(request)).await?;
    let mut views: Vec<PoolView> = answer.pools.into_iter().map(PoolView::from).collect();
    views.sort_by(|a, b| natural_order(&a.name, &b.name));
    Ok(views)
}

/// All proxies that are known.
pub(super) async fn proxies(session: &Session) -> Result<Vec<ProxyView>, Failure> {
    let request = pb::ListProxiesRequest {};
    let answer = session.client.call(session.client.fleet().list_proxies(request)).await?;
    let mut views: Vec<ProxyView> = answer.proxies.into_iter().map(ProxyView::from).collect();
    views.sort_by(|a, b| natural_order(&a.id, &b.id));
    Ok(views)
}

/// One object of the registry.
pub(super) async fn object(
    session: &Session,
    kind: &str,
    name: &str,
) -> Result<ObjectView, Failure> {
    // All of them, since a name that is unknown deserves a suggestion.
    let found = choose(objects(session, kind).await?, Some(name), kind, ObjectView::name)?;
    found.into_iter().next().ok_or_else(|| not_found(kind, name, &[]))
}

/// All objects of a kind, in people's order.
pub(super) async fn objects(session: &Session, kind: &str) -> Result<Vec<ObjectView>, Failure> {
    let told = objects_as_told(session, kind).await?;
    let mut views: Vec<ObjectView> = told.into_iter().filter_map(ObjectView::read).collect();
    views.sort_by(|a, b| natural_order(a.name(), b.name()));
    Ok(views)
}

/// All routes, as proxies read them; a newer control plane may have some that this build
/// cannot read.
pub(super) async fn routes(session: &Session) -> Result<Vec<Result<Route, Invalid>>, Failure> {
    let told = objects_as_told(session, "route").await?;
    let routes = told.into_iter().filter_map(|object| match object.object {
        Some(Wire::Route(route)) => Some(convert::stored_route(route)),
        _ => None,
    });
    Ok(routes.collect())
}

async fn objects_as_told(session: &Session, kind: &str) -> Result<Vec<pb::Object>, Failure> {
    let request = pb::ListRequest { kind: kind.to_owned(), pool: String::new() };
    Ok(session.client.call(session.client.registry().list(request)).await?.objects)
}

/// The names of all that there are of a kind.
pub(crate) async fn names_of(client: &Client, kind: GetKind) -> Result<Vec<String>, Failure> {
    let session = Session { client: client.clone(), screen: Screen::new(OutputFormat::Name) };
    if kind == GetKind::SessionKeys {
        let keys = session_keys::keys(&session).await?;
        return Ok(keys.into_iter().map(|key| key.id).collect());
    }
    if kind == GetKind::Session {
        return Ok(Vec::new());
    }
    if kind == GetKind::Proxies {
        return Ok(proxies(&session).await?.into_iter().map(|proxy| proxy.id).collect());
    }
    let objects = objects(&session, kind.name()).await?;
    Ok(objects.iter().map(|object| object.name().to_owned()).collect())
}

/// Keeps the one that is asked for.
pub(super) fn choose<T>(
    views: Vec<T>,
    name: Option<&str>,
    kind: &str,
    name_of: impl Fn(&T) -> &str,
) -> Result<Vec<T>, Failure> {
    let Some(name) = name else { return Ok(views) };
    match views.iter().position(|view| name_of(view) == name) {
        Some(index) => Ok(views.into_iter().nth(index).into_iter().collect()),
        None => {
            let names: Vec<&str> = views.iter().map(&name_of).collect();
            Err(not_found(kind, name, &names))
        }
    }
}

fn not_found(kind: &str, name: &str, known: &[&str]) -> Failure {
    Failure::new(Exit::NotFound, missing(kind, name, known))
}

/// Prints a list, or, when a name was given, the one object.
pub(super) fn show<T: Serialize>(
    session: &Session,
    kind: &str,
    name: Option<&str>,
    views: &[T],
    name_of: impl Fn(&T) -> &str,
    table: impl FnOnce(&[T]) -> Table,
) -> Result<(), Failure> {
    show_text(session, kind, name, views, name_of, |views| session.screen.render(&table(views)))
}

/// The same, when it takes more than one table.
pub(super) fn show_text<T: Serialize>(
    session: &Session,
    kind: &str,
    name: Option<&str>,
    views: &[T],
    name_of: impl Fn(&T) -> &str,
    text: impl FnOnce(&[T]) -> String,
) -> Result<(), Failure> {
    if views.is_empty() {
        output::note(&nothing(kind));
    }
    let names = || views.iter().map(|view| format!("{kind}/{}", name_of(view))).collect();
    let text = || text(views);
    match (name, views) {
        (Some(_), [view]) => session.screen.answer(view, names, text),
        _ => session.screen.answer(&views, names, text),
    }
}

/// What to do about an empty list.
fn nothing(kind: &str) -> String {
    let (plural, next) = match kind {
        "backend" => ("backends", "'lbctl add-backend HOST:PORT' adds one"),
        "pool" => ("pools", "'lbctl add-pool NAME' adds one"),
        "listener" => ("listeners", "'lbctl add-listener NAME' adds one"),
        "route" => ("routes", "'lbctl add-route NAME --pool POOL' adds one"),
        "session-key" => (
            "session keys",
            "'lbctl set-pool NAME --sticky cookie' turns sessions on and makes the first",
        ),
        "session" => ("sessions", "'lbctl describe session COOKIE' tells of one"),
        "limit" => ("limits", "'lbctl add-limit NAME --rate 100/s' adds one"),
        _ => ("proxies", "'lbctl data-plane' starts one, 'lbctl dev' the whole balancer"),
    };
    format!("there are no {plural}; {next}")
}

/// Backends, a line each. Wide, their labels are told if any has one.
pub(crate) fn backend_table(views: &[BackendView], now: u64, wide: bool) -> Table {
    let has_labels = wide && views.iter().any(|view| !view.labels.is_empty());
    let mut headers = vec![
        "ID",
        "ADDRESS",
        "POOL",
        "WEIGHT",
        "STATE",
        "SINCE",
        "IN-FLIGHT",
        "REQUESTS",
        "FAILED",
    ];
    if wide {
        headers.extend(["SLOTS", "WAITING", "REQ/S", "P50", "P99", "LAST CHECK", "AVOIDED BY"]);
        headers.extend(has_labels.then_some("LABELS"));
        headers.push("REASON");
    }
    let mut table = Table::new(&headers);
    for view in views {
        let traffic = &view.traffic;
        let mut row: Vec<Cell> = vec![
            (&view.id).into(),
            (&view.address).into(),
            (&view.pool).into(),
            view.weight.into(),
            Cell::toned(view.state(), state_tone(view)),
            format::age_of(view.since_unix_ms, now).into(),
            traffic.in_flight.into(),
            traffic.requests_total.into(),
            traffic.failures_total.into(),
        ];
        if wide {
            let checked = view.checks.as_ref().and_then(|checks| checks.last_check_unix_ms);
            row.extend(slots(view.slots.as_ref(), view.max_in_flight).map(Cell::from));
            row.extend::<[Cell; 5]>([
                format::rate(traffic.requests_per_second).into(),
                format::latency(traffic.latency_p50_us).into(),
                format::latency(traffic.latency_p99_us).into(),
                format::age_of(checked, now).into(),
                view.avoided_by().map_or_else(|| "-".into(), |by| Cell::toned(by, Tone::Bad)),
            ]);
            row.extend(has_labels.then(|| view::labels(&view.labels).into()));
            row.push(view.reason.sentence().into());
        }
        table.row(row);
    }
    table
}

fn state_tone(view: &BackendView) -> Tone {
    match (view.health, view.admin_state) {
        ("down", "enabled") => Tone::Bad,
        ("up", "enabled") => Tone::Good,
        _ => Tone::Warning,
    }
}

/// Backends that serve, of all; apart from them those that are kept out: `2/3 (1 out)`.
fn up_of(counts: &Counts) -> Cell {
    let (up, total) = (counts.up, counts.total());
    let mut text = format!("{up}/{total}");
    if counts.out > 0 {
        text += &format!(" ({} out)", counts.out);
    }
    let tone = match (total, up) {
        (1.., 0) => Tone::Bad,
        _ => worry(counts.out, Tone::Warning),
    };
    Cell::toned(text, tone)
}

fn worry(number: u32, tone: Tone) -> Tone {
    if number > 0 { tone } else { Tone::Plain }
}

/// Proxies, a line each.
pub(crate) fn proxy_table(views: &[ProxyView], now: u64, wide: bool) -> Table {
    let mut headers = vec!["PROXY", "STATE", "REVISION", "LAG", "SEEN", "REQ/S", "LISTEN"];
    if wide {
        headers.extend(["SENT", "DIGEST", "STALE", "ADMIN", "WORKERS", "CONNS", "VERSION"]);
    }
    let mut table = Table::new(&headers);
    for view in views {
        let listen: Vec<String> =
            view.listen.iter().map(|l| format!("{}={}", l.listener, l.address)).collect();
        let millis = |ms: u64| format::duration(std::time::Duration::from_millis(ms));
        let mut row: Vec<Cell> = vec![
            (&view.id).into(),
            Cell::toned(&view.state, proxy_tone(&view.state)),
            view.applied_revision.into(),
            millis(view.lag_ms.into()).into(),
            millis(view.last_seen_ms).into(),
            format::rate(view.requests_per_second).into(),
            listen.join(",").into(),
        ];
        if wide {
            let connections = view.process.as_ref().map(|p| p.client_connections.to_string());
            row.extend::<[Cell; 7]>([
                view.sent_revision.into(),
                view.digest.get(..8).unwrap_or("-").into(),
                format::age_of(view.stale_since_unix_ms, now).into(),
                (&view.admin_address).into(),
                view.workers.into(),
                connections.unwrap_or_else(|| "-".to_owned()).into(),
                (&view.build_version).into(),
            ]);
        }
        table.row(row);
    }
    table
}

fn proxy_tone(state: &str) -> Tone {
    match state {
        "synced" => Tone::Good,
        "behind" => Tone::Warning,
        _ => Tone::Bad,
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn an_empty_list_says_what_to_do_next() {
        for kind in GetKind::value_variants() {
            assert!(nothing(kind.name()).contains("'lbctl "), "{kind:?}");
        }
    }

    #[test]
    fn labels_are_a_column_if_there_are_any() {
        let view = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let backend = pb::Backend { labels, ..pb::Backend::default() };
            BackendView::from(pb::BackendView {
                backend: Some(backend),
                ..pb::BackendView::default()
            })
        };
        let text = |views: &[BackendView], wide| {
            Screen::new(OutputFormat::Wide).render(&backend_table(views, 0, wide))
        };
        let labelled = [view(&[("rack", "1"), ("zone", "a")]), view(&[])];
        let wide = text(&labelled, true);
        let lines: Vec<&str> = wide.lines().collect();
        let at = lines[0].find("LABELS").unwrap();
        assert!(lines[1][at..].starts_with("rack=1,zone=a") && lines[2][at..].starts_with("none"));
        assert!(!text(&labelled, false).contains("LABELS"));
        assert!(!text(&labelled[1..], true).contains("LABELS"));
    }
}
