//! Listeners that nothing is routed from.

use super::*;

#[test]
fn a_listener_without_a_route_is_trouble_where_somebody_can_ask() {
    let mut facts = facts(vec![proxy("p1", "synced")]);
    // The proxy has an address for the second one alone: of the first, that is told.
    facts.listeners = vec![listener("default"), listener("extra")];
    let told = |facts: &Facts, name: &str| {
        let findings = about(facts, "listener", name);
        let found = findings.into_iter().find(|finding| finding.check == "route_exists")?;
        Some((found.is_trouble(), found.level, found.message))
    };
    let (is_trouble, level, message) = told(&facts, "extra").unwrap();
    assert_eq!((is_trouble, level), (true, Level::Failed));
    insta::assert_snapshot!(message, @"listener extra has no route: everything is answered 404");
    assert_eq!(told(&facts, "default"), None);
    facts.routes = vec![route("r", "extra", "", "/")];
    assert_eq!(told(&facts, "extra"), None);
    // Nobody knows of an address.
    facts.proxies.clear();
    assert_eq!(told(&facts, "default").map(|(is_trouble, ..)| is_trouble), Some(true));
}
