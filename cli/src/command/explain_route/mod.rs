//! `explain-route`: which route a request takes, where it goes, and why not elsewhere.
//!
//! The routes are fetched from the control plane and matched here, by the code that
//! proxies use. So it tells what the configuration says; that the proxies have applied
//! it, `lbctl status` says.

mod page;
mod request;
mod view;

use lb_core::{
    model::{ListenerName, Route},
    routing::explain,
};
use lb_proto::v1 as pb;

pub(super) use self::{page::pool_table, view::PoolShare};
use self::{request::Asked, view::ExplainView};
use super::{Session, get};
use crate::{
    args::ExplainRoute,
    exit::{Exit, Failure},
    view::{BackendView, PoolView, RouteView},
};

/// Explains one request. Without a matching route that is told, and is a failure.
pub(super) async fn run(session: &Session, args: ExplainRoute) -> Result<(), Failure> {
    let asked = Asked::read(&args)?;
    let listeners = get::objects(session, "listener").await?;
    get::choose(listeners, Some(&args.listener), "listener", |listener| listener.name())?;
    // One that could not be read would be missing from the answer, so there is none.
    let routes: Vec<Route> = get::routes(session).await?.into_iter().collect::<Result<_, _>>()?;
    let all: Vec<&Route> = routes.iter().collect();
    let listener = ListenerName::new(&args.listener)?;
    let explanation = explain(&all, &listener, &asked.host, &asked.target);
    let pools = match explanation.chosen {
        Some(route) => {
            let (pools, backends) = (get::pools(session).await?, get::backends(session, "").await?);
            pools_of(route, &pools, &backends)
        }
        None => Vec::new(),
    };
    let view = ExplainView::new(&asked, &listener, &explanation, pools);
    let names = || view.route.iter().map(|route| format!("route/{}", route.name)).collect();
    session.screen.answer(&view, names, || page::page(&view, session.screen))?;
    match view.route {
        Some(_) => Ok(()),
        None => Err(Failure::new(
            Exit::NotFound,
            format!(
                "no route of listener {listener} matches: proxies answer 404 no_route; add one: \
                 lbctl add-route NAME{} --pool POOL",
                view.flags_of_a_route()
            ),
        )),
    }
}

/// Where requests of a route go, and who would serve them.
pub(super) fn pools_of(
    route: &Route,
    pools: &[PoolView],
    backends: &[BackendView],
) -> Vec<PoolShare> {
    let view = RouteView::from(pb::Route::from(route));
    let serves = |pool: &str| backends.iter().any(|b| b.pool == pool && b.serves());
    let shares = view.pools.into_iter().map(|share| {
        let pool = pools.iter().find(|pool| pool.name == share.pool);
        let of_pool = backends.iter().filter(|backend| backend.pool == share.pool);
        PoolShare {
            backends: of_pool.clone().count(),
            serving: of_pool.clone().filter(|backend| backend.serves()).count(),
            helping: of_pool.filter(|backend| backend.is_helping()).count(),
            instead: pool.and_then(|pool| pool.instead(serves)),
            share,
        }
    });
    shares.collect()
}
