//! Words of nginx and HAProxy, for those who type them here.

use clap::error::{ContextKind, ErrorKind};

use super::words::said;

/// A flag that is called otherwise here, or is no flag.
const FLAGS: [(&[&str], &str); 12] = [
    (
        &["max-conn", "maxconn", "max-conns"],
        "requests in progress at a backend, over all proxies, are --max-in-flight; connections of \
         clients are 'lbctl set-listener NAME --max-connections N'",
    ),
    (
        &["balance", "method", "lb-algorithm"],
        "write --algorithm, or 'lbctl set-algorithm POOL ALGORITHM'",
    ),
    (
        &["backup"],
        "spare backends are a pool of their own: 'lbctl set-pool POOL --fallback-pool SPARE'",
    ),
    (
        &["max-fails", "error-limit", "observe"],
        "failures in a row that take a backend out are --breaker-failures of its pool, failing checks \
         in a row are --fall",
    ),
    (&["fail-timeout"], "how long a backend is out is --breaker-open of its pool"),
    (&["inter", "check-interval"], "write --health-interval, of the pool"),
    (&["fastinter"], "it is the key health_edge_interval of files ('lbctl apply -f'), and no flag"),
    (
        &["httpchk", "check", "http-check"],
        "checks are the pool's: 'lbctl set-pool POOL --health http --health-path /health'",
    ),
    (&["slowstart"], "write --slow-start, of the pool"),
    (
        &["redispatch", "retry-on", "next-upstream"],
        "retries always go to another backend: --retries, --try-timeout and --retry-budget of the pool",
    ),
    (&["down"], "'lbctl disable-backend ID' takes a backend out, 'lbctl drain-backend ID' gently"),
    (
        &["cookie", "stick", "persistence"],
        "write --sticky cookie, --sticky header:NAME or --algorithm ip_hash, of the pool",
    ),
];

/// An algorithm that is called otherwise here, or that there is not.
const ALGORITHMS: [(&[&str], &str); 6] = [
    (
        &["roundrobin", "rr"],
        "write round_robin, or weighted_round_robin where weights are to count",
    ),
    (&["static-rr", "wrr", "weighted"], "write weighted_round_robin"),
    (&["leastconn", "least-conn", "lc"], "write least_connections"),
    (&["source", "iphash", "ip-hash"], "write ip_hash"),
    (
        &["random", "p2c", "power_of_two"],
        "there is no random choice; least_connections picks the least loaded, in large pools of a few \
         chosen at random (--choices)",
    ),
    (
        &["uri", "hash", "hdr", "url_param", "consistent_hash", "maglev", "first"],
        "hashing is by the client's address (ip_hash) or by a field: 'lbctl set-pool POOL --sticky \
         header:NAME'",
    ),
];

/// What a wrong command line probably meant, if it is in the words of another balancer.
pub(super) fn hint(error: &clap::Error) -> Option<String> {
    let argument = said(error, ContextKind::InvalidArg)?;
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let flag = argument.strip_prefix("--")?.split('=').next()?;
            let meant = find(&FLAGS, &flag.replace('_', "-"))?;
            Some(format!("there is no --{flag}: {meant}; see --help"))
        }
        ErrorKind::InvalidValue if argument.to_lowercase().contains("algorithm") => {
            let value = said(error, ContextKind::InvalidValue)?;
            let meant = find(&ALGORITHMS, value)?;
            Some(format!("there is no algorithm {value:?}: {meant}; see --help"))
        }
        _ => None,
    }
}

fn find(words: &'static [(&[&str], &str)], said: &str) -> Option<&'static str> {
    let said = said.to_lowercase();
    let found = words.iter().find(|(names, _)| names.contains(&&*said))?;
    Some(found.1)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    fn told(line: &str) -> String {
        let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
        hint(&error).unwrap_or_else(|| error.to_string())
    }

    #[test]
    fn words_of_other_balancers_lead_to_ours() {
        for (line, meant) in [
            ("lbctl set-backend b1 --max-conn 5", "--max-in-flight"),
            ("lbctl set-backend b1 --maxconn=5", "--max-in-flight"),
            ("lbctl add-pool p --balance leastconn", "--algorithm"),
            ("lbctl add-backend a:1 --backup", "--fallback-pool"),
            ("lbctl set-pool p --algorithm source", "ip_hash"),
            ("lbctl set-pool p --algorithm RoundRobin", "round_robin"),
            ("lbctl set-algorithm p leastconn", "least_connections"),
            ("lbctl set-algorithm p random", "--choices"),
            ("lbctl set-pool p --max_fails 3", "--breaker-failures"),
        ] {
            let told = told(line);
            assert!(told.starts_with("there is no "), "{line}: {told}");
            assert!(told.contains(meant), "{line}: {told}");
        }
        assert!(told("lbctl set-pool p --algorithm nonsense").contains("possible values"));
    }
}
