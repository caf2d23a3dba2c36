//! Sources that are names: asked again when the time to live of their answer ends.

use std::time::Duration;

use lb_core::{
    discovery::Found,
    model::{Address, Invalid, Reason},
};

use super::{Resolver, resolver::Answer};

/// How long one question may take.
const LOOKUP: Duration = Duration::from_secs(5);

/// Every address of the name.
pub(super) async fn addresses(
    resolver: &Resolver,
    name: &str,
    port: u16,
) -> Result<Answer<Found>, Reason> {
    let answer = resolver.addresses(name, LOOKUP).await?;
    let mut ips = answer.found;
    // Name servers shuffle, which means nothing.
    ips.sort_unstable();
    ips.dedup();
    let found = ips.into_iter().map(|ip| Found::new(Address::of_ip(ip, port)));
    Ok(Answer { found: found.collect(), ttl: answer.ttl, incomplete: answer.incomplete })
}

/// Every target of the service.
pub(super) async fn services(resolver: &Resolver, name: &str) -> Result<Answer<Found>, Reason> {
    let answer = resolver.services(name, LOOKUP).await?;
    let mut found: Vec<Found> = Vec::new();
    for target in answer.found {
        let address: Address = target.address.parse().map_err(|error: Invalid| {
            let message = format!("the service {name} has a target that cannot be used: {error}");
            Reason::new("dns_failure", message)
        })?;
        // The same target twice counts with the first, that is, the most urgent one.
        if found.iter().all(|other| other.address != address) {
            let (weight, priority) = (Some(target.weight), target.priority);
            found.push(Found { weight, priority, ..Found::new(address) });
        }
    }
    Ok(Answer { found, ttl: answer.ttl, incomplete: None })
}
