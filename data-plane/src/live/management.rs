//! Where requests to `/lb/...` go when this proxy exposes them: to the control plane's
//! HTTP, by the same machinery as any request to a backend.
//!
//! The control plane is a pool of its own, which no route can name and which is not
//! reported on. Its connections are not kept: a request that changes something should not
//! meet one that is just being closed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use lb_core::{
    balance::{Candidate, Picker},
    model::{Algorithm, BackendConnections, BackendId, Incarnation, Invalid, Pool, PoolName},
};

use super::{BackendState, Identity, PoolConfig, Trouble, compile::empty_pool};

/// The name of the pool, in the access log only.
const NAME: &str = "control-plane";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Changes wait for proxies for a minute at most.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(70);

/// The control plane's HTTP, as this proxy can reach it.
#[derive(Clone, Debug)]
pub(crate) enum Management {
    /// It cannot; why, and what to do.
    Away(Arc<str>),
    /// At these addresses.
    At(Arc<PoolConfig>),
}

impl Management {
    /// Before any control plane has answered.
    pub(crate) fn unknown() -> Self {
        Self::Away(
            "no control plane has answered this proxy since it started; see whether it runs, and \
             whether --control-plane names it"
                .into(),
        )
    }

    /// A control plane that speaks HTTP at these addresses, all of the same host.
    pub(super) fn at(
        addresses: &[SocketAddr],
        serial: u64,
        workers: usize,
        trouble: &Arc<Trouble>,
    ) -> Result<Self, Invalid> {
        let Some(first) = addresses.first() else { return Ok(Self::unknown()) };
        let id = BackendId::new(NAME)?;
        let identity = Identity {
            id: id.clone(),
            incarnation: Incarnation::default(),
            address: first.to_string().parse()?,
        };
        let name = PoolName::new(NAME)?;
        let addresses = addresses.into();
        let backend =
            BackendState::new(identity, name.clone(), serial, addresses, workers, trouble);
        let mut pool = Pool::new(name).with_timeouts(CONNECT_TIMEOUT, REQUEST_TIMEOUT)?;
        pool.connections = BackendConnections { idle_max: 0, ..BackendConnections::default() };
        let candidate = Candidate { slot: 0, id: id.as_str(), weight: 1 };
        Ok(Self::At(Arc::new(PoolConfig {
            picker: Picker::build(Algorithm::RoundRobin, &[candidate]),
            backends: Arc::new([Arc::new(backend)]),
            ..empty_pool(&pool, workers)
        })))
    }
}
