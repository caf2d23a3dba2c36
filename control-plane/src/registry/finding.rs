//! What the control plane finds out about backends, on its way to the registry.
//!
//! Two parts of it speak about one backend at the same time: its checks and its traffic.
//! Each says only what it knows; the writer, which is one, puts it together.

use std::collections::BTreeMap;

use lb_core::model::{BackendId, BackendStatus, Health, Incarnation, Reason, Standing};

use super::Catalog;

/// Something that was found out about one backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Finding {
    /// A verdict and what it rests on. Its standing is not looked at.
    Checked(BackendStatus),
    /// What traffic says.
    Standing {
        /// Which backend.
        backend: BackendId,
        /// Which life of it.
        incarnation: Incarnation,
        /// All that traffic says, in the place of what it said before.
        standing: Standing,
    },
}

/// The statuses that findings change. What they say about backends that are gone, or about
/// former lives of them, is dropped.
pub(super) fn statuses(catalog: &Catalog, findings: Vec<Finding>) -> Vec<BackendStatus> {
    let mut changed: BTreeMap<BackendId, BackendStatus> = BTreeMap::new();
    for finding in findings {
        let (id, incarnation) = match &finding {
            Finding::Checked(status) => (&status.backend, status.incarnation),
            Finding::Standing { backend, incarnation, .. } => (backend, *incarnation),
        };
        let Some(stored) = catalog.backends().get(id) else { continue };
        if stored.value.incarnation != incarnation {
            continue;
        }
        let id = id.clone();
        let known = changed.remove(&id).or_else(|| catalog.status(&stored.value).cloned());
        let status = match finding {
            Finding::Checked(status) => BackendStatus {
                standing: known.map(|known| known.standing).unwrap_or_default(),
                ..status
            },
            Finding::Standing { standing, .. } => {
                let known = known.unwrap_or_else(|| unchecked(id.clone(), incarnation));
                BackendStatus { standing, ..known }
            }
        };
        changed.insert(id, status);
    }
    let is_news = |status: &BackendStatus| {
        let stored = catalog.backends().get(&status.backend);
        stored.and_then(|stored| catalog.status(&stored.value)) != Some(status)
    };
    changed.into_values().filter(is_news).collect()
}

fn unchecked(backend: BackendId, incarnation: Incarnation) -> BackendStatus {
    BackendStatus {
        backend,
        incarnation,
        health: Health::Unknown,
        addresses: Vec::new(),
        reason: Reason::new("not_checked", "not checked yet"),
        since_unix_ms: 0,
        was_up: false,
        standing: Standing::default(),
    }
}
