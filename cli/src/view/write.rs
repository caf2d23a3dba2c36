//! The answer to a change.

use lb_proto::v1 as pb;
use serde::Serialize;

use super::{ObjectView, RejectionView};

/// What a change did, and how far it got.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct WriteView {
    pub(crate) revision: u64,
    pub(crate) changed: bool,
    pub(crate) dry_run: bool,
    pub(crate) objects: Vec<ObjectView>,
    pub(crate) progress: Option<ProgressView>,
    /// What works as asked and is hardly meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
}

/// How far a revision got.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ProgressView {
    pub(crate) revision: u64,
    pub(crate) proxies: u32,
    pub(crate) applied: u32,
    pub(crate) elapsed_ms: u32,
    pub(crate) done: bool,
    pub(crate) laggards: Vec<LaggardView>,
    pub(crate) rejections: Vec<ProxyRejectionView>,
    /// Not waited for, since they were lost before; they may still serve an older revision.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) lost: Vec<LaggardView>,
}

/// A proxy that has not applied a revision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LaggardView {
    pub(crate) proxy_id: String,
    pub(crate) applied_revision: u64,
    pub(crate) state: String,
    pub(crate) last_seen_ms: u64,
    /// Why it refuses the whole state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refusal: Option<String>,
}

/// A proxy that refused an object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ProxyRejectionView {
    pub(crate) proxy_id: String,
    #[serde(flatten)]
    pub(crate) rejection: RejectionView,
}

impl WriteView {
    /// Reads an answer.
    pub(crate) fn read(wire: pb::WriteResponse, dry_run: bool) -> Self {
        Self {
            revision: wire.revision,
            changed: wire.changed,
            dry_run,
            objects: wire.objects.into_iter().filter_map(ObjectView::read).collect(),
            progress: wire.progress.map(ProgressView::from),
            warnings: wire.warnings,
        }
    }
}

impl From<pb::ApplyProgress> for ProgressView {
    fn from(wire: pb::ApplyProgress) -> Self {
        Self {
            revision: wire.revision,
            proxies: wire.proxies,
            applied: wire.applied,
            elapsed_ms: wire.elapsed_ms,
            done: wire.done,
            laggards: wire.laggards.into_iter().map(LaggardView::from).collect(),
            lost: wire.lost.into_iter().map(LaggardView::from).collect(),
            rejections: wire
                .rejections
                .into_iter()
                .map(|refused| ProxyRejectionView {
                    proxy_id: refused.proxy_id,
                    rejection: refused.rejection.unwrap_or_default().into(),
                })
                .collect(),
        }
    }
}

impl From<pb::Laggard> for LaggardView {
    fn from(wire: pb::Laggard) -> Self {
        Self {
            proxy_id: wire.proxy_id,
            applied_revision: wire.applied_revision,
            state: wire.state,
            last_seen_ms: wire.last_seen_ms,
            refusal: Some(wire.refusal).filter(|refusal| !refusal.is_empty()),
        }
    }
}
