//! Parsers of single values. Their errors end up in clap's "invalid value" lines.

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    time::Duration,
};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use hyper::Uri;
use ipnet::IpNet;
use lb_core::{
    model::{
        Address, Affinity, Algorithm, BackendId, Invalid, LimitName, ListenerName, PoolName,
        RouteName, Source, Weight,
    },
    number::whole_number,
};
use lb_proto::{
    document::unit::{self, UNLIMITED, duration_within},
    server::parse_server,
};

use crate::format;

/// `http://HOST:PORT`, `HOST:PORT`, `HOST` or `unix:/PATH`.
pub(super) fn server(text: &str) -> Result<String, String> {
    parse_server(text).map(|server| server.url)
}

/// A setting: `250ms`, `5s`, `2m`; 1 ms to 24 h, whole milliseconds.
pub(super) fn setting(text: &str) -> Result<Duration, String> {
    duration_within(SHORTEST..=Duration::from_secs(24 * 3600))(text)
}

/// How long to wait, 1 ms to 30 days.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    duration_within(SHORTEST..=Duration::from_secs(30 * 24 * 3600))(text)
}

const SHORTEST: Duration = Duration::from_millis(1);

/// As [`setting`], where 0 means off.
pub(super) fn setting_or_zero(text: &str) -> Result<Duration, String> {
    duration_or_off(Duration::from_secs(24 * 3600))(text)
}

/// A duration up to this one, where 0 means off.
pub(super) fn duration_or_off(
    most: Duration,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    let read = duration_within(Duration::ZERO..=most);
    move |text| match text == "0" || is_off(text) {
        true => Ok(Duration::ZERO),
        false => read(text).map_err(|error| format!("{error}, or off")),
    }
}

/// How answers and people write a bound that there is not.
fn is_off(text: &str) -> bool {
    matches!(text, "off" | "none" | UNLIMITED)
}

/// A whole number up to this one, where 0 means off.
pub(super) fn number_or_off(
    most: u32,
) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync + 'static {
    let read = number(0..=most);
    move |text| match is_off(text) {
        true => Ok(0),
        false => read(text).map_err(|error| format!("{error}, or off")),
    }
}

/// `HOST:PORT`.
pub(super) fn address(text: &str) -> Result<Address, Invalid> {
    text.parse()
}

/// An address to listen on.
pub(super) fn host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.parse().map_err(|_| {
        "write an address of this machine, for example 127.0.0.1, or 0.0.0.0 for all".to_owned()
    })
}

/// 0 to 256.
pub(super) fn weight(text: &str) -> Result<u32, String> {
    number(0..=Weight::MAX)(text)
}

/// The id of a backend.
pub(super) fn backend(text: &str) -> Result<String, Invalid> {
    BackendId::new(text).map(|id| id.to_string())
}

/// The name of a pool.
pub(super) fn pool(text: &str) -> Result<String, Invalid> {
    PoolName::new(text).map(|name| name.to_string())
}

/// The name of a listener.
pub(super) fn listener(text: &str) -> Result<String, Invalid> {
    ListenerName::new(text).map(|name| name.to_string())
}

/// Where backends come from, as it is spelled on the wire.
pub(super) fn source(text: &str) -> Result<String, Invalid> {
    text.parse().map(|source: Source| source.to_string())
}

/// The name of a route.
pub(super) fn route(text: &str) -> Result<String, Invalid> {
    RouteName::new(text).map(|name| name.to_string())
}

/// The name of a limit.
pub(super) fn limit(text: &str) -> Result<String, Invalid> {
    LimitName::new(text).map(|name| name.to_string())
}

/// `KEY=VALUE`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, for example zone=a".to_owned()),
    }
}

/// A network in CIDR notation; a single address stands for itself.
pub(super) fn network(text: &str) -> Result<String, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network
        .map(|network| network.trunc().to_string())
        .map_err(|_| format!("{text:?} is no network; write it as 10.0.0.0/8 or fd00::/8"))
}

/// A number from 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("write a number from 0 to 1, for example 0.1".to_owned()),
    }
}

/// A whole number of a range.
pub(super) fn number(
    range: RangeInclusive<u32>,
) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync + 'static {
    let example = 10.clamp(*range.start(), *range.end());
    whole_number(range, example)
}

/// A whole number, where 0 means any number.
pub(super) fn number_or_unlimited(text: &str) -> Result<u32, String> {
    if is_off(text) {
        return Ok(0);
    }
    number(0..=u32::MAX)(text).map_err(|error| format!("{error}, or '{UNLIMITED}'"))
}

/// The status of an answer that was written down, or `none`. 0 would be the default on the wire.
pub(super) fn fallback_status(text: &str) -> Result<String, String> {
    match text.parse::<u32>() {
        Ok(200..=599) => Ok(text.to_owned()),
        _ if text == "none" => Ok(text.to_owned()),
        _ => Err("write 200 to 599, or none, for example 503".to_owned()),
    }
}

/// A number of bytes of a range.
pub(super) fn size(
    range: RangeInclusive<u32>,
) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync + 'static {
    move |text| {
        let [least, most] = [range.start(), range.end()].map(|n| format::size((*n).into()));
        let bytes = unit::parse_size(text)
            .map_err(|why| format!("{why}; what may be given is {least} to {most}"))?;
        let bytes = u32::try_from(bytes).ok().filter(|bytes| range.contains(bytes));
        bytes.ok_or_else(|| format!("{text} is outside {least} to {most}, for example {most}"))
    }
}

/// A number of bytes, where 0 means any number.
pub(super) fn size_or_unlimited(text: &str) -> Result<u64, String> {
    if is_off(text) {
        return Ok(0);
    }
    unit::parse_size(text).map_err(|error| format!("{error}, or '{UNLIMITED}'"))
}

/// What keeps a client with its backend: an affinity, or the algorithm that is one.
pub(super) fn sticky(text: &str) -> Result<String, Invalid> {
    if text == "ip_hash" {
        return Ok(text.to_owned());
    }
    text.parse::<Affinity>().map(|affinity| affinity.to_string()).map_err(|mut invalid| {
        if invalid.code == "unknown_affinity" {
            invalid.message += ", ip_hash";
        }
        invalid
    })
}

/// A known algorithm, under its canonical name.
pub(super) fn algorithm() -> impl TypedValueParser<Value = String> {
    let values = Algorithm::NAMES.map(|name| match name {
        "least_connections" => PossibleValue::new(name).aliases(["least_request", "least_conn"]),
        name => PossibleValue::new(name),
    });
    PossibleValuesParser::new(values)
        .try_map(|text| text.parse::<Algorithm>().map(|algorithm| algorithm.name().to_owned()))
}
/// `http://HOST[:PORT][/PATH]`.
pub(super) fn http_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error| format!("{error}; write http://HOST:PORT/"))?;
    match (url.scheme_str(), url.host()) {
        (Some("http"), Some(_)) => Ok(url),
        _ => Err("write http://HOST:PORT/PATH; TLS is not spoken here".to_owned()),
    }
}
