//! Commands that change limits, and those that show them.

use lb_core::model::{Limit, Rate, natural_order};
use lb_proto::{
    convert,
    v1::{self as pb, object::Object as Wire},
};

use super::{
    Session, get,
    setting::set,
    write::{self, Change},
};
use crate::{
    args::{AddLimit, LimitSettings, RemoveLimit, SetLimit},
    exit::Failure,
    format,
    output::{Cell, Screen, Table, Tone},
    view::LimitView,
};

/// `add-limit`
pub(super) async fn add(session: &Session, args: AddLimit) -> Result<(), Failure> {
    let mut limit = pb::Limit { name: args.name, ..pb::Limit::default() };
    edit(&mut limit, &args.settings)?;
    let expected = args.write.if_revision.unwrap_or(0);
    let change = Change::Create(Wire::Limit(limit));
    let view = write::send(session, &args.write, change, expected).await?;
    write::report(session, &view, &write::additions(&view))
}

/// `set-limit`
pub(super) async fn change(session: &Session, args: SetLimit) -> Result<(), Failure> {
    let (view, lines) = write::modify(session, &args.write, "limit", &args.name, |object| {
        let Wire::Limit(limit) = object else { return Ok(()) };
        edit(limit, &args.settings)
    })
    .await?;
    write::report(session, &view, &lines)
}

/// `remove-limit`
pub(super) async fn remove(session: &Session, args: RemoveLimit) -> Result<(), Failure> {
    let line = format!("- limit {}", args.name);
    let name = pb::ObjectName { kind: "limit".to_owned(), name: args.name };
    let expected = args.write.if_revision.unwrap_or(0);
    let view = write::send(session, &args.write, Change::Delete(name), expected).await?;
    write::report(session, &view, &[line])
}

fn edit(limit: &mut pb::Limit, settings: &LimitSettings) -> Result<(), Failure> {
    if let Some(rate) = &settings.rate {
        let former = limit.rate.parse::<Rate>().ok().map(Rate::one_second);
        if limit.burst == former {
            // Nobody chose it: it goes with the rate.
            limit.burst = None;
        }
        limit.rate.clone_from(rate);
    }
    if settings.burst.is_some() {
        limit.burst = settings.burst;
    }
    set(&mut limit.key, settings.key.clone());
    set(&mut limit.scope, settings.scope.clone());
    set(&mut limit.shadow, settings.shadow);
    // A pool takes the place of a route, and a route that of a pool.
    if settings.pool.is_some() || settings.route.is_some() || settings.all_requests {
        limit.pool = settings.pool.clone().unwrap_or_default();
        limit.route = settings.route.clone().unwrap_or_default();
    }
    // The control plane judges by the same code; asking here spares the trip.
    *limit = convert::told_limit(&Limit::try_from(limit.clone())?);
    Ok(())
}

/// All limits with what they came to, in people's order.
pub(super) async fn all(session: &Session) -> Result<Vec<LimitView>, Failure> {
    let request = pb::ListLimitsRequest::default();
    let answer = session.client.call(session.client.fleet().list_limits(request)).await?;
    let mut views: Vec<LimitView> = answer.limits.into_iter().map(LimitView::from).collect();
    views.sort_by(|a, b| natural_order(name_of(a), name_of(b)));
    Ok(views)
}

/// The name of a limit.
pub(super) fn name_of(view: &LimitView) -> &str {
    &view.settings.name
}

/// `get limits`: a line for each; when it may be wide, a line for what each proxy has of it.
pub(super) async fn list(session: &Session, name: Option<&str>) -> Result<(), Failure> {
    let found = get::choose(all(session).await?, name, "limit", name_of)?;
    let screen = session.screen;
    get::show_text(session, "limit", name, &found, name_of, |views| {
        let mut text = screen.render(&table(views));
        if screen.is_wide() && !views.is_empty() {
            text += "\n";
            text += &screen.render(&shares(views));
        }
        text
    })
}

fn table(views: &[LimitView]) -> Table {
    let headers = [
        "LIMIT",
        "RATE",
        "BURST",
        "KEY",
        "SCOPE",
        "COUNTS",
        "MODE",
        "PASSED/S",
        "REFUSED/S",
        "REFUSED",
    ];
    let mut table = Table::new(&headers);
    for view in views {
        let (settings, totals) = (&view.settings, &view.totals);
        let is_refusing = totals.refused_per_second >= 0.05;
        let tone = if is_refusing { Tone::Warning } else { Tone::Plain };
        table.row([
            (&settings.name).into(),
            (&settings.rate).into(),
            settings.burst.into(),
            (&settings.key).into(),
            (&settings.scope).into(),
            settings.target().into(),
            if settings.shadow { "shadow" } else { "refuse" }.into(),
            format::rate(totals.admitted_per_second).into(),
            Cell::toned(format::rate(totals.refused_per_second), tone),
            totals.refused_total.into(),
        ]);
    }
    table
}

fn shares(views: &[LimitView]) -> Table {
    let headers = [
        "LIMIT",
        "PROXY",
        "BASIS",
        "LEASE/S",
        "PASSED/S",
        "REFUSED/S",
        "PASSED",
        "REFUSED",
        "HOT-KEYS",
    ];
    let mut table = Table::new(&headers);
    for view in views {
        for share in &view.proxies {
            let tone = match share.basis.as_str() {
                "leased" | "own" | "even_share" => Tone::Plain,
                _ => Tone::Warning,
            };
            table.row([
                (&view.settings.name).into(),
                (&share.proxy_id).into(),
                Cell::toned(&share.basis, tone),
                share.lease_per_second.map_or_else(|| "-".to_owned(), format::rate).into(),
                format::rate(share.totals.admitted_per_second).into(),
                format::rate(share.totals.refused_per_second).into(),
                share.totals.admitted_total.into(),
                share.totals.refused_total.into(),
                share.hot_keys.into(),
            ]);
        }
    }
    table
}

/// The shares of one limit, as a part of a page.
pub(super) fn shares_of(view: &LimitView, screen: Screen) -> String {
    screen.render(&shares(std::slice::from_ref(view)).indented(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> pb::Limit {
        let wire =
            pb::Limit { name: "l".to_owned(), rate: "100/s".to_owned(), ..Default::default() };
        convert::told_limit(&Limit::try_from(wire).unwrap())
    }

    fn edited(limit: pb::Limit, settings: &LimitSettings) -> pb::Limit {
        let mut limit = limit;
        edit(&mut limit, settings).unwrap();
        limit
    }

    #[test]
    fn a_burst_that_nobody_chose_goes_with_the_rate() {
        let faster = LimitSettings { rate: Some("200/s".to_owned()), ..Default::default() };
        assert_eq!(edited(before(), &faster).burst, Some(200));
        let chosen = pb::Limit { burst: Some(7), ..before() };
        assert_eq!(edited(chosen, &faster).burst, Some(7));
    }

    #[test]
    fn what_is_counted_is_replaced_as_a_whole() {
        let of_pool = LimitSettings { pool: Some("web".to_owned()), ..Default::default() };
        let limit = edited(before(), &of_pool);
        let of_route = LimitSettings { route: Some("api".to_owned()), ..Default::default() };
        let limit = edited(limit, &of_route);
        assert_eq!((limit.pool.as_str(), limit.route.as_str()), ("", "api"));
        let all = LimitSettings { all_requests: true, ..Default::default() };
        assert_eq!(edited(limit, &all), before());
    }

    #[test]
    fn what_does_not_go_together_is_refused_before_it_is_sent() {
        let scope = Some("backend".to_owned());
        let settings = LimitSettings { scope, key: Some("path".to_owned()), ..Default::default() };
        let failure = edit(&mut before(), &settings).unwrap_err();
        assert!(failure.message.contains("does not go with scope backend"), "{failure}");
    }
}
