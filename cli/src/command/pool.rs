//! Commands that change pools.

use std::time::Duration;

use lb_core::model::Pool;
use lb_proto::v1::{self as pb, object::Object as Wire};

use super::{
    Session, checks,
    fallback::edit_fallback,
    resilience::{edit_concurrency, edit_ejection, edit_retries},
    session,
    setting::{millis, set as replace, set_millis},
    write::{self, Change},
};
use crate::{
    args::{AddPool, BackendConnections, PoolSettings, RemovePool, SetAlgorithm, SetPool},
    exit::{Exit, Failure},
    format, output,
    view::{AnyObject, ObjectView, PoolView},
};

/// `add-pool`
pub(super) async fn add(session: &Session, args: AddPool) -> Result<(), Failure> {
    let mut pool = pb::Pool { name: args.name, ..pb::Pool::default() };
    edit(&mut pool, &args.settings)?;
    let expected = args.write.if_revision.unwrap_or(0);
    let change = Change::Create(Wire::Pool(pool));
    let view = write::send(session, &args.write, change, expected).await?;
    write::report(session, &view, &write::additions(&view))?;
    if let Some(ObjectView { object: AnyObject::Pool(pool), .. }) = view.objects.first() {
        warn(&args.settings, pool);
    }
    Ok(())
}

/// `set-pool`
pub(super) async fn set(session: &Session, args: SetPool) -> Result<(), Failure> {
    let (view, lines) = write::modify(session, &args.write, "pool", &args.name, |object| {
        let Wire::Pool(pool) = object else { return Ok(()) };
        pool.sources.retain(|source| !args.no_sources && !args.unsources.contains(source));
        edit(pool, &args.settings)
    })
    .await?;
    let reported = write::report(session, &view, &lines);
    if let Some(ObjectView { object: AnyObject::Pool(pool), .. }) = view.objects.first() {
        warn(&args.settings, pool);
        if args.settings.sticky_none() && pool.algorithm == "ip_hash" {
            output::note(&format!(
                "clients of pool {0} stay by its algorithm, ip_hash: 'lbctl set-algorithm {0} \
                 round_robin' ends that",
                pool.name
            ));
        }
        // What was as it is now is not looked at anew.
        let differs =
            |line: &String| ["  health", "  rise ", "  fall "].iter().any(|f| line.contains(f));
        if lines.iter().any(differs) && checks::are_told(session, &args.write) {
            checks::tell(session, pool, view.revision).await?;
        }
    }
    reported
}

fn warn(settings: &PoolSettings, stored: &PoolView) {
    for warning in [shortened(settings, stored), hurried(settings)].into_iter().flatten() {
        output::note(&warning);
    }
}

/// What to say if a check may not take as long as was asked for.
fn shortened(settings: &PoolSettings, stored: &PoolView) -> Option<String> {
    let asked = settings.health_timeout?;
    let taken = Duration::from_millis(stored.health_timeout_ms.into());
    (taken < asked).then(|| {
        let (asked, taken, name) =
            (format::duration(asked), format::duration(taken), &stored.name);
        format!(
            "warning: --health-timeout {asked} is stored as {taken}, the interval: a check ends before \
             the next one begins; 'lbctl set-pool {name} --health-timeout {asked} --health-interval \
             {asked}' allows more"
        )
    })
}

/// What to say of an interval that looks like a typo: of minutes for milliseconds, say.
fn hurried(settings: &PoolSettings) -> Option<String> {
    let asked = settings.health_interval.filter(|asked| *asked < HURRIED)?;
    let (asked, least) = (format::duration(asked), format::duration(HURRIED));
    let each_second = 1000 / settings.health_interval?.as_millis().max(1);
    Some(format!(
        "warning: --health-interval {asked} is up to {each_second} checks a second for each backend, \
         and a check may take no longer than the interval; write {least} or more unless that is meant"
    ))
}

/// Shorter ones are told.
const HURRIED: Duration = Duration::from_millis(100);

/// `set-algorithm`
pub(super) async fn set_algorithm(session: &Session, args: SetAlgorithm) -> Result<(), Failure> {
    let settings = PoolSettings { algorithm: Some(args.algorithm), ..PoolSettings::default() };
    let (unsources, no_sources) = (Vec::new(), false);
    let args = SetPool { name: args.pool, settings, unsources, no_sources, write: args.write };
    set(session, args).await
}

/// `remove-pool`
pub(super) async fn remove(session: &Session, args: RemovePool) -> Result<(), Failure> {
    let line = format!("- pool {}", args.name);
    let name = pb::ObjectName { kind: "pool".to_owned(), name: args.name };
    let expected = args.write.if_revision.unwrap_or(0);
    let view = write::send(session, &args.write, Change::Delete(name), expected).await?;
    write::report(session, &view, &[line])
}

fn edit(pool: &mut pb::Pool, settings: &PoolSettings) -> Result<(), Failure> {
    if let (Some("ip_hash"), Some(algorithm)) =
        (settings.sessions.sticky.as_deref(), settings.algorithm.as_deref())
        && algorithm != "ip_hash"
    {
        return Err(Failure::new(
            Exit::Rejected,
            format!("--sticky ip_hash is an algorithm, and so is {algorithm}; choose one of both"),
        ));
    }
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
    for source in &settings.sources {
        if !pool.sources.contains(source) {
            pool.sources.push(source.clone());
        }
    }
    edit_ejection(pool, &settings.ejection);
    edit_retries(pool, &settings.retries);
    edit_fallback(pool, &settings.fallback)?;
    edit_concurrency(pool, &settings.concurrency);
    edit_connections(pool, &settings.connections);
    session::edit(pool, &settings.sessions)?;
    edit_check(pool, settings)?;
    // The control plane judges by the same code; asking here spares the trip.
    Pool::try_from(pool.clone())?;
    Ok(())
}

fn edit_connections(pool: &mut pb::Pool, settings: &BackendConnections) {
    set_millis(&mut pool.response_idle_timeout_ms, settings.response_idle_timeout);
    set_millis(&mut pool.tunnel_idle_timeout_ms, settings.tunnel_idle_timeout);
    set_millis(&mut pool.keep_alive_timeout_ms, settings.keep_alive_timeout);
    if settings.max_idle_connections.is_some() {
        pool.max_idle_connections = settings.max_idle_connections;
    }
    set_millis(&mut pool.max_connection_age_ms, settings.max_connection_age);
}

fn edit_check(pool: &mut pb::Pool, settings: &PoolSettings) -> Result<(), Failure> {
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
    replace(&mut check.rise, settings.rise);
    replace(&mut check.fall, settings.fall);
    Ok(())
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
    fn whoever_asks_for_a_longer_check_than_its_interval_is_told_what_is_stored() {
        let asked = |seconds| PoolSettings {
            health_timeout: Some(Duration::from_secs(seconds)),
            ..Default::default()
        };
        let stored = |seconds| {
            let pool = Pool::try_from(edited(&asked(seconds)).unwrap()).unwrap();
            PoolView::from(pb::Pool::from(&pool))
        };
        insta::assert_snapshot!(shortened(&asked(10), &stored(10)).unwrap(), @"warning: --health-timeout 10s is stored as 5s, the interval: a check ends before the next one begins; 'lbctl set-pool web --health-timeout 10s --health-interval 10s' allows more");
        assert_eq!(shortened(&asked(4), &stored(4)), None);
    }

    #[test]
    fn an_interval_of_a_millisecond_is_warned_of() {
        let asked = |ms| PoolSettings {
            health_interval: Some(Duration::from_millis(ms)),
            ..Default::default()
        };
        insta::assert_snapshot!(hurried(&asked(1)).unwrap(), @"warning: --health-interval 1ms is up to 1000 checks a second for each backend, and a check may take no longer than the interval; write 100ms or more unless that is meant");
        assert_eq!(hurried(&asked(100)), None);
        assert_eq!(hurried(&PoolSettings::default()), None);
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
    fn no_idle_connections_at_all_are_not_the_default() {
        let none = BackendConnections { max_idle_connections: Some(0), ..Default::default() };
        let settings = PoolSettings { connections: none, ..Default::default() };
        assert_eq!(edited(&settings).unwrap().max_idle_connections, Some(0));
        assert_eq!(edited(&PoolSettings::default()).unwrap().max_idle_connections, None);
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
