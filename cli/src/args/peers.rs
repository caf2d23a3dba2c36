//! Words of nginx and HAProxy, for those who type them here.

use clap::error::{ContextKind, ErrorKind};

use super::words::said;

/// A flag that is called otherwise here, or is no flag. A star at the end stands for any rest.
const FLAGS: [(&[&str], &str); 19] = [
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
    (
        &["tls*", "ssl*", "https", "cert*", "crt", "ca-cert", "ca-file", "sni", "alpn"],
        "TLS is not supported yet, neither with clients nor with backends",
    ),
    (
        &["port", "bind", "listen"],
        "a listener's address is the proxy's own, 'lbctl data-plane --listen NAME=ADDR:PORT'; a \
         backend's port is part of its HOST:PORT",
    ),
    (
        &["health*", "rise", "fall"],
        "checks are the pool's: 'lbctl set-pool POOL --health-path /', --health-interval, --rise, \
         --fall",
    ),
    (
        &["regex", "regexp", "path-regex", "path-regexp", "path-match", "path-pattern"],
        "there are no patterns; --path-prefix takes a path and everything below it, --path one path",
    ),
    (
        &["header", "headers", "set-header", "add-header", "request-header", "response-header"],
        "routes look at the host and the path alone, and headers are not rewritten; what goes by a \
         header is 'lbctl set-pool POOL --sticky header:NAME' and 'lbctl add-limit NAME --key \
         header:NAME'",
    ),
    (
        &["redirect*", "rewrite*", "strip-prefix", "prefix-rewrite", "path-rewrite"],
        "requests are neither redirected nor rewritten",
    ),
    (
        &["request-timeout", "connect-timeout", "timeout-server", "timeout-connect"],
        "these time-outs are the pool's: 'lbctl set-pool POOL --request-timeout 30s', \
         --connect-timeout",
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
    let is_meant = |name: &&str| match name.strip_suffix('*') {
        Some(begin) => said.starts_with(begin),
        None => *name == said,
    };
    let found = words.iter().find(|(names, _)| names.iter().any(is_meant))?;
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
            ("lbctl add-pool t --tls", "TLS is not supported yet"),
            ("lbctl set-listener default --tls-cert x.pem", "TLS is not supported yet"),
            ("lbctl set-listener default --ssl_certificate x.pem", "TLS is not supported yet"),
            ("lbctl add-listener l2 --port 8099", "data-plane --listen NAME=ADDR:PORT"),
            ("lbctl add-listener l2 --bind=:80", "data-plane --listen NAME=ADDR:PORT"),
            ("lbctl set-backend b2 --health-path /", "set-pool POOL --health-path"),
            ("lbctl add-route r --path-regex ^/a", "--path-prefix"),
            ("lbctl add-route r --header x", "the host and the path alone"),
            ("lbctl add-route r --redirect /x", "neither redirected"),
            ("lbctl add-route r --request-timeout 5s", "set-pool POOL --request-timeout"),
        ] {
            let told = told(line);
            assert!(told.starts_with("there is no "), "{line}: {told}");
            assert!(told.contains(meant), "{line}: {told}");
        }
        assert!(told("lbctl set-pool p --algorithm nonsense").contains("possible values"));
    }
}
