//! A request as it is typed, read as a proxy would read it.

use crate::{
    args::ExplainRoute,
    exit::{Exit, Failure},
};

/// What routes look at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Asked {
    pub(super) method: String,
    /// With its port, if one was given; empty without a host.
    pub(super) host: String,
    /// The path with its query, or `*`.
    pub(super) target: String,
}

impl Asked {
    /// The host is that of the URL, as clients send it, unless a Host field takes its place.
    /// What a proxy would refuse is refused here.
    pub(super) fn read(args: &ExplainRoute) -> Result<Self, Failure> {
        let (host, target) = split(&args.url)?;
        let method = args.method.as_deref().unwrap_or("GET");
        let mut hosts = args.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = match (hosts.next(), hosts.next()) {
            (None, _) => host.unwrap_or_default(),
            (Some((_, field)), None) => field.as_str(),
            (Some(_), Some(_)) => {
                return Err(refused("two Host fields: proxies answer 400; give one"));
            }
        };
        let is_host = |b: u8| b.is_ascii_graphic() && !br#"/?#@\<>"{}|^`,"#.contains(&b);
        if !host.bytes().all(is_host) {
            return Err(refused(&format!(
                "{host:?} is no host: proxies answer 400; write NAME or NAME:PORT"
            )));
        }
        if !target.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(refused(&format!(
                "{target:?} has characters that a target cannot have: proxies answer 400; write them \
                 as %XX"
            )));
        }
        if method.is_empty() || !method.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(refused(&format!("{:?} is no method; write GET or POST", method)));
        }
        if method == "CONNECT" {
            return Err(refused("proxies answer CONNECT with 405, whatever the routes"));
        }
        if target == "*" && method != "OPTIONS" {
            return Err(refused("the target * belongs to OPTIONS; write a URL or a path"));
        }
        let (method, host) = (method.to_owned(), host.to_owned());
        Ok(Self { method, host, target: target.to_owned() })
    }
}

/// The host of a URL, if it has one, and the target. A fragment stays with the client.
fn split(url: &str) -> Result<(Option<&str>, &str), Failure> {
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    if url.starts_with('/') || url == "*" {
        return Ok((None, url));
    }
    let schemes = ["http://", "https://"];
    let rest = schemes.iter().find_map(|scheme| {
        let start = url.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &url[scheme.len()..])
    });
    let Some(rest) = rest else {
        return Err(refused(&format!(
            "{url:?} is neither a URL nor a path; write http://HOST/PATH, or /PATH with -H 'Host: HOST'"
        )));
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.is_empty() || host.starts_with(':') {
        return Err(refused(&format!("{url:?} has no host")));
    }
    // Without a path it is "/", and routes do not look at the query.
    Ok((Some(host), if target.starts_with('/') { target } else { "/" }))
}

fn refused(message: &str) -> Failure {
    Failure::new(Exit::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, url: &str, fields: &[(&str, &str)]) -> Result<Asked, Failure> {
        Asked::read(&ExplainRoute {
            method: Some(method.to_owned()),
            url: url.to_owned(),
            fields: fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            listener: "default".to_owned(),
        })
    }

    #[test]
    fn host_and_target_are_those_that_a_client_sends() {
        let host: &[(&str, &str)] = &[("x-a", "b"), ("hOST", "h:1")];
        for (url, fields, host, target) in [
            ("http://a.example/x?y#z", &[][..], "a.example", "/x?y"),
            ("HTTPS://u:p@[::1]:80", &[], "[::1]:80", "/"),
            ("http://a?q", &[], "a", "/"),
            ("http://a/x", host, "h:1", "/x"),
            ("/x", host, "h:1", "/x"),
            ("/x", &[], "", "/x"),
        ] {
            let asked = read("GET", url, fields).unwrap();
            assert_eq!((asked.host.as_str(), asked.target.as_str()), (host, target), "{url}");
        }
        assert_eq!(read("OPTIONS", "*", &[]).unwrap().target, "*");
    }

    #[test]
    fn what_a_proxy_would_refuse_is_refused() {
        for (method, url, fields, hint) in [
            ("GET", "a.example/x", &[][..], "neither a URL"),
            ("GET", "http:///x", &[], "no host"),
            ("GET", "*", &[], "OPTIONS"),
            ("CONNECT", "http://a", &[], "405"),
            ("G T", "/", &[], "no method"),
            ("GET", "/ä", &[], "%XX"),
            ("GET", "/", &[("host", "a"), ("Host", "a")], "two Host"),
            ("GET", "/", &[("host", "a/b")], "no host"),
        ] {
            let failure = read(method, url, fields).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.contains(hint), "{failure}");
        }
    }
}
