//! `forget-proxy`: for one that will not come back.

use std::time::Duration;

use lb_proto::v1 as pb;
use serde::Serialize;

use super::Session;
use crate::{args::ForgetProxy, exit::Failure, format};

/// What was forgotten.
#[derive(Debug, Serialize)]
struct ForgottenView {
    id: String,
    /// Before.
    state: String,
    last_seen_ms: u64,
    dry_run: bool,
}

/// Has the control plane forget a proxy.
pub(super) async fn forget(session: &Session, args: ForgetProxy) -> Result<(), Failure> {
    let ForgetProxy { id, dry_run } = args;
    let request = pb::ForgetProxyRequest { id, dry_run };
    let answer = session.client.call(session.client.fleet().forget_proxy(request)).await?;
    let pb::Proxy { id, state, last_seen_ms, .. } = answer.proxy.unwrap_or_default();
    let view = ForgottenView { id, state, last_seen_ms, dry_run };
    session.screen.answer(&view, || vec![format!("proxy/{}", view.id)], || page(&view))
}

fn page(view: &ForgottenView) -> String {
    let ForgottenView { id, state, last_seen_ms, dry_run } = view;
    let seen = format::duration(Duration::from_millis(*last_seen_ms));
    let known = format!("it was {state}, last heard of {seen} ago");
    if *dry_run {
        format!("would forget proxy {id}: {known}\n")
    } else {
        format!("- proxy {id} is forgotten: {known}; nothing waits for it any more\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_what_is_forgotten() {
        let view = |dry_run| ForgottenView {
            id: "proxy-3".to_owned(),
            state: "lost".to_owned(),
            last_seen_ms: 62_000,
            dry_run,
        };
        insta::assert_snapshot!(page(&view(false)), @"- proxy proxy-3 is forgotten: it was lost, last heard of 1m2s ago; nothing waits for it any more");
        insta::assert_snapshot!(page(&view(true)), @"would forget proxy proxy-3: it was lost, last heard of 1m2s ago");
    }
}
