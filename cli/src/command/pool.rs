//! Commands that change pools and listeners.

use std::time::Duration;

use lb_core::model::{Listener, Pool};
use lb_proto::v1::{self as pb, object::Object as Wire};

use super::{
    Session,
    write::{self, Change},
};
use crate::{
    args::{AddPool, PoolSettings, RemovePool, SetAlgorithm, SetListener, SetPool, TrustXff},
    exit::{Exit, Failure},
};

/// `add-pool`
pub(super) async fn add(session: &Session, args: AddPool) -> Result<(), Failure> {
    let mut pool = pb::Pool { name: args.name, ..pb::Pool::default() };
    edit(&mut pool, &args.settings)?;
    let expected = args.write.if_revision.unwrap_or(0);
    let change = Change::Create(Wire::Pool(pool));
    let view = write::send(session, &args.write, change, expected).await?;
    write::report(session, &view, &write::additions(&view))
}

/// `set-pool`
pub(super) async fn set(session: &Session, args: SetPool) -> Result<(), Failure> {
    let (view, lines) = write::modify(session, &args.write, "pool", &args.name, |object| {
        let Wire::Pool(pool) = object else { return Ok(()) };
        edit(pool, &args.settings)
    })
    .await?;
    write::report(session, &view, &lines)
}

/// `set-algorithm`
pub(super) async fn set_algorithm(session: &Session, args: SetAlgorithm) -> Result<(), Failure> {
    let settings = PoolSettings { algorithm: Some(args.algorithm), ..PoolSettings::default() };
    set(session, SetPool { name: args.pool, settings, write: args.write }).await
}

/// `remove-pool`
pub(super) async fn remove(session: &Session, args: RemovePool) -> Result<(), Failure> {
    let line = format!("- pool {}", args.name);
    let name = pb::ObjectName { kind: "pool".to_owned(), name: args.name };
    let expected = args.write.if_revision.unwrap_or(0);
    let view = write::send(session, &args.write, Change::Delete(name), expected).await?;
    write::report(session, &view, &[line])
}

/// `set-listener`
pub(super) async fn set_listener(session: &Session, args: SetListener) -> Result<(), Failure> {
    let (view, lines) = write::modify(session, &args.write, "listener", &args.name, |object| {
        let Wire::Listener(listener) = object else { return Ok(()) };
        edit_listener(listener, &args)
    })
    .await?;
    write::report(session, &view, &lines)
}

fn edit(pool: &mut pb::Pool, settings: &PoolSettings) -> Result<(), Failure> {
    if let Some(algorithm) = &settings.algorithm {
        if pool.algorithm != *algorithm {
            // The parameters of an algorithm go with it.
            pool.choices = 0;
            pool.error_hold_ms = None;
        }
        pool.algorithm.clone_from(algorithm);
    }
    if let Some(choices) = settings.choices {
        pool.choices = choices;
    }
    if let Some(hold) = settings.error_hold {
        pool.error_hold_ms = Some(millis(hold));
    }
    if (settings.choices.is_some() || settings.error_hold.is_some())
        && pool.algorithm != "least_connections"
    {
        return Err(Failure::new(
            Exit::Rejected,
            format!(
                "--choices and --error-hold belong to least_connections, but pool {} uses {}; add \
                 --algorithm least_connections",
                pool.name,
                if pool.algorithm.is_empty() { "round_robin" } else { &pool.algorithm }
            ),
        ));
    }
    set_millis(&mut pool.connect_timeout_ms, settings.connect_timeout);
    set_millis(&mut pool.request_timeout_ms, settings.request_timeout);
    let check = pool.health_check.get_or_insert_default();
    if let Some(protocol) = settings.health {
        protocol.name().clone_into(&mut check.protocol);
    }
    if let Some(path) = &settings.health_path {
        if !matches!(check.protocol.as_str(), "" | "http") {
            return Err(Failure::new(
                Exit::Rejected,
                format!(
                    "--health-path belongs to HTTP checks, but those of pool {} are {}; add \
                     --health http",
                    pool.name, check.protocol
                ),
            ));
        }
        check.path.clone_from(path);
        if path.is_empty() {
            return Err(Failure::new(
                Exit::Rejected,
                "--health-path is empty; write it as /health",
            ));
        }
    }
    set_millis(&mut check.interval_ms, settings.health_interval);
    set_millis(&mut check.timeout_ms, settings.health_timeout);
    check.rise = settings.rise.unwrap_or(check.rise);
    check.fall = settings.fall.unwrap_or(check.fall);
    // The control plane judges by the same code; asking here spares the trip.
    Pool::try_from(pool.clone())?;
    Ok(())
}

fn edit_listener(listener: &mut pb::Listener, args: &SetListener) -> Result<(), Failure> {
    if let Some(trust) = args.trust_xff {
        trust.name().clone_into(&mut listener.trust_xff);
    }
    if !args.trusted_proxies.is_empty() {
        if args.trust_xff == Some(TrustXff::Always) {
            return Err(Failure::new(
                Exit::Rejected,
                "--trust-xff always believes anyone, so --trusted-proxy would mean nothing; give \
                 one of them",
            ));
        }
        // Whoever names some does not mean to believe anyone any longer.
        TrustXff::Trusted.name().clone_into(&mut listener.trust_xff);
        // `none` was read as an empty name.
        listener.trusted_proxies =
            args.trusted_proxies.iter().filter(|network| !network.is_empty()).cloned().collect();
    }
    set_millis(&mut listener.header_timeout_ms, args.header_timeout);
    set_millis(&mut listener.body_idle_timeout_ms, args.body_idle_timeout);
    set_millis(&mut listener.write_idle_timeout_ms, args.write_idle_timeout);
    set_millis(&mut listener.keep_alive_timeout_ms, args.keep_alive_timeout);
    listener.max_requests = args.max_requests.unwrap_or(listener.max_requests);
    Listener::try_from(listener.clone())?;
    Ok(())
}

fn set_millis(field: &mut u32, setting: Option<Duration>) {
    if let Some(setting) = setting {
        *field = millis(setting);
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::HealthProtocol;

    fn edited(settings: &PoolSettings) -> Result<pb::Pool, Failure> {
        let mut pool = pb::Pool { name: "web".to_owned(), ..pb::Pool::default() };
        edit(&mut pool, settings).map(|()| pool)
    }

    #[test]
    fn what_is_not_named_stays() {
        let settings =
            PoolSettings { health_interval: Some(Duration::from_secs(30)), ..Default::default() };
        let mut pool =
            pb::Pool { name: "web".to_owned(), connect_timeout_ms: 7, ..Default::default() };
        edit(&mut pool, &settings).unwrap();
        assert_eq!(pool.connect_timeout_ms, 7);
        assert_eq!(pool.health_check.unwrap().interval_ms, 30_000);
    }

    #[test]
    fn settings_of_another_algorithm_or_check_are_refused() {
        let choices = PoolSettings { choices: Some(3), ..Default::default() };
        let failure = edited(&choices).unwrap_err();
        assert_eq!(failure.exit, Exit::Rejected);
        assert!(failure.message.contains("uses round_robin"), "{failure}");
        let both = PoolSettings { algorithm: Some("least_connections".to_owned()), ..choices };
        assert_eq!(edited(&both).unwrap().choices, 3);
        let path = PoolSettings {
            health: Some(HealthProtocol::Tcp),
            health_path: Some("/".to_owned()),
            ..Default::default()
        };
        assert!(edited(&path).unwrap_err().message.contains("--health http"));
    }

    #[test]
    fn bad_paths_are_refused_before_they_are_sent() {
        for bad in ["health", "/a b", ""] {
            let settings = PoolSettings { health_path: Some(bad.to_owned()), ..Default::default() };
            assert_eq!(edited(&settings).unwrap_err().exit, Exit::Rejected, "{bad:?}");
        }
    }
}
