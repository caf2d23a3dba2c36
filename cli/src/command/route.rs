//! Commands that change routes.

use lb_core::model::Route;
use lb_proto::v1::{self as pb, object::Object as Wire};

use super::{
    Session,
    setting::set,
    write::{self, Change},
};
use crate::{
    args::{AddRoute, RemoveRoute, RouteSettings, SetRoute, Share},
    exit::Failure,
};

/// `add-route`
pub(super) async fn add(session: &Session, args: AddRoute) -> Result<(), Failure> {
    let mut route = pb::Route { name: args.name, ..pb::Route::default() };
    edit(&mut route, &args.settings)?;
    let expected = args.write.if_revision.unwrap_or(0);
    let change = Change::Create(Wire::Route(route));
    let view = write::send(session, &args.write, change, expected).await?;
    write::report(session, &view, &write::additions(&view))
}

/// `set-route`
pub(super) async fn change(session: &Session, args: SetRoute) -> Result<(), Failure> {
    let (view, lines) = write::modify(session, &args.write, "route", &args.name, |object| {
        let Wire::Route(route) = object else { return Ok(()) };
        edit(route, &args.settings)
    })
    .await?;
    write::report(session, &view, &lines)
}

/// `remove-route`
pub(super) async fn remove(session: &Session, args: RemoveRoute) -> Result<(), Failure> {
    let line = format!("- route {}", args.name);
    let name = pb::ObjectName { kind: "route".to_owned(), name: args.name };
    let expected = args.write.if_revision.unwrap_or(0);
    let view = write::send(session, &args.write, Change::Delete(name), expected).await?;
    write::report(session, &view, &[line])
}

fn edit(route: &mut pb::Route, settings: &RouteSettings) -> Result<(), Failure> {
    set(&mut route.listener, settings.listener.clone());
    set(&mut route.host, settings.host.clone());
    // A path takes the place of a prefix, and a prefix that of a path.
    if settings.path.is_some() || settings.path_prefix.is_some() {
        route.path = settings.path.clone().unwrap_or_default();
        route.path_prefix = settings.path_prefix.clone().unwrap_or_default();
    }
    if !settings.pools.is_empty() {
        route.pool.clear();
        route.pools = settings.pools.iter().map(weighted).collect();
    }
    // The control plane judges by the same code; asking here spares the trip. And what
    // it makes of the settings is what is sent: one pool in the field for one.
    *route = (&Route::try_from(route.clone())?).into();
    Ok(())
}

fn weighted(share: &Share) -> pb::WeightedPool {
    pb::WeightedPool { pool: share.pool.clone(), weight: Some(share.weight) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn share(pool: &str, weight: u32) -> Share {
        Share { pool: pool.to_owned(), weight }
    }

    fn before() -> pb::Route {
        pb::Route {
            name: "r".to_owned(),
            listener: "default".to_owned(),
            host: "a.example".to_owned(),
            path_prefix: "/api".to_owned(),
            pool: "web".to_owned(),
            ..pb::Route::default()
        }
    }

    fn edited(settings: &RouteSettings) -> Result<pb::Route, Failure> {
        let mut route = before();
        edit(&mut route, settings).map(|()| route)
    }

    #[test]
    fn what_is_not_named_stays() {
        let route = edited(&RouteSettings { host: Some("*".to_owned()), ..Default::default() });
        assert_eq!(route.unwrap(), pb::Route { host: String::new(), ..before() });
    }

    #[test]
    fn a_path_takes_the_place_of_a_prefix() {
        let settings = RouteSettings { path: Some("/x".to_owned()), ..Default::default() };
        let route = edited(&settings).unwrap();
        assert_eq!((route.path.as_str(), route.path_prefix.as_str()), ("/x", ""));
    }

    #[test]
    fn pools_replace_those_before() {
        let pools = vec![share("web", 90), share("next", 10)];
        let route = edited(&RouteSettings { pools, ..Default::default() }).unwrap();
        assert_eq!((route.pool.as_str(), route.pools.len()), ("", 2));
        let pools = vec![share("next", 10)];
        let route = edited(&RouteSettings { pools, ..Default::default() }).unwrap();
        assert_eq!((route.pool.as_str(), route.pools.len()), ("next", 0));
    }

    #[test]
    fn shares_that_mean_nothing_are_refused_before_they_are_sent() {
        for pools in [vec![share("a", 0), share("b", 0)], vec![share("a", 1), share("a", 2)]] {
            let failure = edited(&RouteSettings { pools, ..Default::default() }).unwrap_err();
            assert_eq!(failure.exit, Exit::Rejected, "{failure}");
        }
    }
}
