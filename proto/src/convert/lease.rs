//! Leases: reports and grants about quantities.

use std::{num::NonZeroU32, time::Duration};

use lb_core::{
    lease::{Grant, Quantity, QuantityKind, Report, Term},
    resilience::concurrency::{Sums, Told},
};

use crate::v1 as pb;

/// As the wire names a quantity.
#[must_use]
pub fn quantity_to_wire(quantity: &Quantity) -> pb::LeasedQuantity {
    let kind = match quantity.kind {
        QuantityKind::Pool => pb::LeaseKind::Pool,
        QuantityKind::Backend => pb::LeaseKind::Backend,
        QuantityKind::Limit => pb::LeaseKind::Limit,
    };
    pb::LeasedQuantity {
        kind: kind.into(),
        name: quantity.name.to_string(),
        incarnation: quantity.incarnation,
    }
}

/// `None` if it is of a kind that this build does not know.
#[must_use]
pub fn quantity_from_wire(wire: &pb::LeasedQuantity) -> Option<Quantity> {
    let kind = match pb::LeaseKind::try_from(wire.kind).ok()? {
        pb::LeaseKind::Unspecified => return None,
        pb::LeaseKind::Pool => QuantityKind::Pool,
        pb::LeaseKind::Backend => QuantityKind::Backend,
        pb::LeaseKind::Limit => QuantityKind::Limit,
    };
    Some(Quantity { kind, name: wire.name.as_str().into(), incarnation: wire.incarnation })
}

/// What holder number `holder` of a process says.
#[must_use]
pub fn lease_report_to_wire(
    quantity: &Quantity,
    key: Option<u64>,
    holder: u64,
    report: &Report,
    waiting: u64,
) -> pb::LeaseReport {
    pb::LeaseReport {
        quantity: Some(quantity_to_wire(quantity)),
        key,
        holder,
        sequence: report.seq,
        term: report.term.0,
        applied: report.applied,
        holds: report.holds,
        safe: report.safe,
        in_use: report.in_use,
        demand: report.demand,
        recent: report.is_recent,
        waiting,
        ..pb::LeaseReport::default()
    }
}

/// Adds what a report says of a pool with adaptive concurrency.
pub fn add_sums_to_wire(aside: u64, sums: &Sums, wire: &mut pb::LeaseReport) {
    wire.aside = aside;
    wire.answers = sums.answers;
    wire.answers_us = sums.time_us;
    wire.given_up = sums.given_up;
    wire.given_up_us = sums.given_up_us;
}

/// What a report says of a pool with adaptive concurrency.
#[must_use]
pub fn told_from_wire(wire: &pb::LeaseReport) -> Told {
    Told {
        holds: wire.holds,
        in_use: wire.in_use,
        aside: wire.aside,
        waiting: wire.waiting,
        sums: Sums {
            answers: wire.answers,
            time_us: wire.answers_us,
            given_up: wire.given_up,
            given_up_us: wire.given_up_us,
        },
    }
}

/// The report within a message.
#[must_use]
pub fn lease_report_from_wire(wire: &pb::LeaseReport) -> Report {
    Report {
        seq: wire.sequence,
        term: Term(wire.term),
        applied: wire.applied,
        holds: wire.holds,
        safe: wire.safe,
        in_use: wire.in_use,
        demand: wire.demand,
        is_recent: wire.recent,
    }
}

/// What holder number `holder` of a process is lent.
#[must_use]
pub fn lease_grant_to_wire(
    quantity: &Quantity,
    key: Option<u64>,
    holder: u64,
    grant: &Grant,
) -> pb::LeaseGrant {
    pb::LeaseGrant {
        quantity: Some(quantity_to_wire(quantity)),
        key,
        holder,
        term: grant.term.0,
        id: grant.id,
        answers: grant.answers,
        lease_ms: u32::try_from(grant.lease.as_millis()).unwrap_or(u32::MAX),
        amount: grant.amount,
        safe: grant.safe,
        carried: grant.carried,
        proxies: grant.proxies.map_or(0, NonZeroU32::get),
    }
}

/// The grant within a message; `None` if nothing is lent by it.
#[must_use]
pub fn lease_grant_from_wire(wire: &pb::LeaseGrant) -> Option<Grant> {
    (wire.id > 0).then(|| Grant {
        term: Term(wire.term),
        id: wire.id,
        answers: wire.answers,
        lease: Duration::from_millis(wire.lease_ms.into()),
        amount: wire.amount,
        safe: wire.safe,
        carried: wire.carried,
        proxies: NonZeroU32::new(wire.proxies),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_comes_across() {
        let quantity =
            Quantity { kind: QuantityKind::Backend, name: "backend1".into(), incarnation: 7 };
        let report = Report {
            seq: 1,
            term: Term(2),
            applied: 3,
            holds: 4,
            safe: 5,
            in_use: 6,
            demand: 7,
            is_recent: true,
        };
        let mut wire = lease_report_to_wire(&quantity, Some(8), 9, &report, 10);
        assert_eq!(lease_report_from_wire(&wire), report);
        let sums = Sums { answers: 12, time_us: 13, given_up: 14, given_up_us: 15 };
        add_sums_to_wire(11, &sums, &mut wire);
        let told = Told { holds: 4, in_use: 6, aside: 11, waiting: 10, sums };
        assert_eq!(told_from_wire(&wire), told);
        let named = wire.quantity.as_ref().and_then(quantity_from_wire);
        assert_eq!((named, wire.key, wire.holder), (Some(quantity.clone()), Some(8), 9));
        let grant = Grant {
            term: Term(1),
            id: 2,
            answers: 3,
            lease: Duration::from_secs(1),
            amount: 4,
            safe: 5,
            carried: true,
            proxies: NonZeroU32::new(6),
        };
        let wire = lease_grant_to_wire(&quantity, None, 9, &grant);
        assert_eq!(lease_grant_from_wire(&wire), Some(grant));
        assert_eq!(lease_grant_from_wire(&pb::LeaseGrant { id: 0, ..wire }), None);
    }
}
