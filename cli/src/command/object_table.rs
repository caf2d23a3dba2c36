//! Lists of listeners and routes.

use crate::{
    output::{Cell, Table},
    view::{AnyObject, ListenerView, ObjectView, RouteView},
};

/// Listeners or routes, a line each; with all their settings that are not the default, when
/// it may be wide.
pub(super) fn object_table(kind: &str, views: &[ObjectView], wide: bool) -> Table {
    let mut headers = match kind {
        "route" => vec!["ROUTE", "LISTENER", "HOST", "PATH", "POOL"],
        _ => vec!["LISTENER", "PROTOCOL", "TRUST-XFF", "TRUSTED-PROXIES", "KEEP-ALIVE"],
    };
    if wide {
        headers.push("REVISION");
        headers.extend((kind == "listener").then_some("CHOSEN"));
    }
    let mut table = Table::new(&headers);
    for view in views {
        let mut row = match &view.object {
            AnyObject::Route(route) => route_row(route),
            AnyObject::Listener(listener) => listener_row(listener),
            AnyObject::Pool(_) | AnyObject::Backend(_) | AnyObject::Limit(_) => continue,
        };
        if wide {
            row.push(view.revision.into());
            row.extend((kind == "listener").then(|| chosen(view).into()));
        }
        table.row(row);
    }
    table
}

fn chosen(view: &ObjectView) -> String {
    let fields = view.chosen().unwrap_or_default();
    let fields: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if fields.is_empty() { "-".to_owned() } else { fields.join(" ") }
}

fn route_row(route: &RouteView) -> Vec<Cell> {
    let host = if route.host.is_empty() { "*" } else { &route.host };
    vec![
        (&route.name).into(),
        (&route.listener).into(),
        host.into(),
        route.paths().into(),
        route.shares().into(),
    ]
}

fn listener_row(listener: &ListenerView) -> Vec<Cell> {
    let fields = listener.fields();
    let field = |name: &str| {
        let value = fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.clone());
        Cell::from(value.unwrap_or_default())
    };
    vec![
        (&listener.name).into(),
        field("protocol"),
        field("trust-xff"),
        field("trusted-proxies"),
        field("keep-alive-timeout"),
    ]
}

#[cfg(test)]
mod tests {
    use lb_proto::v1 as pb;

    use super::*;

    #[test]
    fn wide_lists_tell_more() {
        let wire =
            pb::Listener { name: "l".to_owned(), max_body_bytes: 1024, ..Default::default() };
        let object = Some(pb::object::Object::Listener(wire));
        let views = [ObjectView::read(pb::Object { object, revision: 7 }).unwrap()];
        assert!(!object_table("listener", &views, false).render(false).contains("REVISION"));
        let wide = object_table("listener", &views, true).render(false);
        assert!(wide.contains("REVISION") && wide.contains("max-body-bytes=1KiB"), "{wide}");
    }
}
