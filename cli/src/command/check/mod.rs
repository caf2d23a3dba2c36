//! `check`: everything that is wrong, in groups, each with what to do about it.

mod judge;
mod page;

use std::time::{Duration, SystemTime};

use lb_proto::v1 as pb;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use self::judge::{Facts, Finding, Level};
use super::{Session, TIMEOUT, get};
use crate::{
    args::{Check, Global},
    client::Client,
    exit::{Exit, Failure},
    output::Screen,
    view::{PoolView, ProxyView},
};

/// How long `--wait` goes on unless told otherwise.
const WAIT: Duration = Duration::from_secs(300);

/// Between two looks of `--wait`.
const PAUSE: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Debug, Serialize)]
struct CheckView {
    ok: bool,
    checks: Vec<Finding>,
}

/// Checks once, or until nothing fails.
pub(super) async fn run(args: &Check, global: &Global) -> Result<(), Failure> {
    let screen = Screen::new(global.output);
    let until = Instant::now() + global.timeout.unwrap_or(WAIT);
    let (view, failure) = loop {
        let (view, failure) = look(global, screen).await;
        if view.ok || !args.wait || Instant::now() + PAUSE > until {
            break (view, failure);
        }
        sleep(PAUSE).await;
    };
    let names = || view.checks.iter().map(|check| format!("{}/{}", check.level, check.check));
    screen.answer(&view, || names().collect(), || page::page(&view.checks, screen))?;
    failure.map_or(Ok(()), Err)
}

async fn look(global: &Global, screen: Screen) -> (CheckView, Option<Failure>) {
    match facts(global, screen).await {
        Ok(facts) => {
            let checks = judge::judge(&facts);
            let ok = checks.iter().all(|check| check.level != Level::Failed);
            // The page says it all.
            let failure = (!ok).then(|| Failure::new(Exit::Failed, ""));
            (CheckView { ok, checks }, failure)
        }
        // Whoever cannot ask knows of nothing else.
        Err(failure) => {
            let checks = vec![judge::unreachable(&failure.message)];
            (CheckView { ok: false, checks }, Some(Failure::new(failure.exit, "")))
        }
    }
}

async fn facts(global: &Global, screen: Screen) -> Result<Facts, Failure> {
    let timeout = global.timeout.map_or(TIMEOUT, |timeout| timeout.min(TIMEOUT));
    let client = Client::connect(&global.server, timeout).await?;
    let session = Session { client, screen };
    let client = &session.client;
    let mut fleet = client.fleet();
    let mut date = None;
    let status = client
        .call(async {
            let answer = fleet.get_status(pb::GetStatusRequest {}).await?;
            date = answer.metadata().get("date").and_then(|date| date.to_str().ok()?.parse().ok());
            Ok(answer)
        })
        .await?;
    let here = SystemTime::now();
    Ok(Facts {
        server: client.server().to_owned(),
        build_version: status.build_version,
        skew: date.map(|there: httpdate::HttpDate| apart(there.into(), here)),
        proxies: status.proxies.into_iter().map(ProxyView::from).collect(),
        pools: status.pools.into_iter().map(PoolView::from).collect(),
        backends: get::backends(&session, "").await?,
        listeners: get::objects(&session, "listener").await?,
        routes: get::objects(&session, "route").await?,
    })
}

fn apart(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).or_else(|_| b.duration_since(a)).unwrap_or_default()
}
