//! `check`: everything that is wrong, in groups, each with what to do about it.

mod page;

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{
    Session, TIMEOUT,
    judgement::{self, Facts, Finding, Level},
};
use crate::{
    args::{Check, Global},
    client::Client,
    exit::{Exit, Failure},
    output::Screen,
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
            let checks = judgement::judge(&facts);
            let ok = checks.iter().all(|check| check.level != Level::Failed);
            // The page says it all.
            let failure = (!ok).then(|| Failure::new(Exit::Failed, ""));
            (CheckView { ok, checks }, failure)
        }
        // Whoever cannot ask knows of nothing else.
        Err(failure) => {
            let checks = vec![judgement::unreachable(&failure.message)];
            (CheckView { ok: false, checks }, Some(Failure::new(failure.exit, "")))
        }
    }
}

async fn facts(global: &Global, screen: Screen) -> Result<Facts, Failure> {
    let timeout = global.timeout.map_or(TIMEOUT, |timeout| timeout.min(TIMEOUT));
    let client = Client::connect(&global.server, timeout).await?;
    Facts::gather(&Session { client, screen }).await
}
