//! What a process did, as it is reported.

use std::collections::BTreeMap;

use lb_proto::v1 as pb;

use super::Sums;
use crate::{process, reason::Reason};

/// What a process did since the last report, and the client connections of its workers.
pub(super) fn report(new: &Sums, worker_connections: Vec<u32>) -> pb::ProcessReport {
    let client_errors = Reason::ALL.into_iter().filter(|reason| reason.is_client_error());
    pb::ProcessReport {
        requests: new.requests,
        no_healthy_backend: new.of(Reason::NoHealthyBackend) + new.of(Reason::ConfigMissing),
        no_route: new.of(Reason::NoRoute),
        client_errors: client_errors.map(|reason| new.of(reason)).sum(),
        client_aborts: new.of(Reason::ClientAbort),
        client_connections: u32::try_from(new.connections).unwrap_or(u32::MAX),
        resident_bytes: process::resident_bytes().unwrap_or_default(),
        cpu_us: process::cpu_us(),
        status_classes: new.status_classes.to_vec(),
        own_answers: own_answers(new),
        access_log_dropped: new.access_log_dropped,
        worker_connections,
        ..pb::ProcessReport::default()
    }
}

/// A client that left was not answered, so it is told as an abort only.
fn own_answers(new: &Sums) -> BTreeMap<String, u64> {
    Reason::ALL
        .into_iter()
        .filter(|reason| reason.is_of_an_answer() && new.of(*reason) > 0)
        .map(|reason| (reason.name().to_owned(), new.of(reason)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Shard, sum};

    #[test]
    fn answers_are_told_by_reason_and_in_the_older_sums() {
        let shard = Shard::default();
        for reason in [
            Reason::NoRoute,
            Reason::ClientProtocolError,
            Reason::HeaderTooLarge,
            Reason::NoRoute,
            Reason::ConfigMissing,
            Reason::BackendReset,
            Reason::DnsFailure,
        ] {
            shard.count_own_answer(reason);
        }
        shard.count_client_abort();
        let report = report(&sum([&shard]), vec![3, 1]);
        let answers: Vec<(&str, u64)> =
            report.own_answers.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
        assert_eq!(
            answers,
            [
                ("backend_reset", 1),
                ("client_protocol_error", 1),
                ("config_missing", 1),
                ("dns_failure", 1),
                ("header_too_large", 1),
                ("no_route", 2),
            ]
        );
        assert_eq!((report.no_route, report.no_healthy_backend), (2, 1));
        assert_eq!((report.client_errors, report.client_aborts), (2, 1));
        assert_eq!(report.worker_connections, [3, 1]);
    }
}
