//! Tells when a limit begins to refuse requests, and when it has stopped; what that is, is decided
//! in [`lb_core::limit::Refusals`].

use std::time::Duration;

use lb_core::{
    limit::{RefusalNews, Tally},
    model::{Limit, LimitScope, Reason},
};
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use crate::{events::EventType, grpc::Context};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Tells it until the context is stopped.
pub(crate) async fn run(context: &Context) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while context.stop.run_until_cancelled(tick.tick()).await.is_some() {
        let news = context.statistics.limit_news();
        if news.is_empty() {
            continue;
        }
        context.registry.read(|view| {
            for (name, news) in news {
                // One that was removed meanwhile is told of as that.
                let Some(stored) = view.catalog.limits().get(&name) else { continue };
                let (what, code, message) = told(&stored.value, &news);
                info!(limit = %name, "{message}");
                let reason = Reason::new(code, message);
                context.events.record(
                    what,
                    "limit",
                    name.as_str(),
                    view.publisher.version().revision,
                    reason,
                );
            }
        });
    }
}

/// The event that tells it, with a short word and a sentence.
fn told(limit: &Limit, news: &RefusalNews) -> (EventType, &'static str, String) {
    let refuse = |form: [&'static str; 2]| form[usize::from(limit.shadow)];
    match news {
        RefusalNews::Began(Tally { admitted, refused, lasted, .. }) => {
            let scope = match limit.scope() {
                LimitScope::Fleet => "over all proxies",
                LimitScope::Proxy => "in each proxy",
                LimitScope::Backend => "to each backend",
            };
            let message = format!(
                "{} requests: {refused} of {} in the first {}; it lets {} pass {scope}; lbctl \
                 describe limit {} says in which proxies",
                refuse(["refuses", "would refuse"]),
                admitted + refused,
                seconds(*lasted),
                limit.rate,
                limit.name
            );
            (EventType::LimitReached, refuse(["refusing", "would_refuse"]), message)
        }
        RefusalNews::Ended(Tally { admitted, refused, lasted, quiet }) => {
            let message = format!(
                "{} {refused} of {} requests within {}, and none for {} since",
                refuse(["refused", "would have refused"]),
                admitted + refused,
                seconds(*lasted),
                seconds(*quiet)
            );
            (EventType::LimitRelieved, "quiet", message)
        }
    }
}

/// Whole seconds, at least one.
fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64().round().max(1.0))
}

#[cfg(test)]
mod tests {
    use lb_core::model::{LimitKey, LimitName};

    use super::*;

    #[test]
    fn what_is_told_has_the_figures_and_what_to_do_next() {
        let limit = Limit::new(LimitName::new("api").unwrap(), "100/s".parse().unwrap());
        let tally = |lasted, quiet| Tally {
            admitted: 812,
            refused: 312,
            lasted: Duration::from_millis(lasted),
            quiet: Duration::from_millis(quiet),
        };
        let began = RefusalNews::Began(tally(1010, 0));
        let text = "refuses requests: 312 of 1124 in the first 1 s; it lets 100/s pass over all \
                    proxies; lbctl describe limit api says in which proxies";
        assert_eq!(told(&limit, &began), (EventType::LimitReached, "refusing", text.to_owned()));
        let ended = RefusalNews::Ended(tally(7600, 60_200));
        let text = "refused 312 of 1124 requests within 8 s, and none for 60 s since";
        assert_eq!(told(&limit, &ended), (EventType::LimitRelieved, "quiet", text.to_owned()));
        let mut shadow = limit.counted(LimitScope::Backend, LimitKey::All).unwrap();
        shadow.shadow = true;
        let (_, code, text) = told(&shadow, &began);
        assert_eq!(code, "would_refuse");
        assert!(text.starts_with("would refuse requests: ") && text.contains("to each backend"));
    }
}
