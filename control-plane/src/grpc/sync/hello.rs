//! What a proxy says of itself before anything else, checked.

use std::net::SocketAddr;

use lb_core::{
    model::{InstanceId, ProxyId, Reason},
    moment::Moment,
    sync::{Held, Rejection},
};
use lb_proto::{PROTOCOL_VERSIONS, convert::sync as convert, v1 as pb};
use tonic::Status;

use super::status;
use crate::{
    clock::present,
    fleet::{ProxyInfo, Refusal},
};

/// How much of an unchecked text is told.
const TOLD_CHARS_MAX: usize = 100;

/// A proxy that has introduced itself.
#[derive(Debug)]
pub(super) struct Introduction {
    /// The newest version of the protocol that both sides speak.
    pub(super) protocol_version: u32,
    /// What it serves from.
    pub(super) held: Option<Held>,
    /// Which objects of that it refused, and keeps the former value of.
    pub(super) rejections: Vec<Rejection>,
    /// Who it is.
    pub(super) info: ProxyInfo,
}

impl Introduction {
    /// Checks a Hello.
    pub(super) fn read(mut hello: pb::Hello, peer: Peer) -> Result<Self, Status> {
        let rejections = std::mem::take(&mut hello.rejections);
        Ok(Self {
            rejections: rejections.into_iter().map(convert::rejection_from_wire).collect(),
            protocol_version: common_version(&hello.protocol_versions)?,
            held: convert::held_from_wire(hello.held.as_ref(), &hello.held_digest)
                .map_err(|malformed| Status::invalid_argument(malformed.to_string()))?,
            info: proxy_info(hello, peer)?,
        })
    }
}

/// The newest version that both sides speak.
fn common_version(theirs: &[u32]) -> Result<u32, Status> {
    PROTOCOL_VERSIONS.into_iter().find(|ours| theirs.contains(ours)).ok_or_else(|| {
        Status::failed_precondition(format!(
            "no common version of the sync protocol: the proxy speaks {theirs:?}, this control \
             plane (build {}) speaks {PROTOCOL_VERSIONS:?}; upgrade the older of the two",
            env!("CARGO_PKG_VERSION")
        ))
    })
}

/// Both ends of a stream; nothing when it comes through a Unix socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) there: Option<SocketAddr>,
    pub(super) here: Option<SocketAddr>,
}

impl Peer {
    /// What is told of a proxy that comes from there and is refused, but for the reason.
    pub(super) fn refusal(self, hello: &pb::Hello) -> Refusal {
        let short = |text: &str| text.chars().take(TOLD_CHARS_MAX).collect();
        Refusal {
            id: short(&hello.proxy_id),
            instance: short(&hello.instance_id),
            build_version: short(&hello.build_version),
            peer_address: self.there.map(|there| there.to_string()).unwrap_or_default(),
            reason: Reason::default(),
        }
    }

    /// Whether it comes from another machine: a machine that speaks to itself uses its
    /// loopback address, or the same address at both ends.
    fn is_elsewhere(self) -> bool {
        self.there.is_some_and(|there| {
            let there = there.ip().to_canonical();
            !there.is_loopback() && self.here.map(|here| here.ip().to_canonical()) != Some(there)
        })
    }
}

fn proxy_info(hello: pb::Hello, peer: Peer) -> Result<ProxyInfo, Status> {
    let invalid = |invalid| status::of_invalid(&invalid);
    let held_source = match hello.held_source() {
        pb::HeldSource::None => "none",
        pb::HeldSource::Disk => "disk",
        pb::HeldSource::Live => "live",
    };
    Ok(ProxyInfo {
        id: ProxyId::new(&hello.proxy_id).map_err(invalid)?,
        instance: InstanceId::new(&hello.instance_id).map_err(invalid)?,
        replaces: hello.replaces_instance_id,
        build_version: hello.build_version.chars().take(TOLD_CHARS_MAX).collect(),
        listen_addresses: hello
            .listen_addresses
            .into_iter()
            .take(100)
            .map(|address| (address.listener, address.address))
            .collect(),
        admin_address: hello.admin_address,
        peer_address: peer.there.map(|there| there.to_string()).unwrap_or_default(),
        elsewhere: peer.is_elsewhere(),
        workers: hello.workers,
        writes_access_log: hello.writes_access_log,
        held_source,
        stale_since: (hello.stale_since_unix_ms > 0)
            .then(|| Moment::recalled(hello.stale_since_unix_ms, present())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_speaks_to_itself_is_not_elsewhere() {
        let peer =
            |there: &str, here: &str| Peer { there: there.parse().ok(), here: here.parse().ok() };
        assert!(!peer("127.0.0.1:5", "127.0.0.1:9400").is_elsewhere());
        assert!(!peer("[::ffff:127.0.0.1]:5", "[::ffff:127.0.0.1]:9400").is_elsewhere());
        assert!(!peer("10.0.0.2:5", "10.0.0.2:9400").is_elsewhere());
        assert!(!peer("", "").is_elsewhere(), "a Unix socket");
        assert!(peer("10.0.0.3:5", "10.0.0.2:9400").is_elsewhere());
    }
}
