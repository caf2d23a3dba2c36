//! `--session-timeout`: sessions of the pool `default`, without a file of declared state.
//!
//! It is applied at every start, before anything is served, as such a file is. Without the
//! flag everything stays as it is: sessions are turned off by a change of the pool.

use std::time::Duration;

use lb_core::model::{Affinity, CookieAffinity, Pool, PoolName, Resource};
use tracing::info;

use crate::registry::{Item, PutMode, Registry, WriteError, WriteRequest};

/// Why the pool does not have the sessions that the flag asks for. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionTimeoutError {
    /// It is not there.
    #[error(
        "--session-timeout: there is no pool default, whose clients it is about; start without it, \
         and turn sessions on with lbctl set-pool NAME --sticky cookie --session-ttl DURATION"
    )]
    NoPool,
    /// The registry refused it.
    #[error("--session-timeout was refused: {0}")]
    Refused(#[source] WriteError),
}

/// Gives the pool `default` sessions by cookie that live for so long. What else is set of the
/// cookie stays.
pub(crate) async fn apply(registry: &Registry, ttl: Duration) -> Result<(), SessionTimeoutError> {
    let name = PoolName::default_pool();
    let stored = registry.read(|view| view.catalog.pools().get(&name).cloned());
    let stored = stored.ok_or(SessionTimeoutError::NoPool)?;
    let pool = with_sessions(&stored.value, ttl);
    if pool == stored.value {
        return Ok(());
    }
    let resource = Box::new(Resource::Pool(pool));
    let item = Item::Put { resource, mode: PutMode::Upsert, assign_id: false };
    let request = WriteRequest {
        items: vec![item],
        expected_revision: stored.revision,
        ..WriteRequest::default()
    };
    registry.write(request).await.map_err(SessionTimeoutError::Refused)?;
    info!(pool = %name, ?ttl, "sessions by cookie, as --session-timeout says");
    Ok(())
}

fn with_sessions(pool: &Pool, ttl: Duration) -> Pool {
    let cookie = pool.affinity.cookie().cloned().unwrap_or_default();
    let affinity = Affinity::Cookie(CookieAffinity { ttl, ..cookie });
    Pool { affinity, ..pool.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_else_is_set_of_the_cookie_stays() {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        let cookie = CookieAffinity { name: "own".into(), strict: true, ..Default::default() };
        let plain = Pool::new(PoolName::default_pool());
        let pool = Pool { affinity: Affinity::Cookie(cookie.clone()), ..plain.clone() };
        let wanted = CookieAffinity { ttl: minute, ..cookie };
        assert_eq!(with_sessions(&pool, minute).affinity, Affinity::Cookie(wanted));
        assert_eq!(with_sessions(&plain, hour).affinity.cookie().unwrap().ttl, hour);
    }
}
