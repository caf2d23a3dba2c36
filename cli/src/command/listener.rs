//! Commands that change listeners.

use lb_core::model::Listener;
use lb_proto::v1::{self as pb, object::Object as Wire};

use super::{
    Session,
    setting::{set, set_millis},
    write::{self, Change},
};
use crate::{
    args::{AddListener, ListenerSettings, RemoveListener, SetListener, TrustXff},
    exit::{Exit, Failure},
};

/// `add-listener`
pub(super) async fn add(session: &Session, args: AddListener) -> Result<(), Failure> {
    let mut listener = pb::Listener { name: args.name, ..pb::Listener::default() };
    edit(&mut listener, &args.settings)?;
    let expected = args.write.if_revision.unwrap_or(0);
    let change = Change::Create(Wire::Listener(listener));
    let view = write::send(session, &args.write, change, expected).await?;
    write::report(session, &view, &write::additions(&view))
}

/// `set-listener`
pub(super) async fn change(session: &Session, args: SetListener) -> Result<(), Failure> {
    let (view, lines) = write::modify(session, &args.write, "listener", &args.name, |object| {
        let Wire::Listener(listener) = object else { return Ok(()) };
        edit(listener, &args.settings)
    })
    .await?;
    write::report(session, &view, &lines)
}

/// `remove-listener`
pub(super) async fn remove(session: &Session, args: RemoveListener) -> Result<(), Failure> {
    let line = format!("- listener {}", args.name);
    let name = pb::ObjectName { kind: "listener".to_owned(), name: args.name };
    let expected = args.write.if_revision.unwrap_or(0);
    let view = write::send(session, &args.write, Change::Delete(name), expected).await?;
    write::report(session, &view, &[line])
}

fn edit(listener: &mut pb::Listener, settings: &ListenerSettings) -> Result<(), Failure> {
    edit_trust(listener, settings)?;
    let connections = &settings.connections;
    set_millis(&mut listener.header_timeout_ms, connections.header_timeout);
    set_millis(&mut listener.body_idle_timeout_ms, connections.body_idle_timeout);
    set_millis(&mut listener.write_idle_timeout_ms, connections.write_idle_timeout);
    set_millis(&mut listener.keep_alive_timeout_ms, connections.keep_alive_timeout);
    set(&mut listener.max_requests, connections.max_requests);
    set(&mut listener.max_connections, connections.max_connections);
    set(&mut listener.max_connections_per_client, connections.max_connections_per_client);
    let limits = &settings.limits;
    set(&mut listener.max_request_line_bytes, limits.max_request_line_bytes);
    set(&mut listener.max_head_bytes, limits.max_head_bytes);
    set(&mut listener.max_fields, limits.max_fields);
    set(&mut listener.max_trailer_bytes, limits.max_trailer_bytes);
    set(&mut listener.max_chunk_extension_bytes, limits.max_chunk_extension_bytes);
    set(&mut listener.max_body_bytes, limits.max_body_bytes);
    set(&mut listener.max_pipelined, limits.max_pipelined);
    set(&mut listener.max_drain_bytes, limits.max_drain_bytes);
    set_millis(&mut listener.drain_timeout_ms, limits.drain_timeout);
    // The control plane judges by the same code; asking here spares the trip.
    Listener::try_from(listener.clone())?;
    Ok(())
}

fn edit_trust(listener: &mut pb::Listener, settings: &ListenerSettings) -> Result<(), Failure> {
    if let Some(trust) = settings.trust_xff {
        trust.name().clone_into(&mut listener.trust_xff);
    }
    if settings.trusted_proxies.is_empty() {
        return Ok(());
    }
    if settings.trust_xff == Some(TrustXff::Always) {
        return Err(Failure::new(
            Exit::Rejected,
            "--trust-xff always believes anyone, so --trusted-proxy would mean nothing; give one \
             of them",
        ));
    }
    // Whoever names some does not mean to believe anyone any longer.
    TrustXff::Trusted.name().clone_into(&mut listener.trust_xff);
    // `none` was read as an empty name.
    let networks = settings.trusted_proxies.iter().filter(|network| !network.is_empty());
    listener.trusted_proxies = networks.cloned().collect();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::RequestLimits;

    fn edited(before: pb::Listener, limits: RequestLimits) -> Result<pb::Listener, Failure> {
        let mut listener = pb::Listener { name: "web".to_owned(), ..before };
        let settings = ListenerSettings { limits, ..ListenerSettings::default() };
        edit(&mut listener, &settings).map(|()| listener)
    }

    #[test]
    fn what_is_not_named_stays() {
        let before = pb::Listener { max_fields: 7, max_body_bytes: 1, ..Default::default() };
        let limits = RequestLimits { max_body_bytes: Some(0), ..RequestLimits::default() };
        let after = edited(before, limits).unwrap();
        assert_eq!((after.max_fields, after.max_body_bytes), (7, 0));
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        for (before, limits, numbers) in [
            (0, RequestLimits { max_head_bytes: Some(4096), ..Default::default() }, "8192"),
            (4096, RequestLimits { max_head_bytes: Some(2048), ..Default::default() }, "2048"),
            (
                0,
                RequestLimits { max_request_line_bytes: Some(65_537), ..Default::default() },
                "65536",
            ),
        ] {
            let before = pb::Listener { max_request_line_bytes: before, ..Default::default() };
            let failure = edited(before, limits).unwrap_err();
            assert_eq!(failure.exit, Exit::Rejected);
            for part in ["max_request_line_bytes", "max_head_bytes", numbers] {
                assert!(failure.message.contains(part), "{part}: {failure}");
            }
        }
    }

    #[test]
    fn believing_anyone_and_somebody_contradict_each_other() {
        let settings = ListenerSettings {
            trust_xff: Some(TrustXff::Always),
            trusted_proxies: vec!["10.0.0.0/8".to_owned()],
            ..ListenerSettings::default()
        };
        let mut listener = pb::Listener { name: "web".to_owned(), ..Default::default() };
        assert_eq!(edit(&mut listener, &settings).unwrap_err().exit, Exit::Rejected);
    }
}
