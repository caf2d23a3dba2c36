//! `adopt-store`: proxies that hold another store's state take this one's.

use lb_proto::v1 as pb;
use serde::Serialize;

use super::{Session, progress, wait};
use crate::{args::AdoptStore, exit::Failure, view::ProgressView};

/// Which proxies take the state, and how far they got.
#[derive(Debug, Serialize)]
struct AdoptionView {
    proxies: Vec<String>,
    revision: u64,
    /// Of all proxies; nothing if nobody waited.
    progress: Option<ProgressView>,
}

/// `adopt-store`
pub(super) async fn run(session: &Session, args: AdoptStore) -> Result<(), Failure> {
    let timeout = session.client.timeout();
    let request = pb::AdoptStoreRequest { proxy_id: args.proxy.unwrap_or_default() };
    let mut fleet = session.client.fleet();
    let pb::AdoptStoreResponse { proxies, revision } =
        session.client.call(fleet.adopt_store(request)).await?;
    let progress = if proxies.is_empty() || args.no_wait {
        None
    } else {
        Some(wait::applied(&session.client, revision, timeout).await?)
    };
    let view = AdoptionView { proxies, revision, progress };
    let names = || view.proxies.iter().map(|id| format!("proxy/{id}")).collect();
    session.screen.answer(&view, names, || view.sentence())?;
    match view.progress.and_then(|progress| progress::failure(&progress, timeout)) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

impl AdoptionView {
    fn sentence(&self) -> String {
        let told = match &self.proxies[..] {
            [] => "nothing to do: no connected proxy refuses this store's state for what it \
                   would silence"
                .to_owned(),
            proxies => format!("{}: told to take this store's state", proxies.join(", ")),
        };
        match &self.progress {
            Some(progress) => format!("{told}\n{}", progress::applied(progress)),
            None => told,
        }
    }
}
