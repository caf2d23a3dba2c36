//! Where a control plane's gRPC is, as people write it.

use tonic::codegen::http::Uri;

/// The port of a control plane's gRPC, where none is named.
pub const GRPC_PORT: u16 = 9400;

/// A control plane's gRPC address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// `http://HOST:PORT` or `unix:/PATH`.
    pub url: String,
    /// None for a Unix socket.
    pub host: Option<String>,
}

/// Reads `http://HOST:PORT`, the same without `http://` or without the port, or `unix:/PATH`;
/// says what is wrong with anything else.
pub fn parse_server(text: &str) -> Result<Server, String> {
    let wrong = |why: &str| {
        format!("{text:?} is no address such as http://127.0.0.1:{GRPC_PORT} or unix:/PATH: {why}")
    };
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') {
            return Err(wrong("its path does not begin with '/'"));
        }
        return Ok(Server { url: format!("unix:{path}"), host: None });
    }
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = url.parse().map_err(|error| wrong(&format!("{error}")))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(wrong(
                "TLS is not supported here yet; use http:// over a network that you trust, or a \
                 tunnel",
            ));
        }
        _ => return Err(wrong("only http:// is supported")),
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it has no host"))?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let port = match uri.port_u16() {
        None if authority == host => GRPC_PORT,
        None | Some(0) => return Err(wrong("its port is no number of 1 to 65535")),
        Some(port) => port,
    };
    Ok(Server { url: format!("http://{host}:{port}"), host: Some(host.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> String {
        parse_server(text).unwrap().url
    }

    #[test]
    fn an_address_without_a_port_means_the_default_one() {
        assert_eq!(url("lb.example"), "http://lb.example:9400");
        assert_eq!(url("http://10.0.0.1"), "http://10.0.0.1:9400");
        assert_eq!(url("[::1]:9"), "http://[::1]:9");
        assert_eq!(url("http://lb.example:9401/"), "http://lb.example:9401");
    }

    #[test]
    fn a_unix_socket_has_a_path_and_no_host() {
        assert_eq!(url("unix:/run/lb/grpc.sock"), "unix:/run/lb/grpc.sock");
        assert_eq!(url("unix:///run/lb/grpc.sock"), "unix:/run/lb/grpc.sock");
        assert_eq!(parse_server("unix:/run/lb/grpc.sock").unwrap().host, None);
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, why) in [
            ("", ""),
            ("unix:", "begin with '/'"),
            ("unix:lb.sock", "begin with '/'"),
            ("https://lb.example", "TLS"),
            ("ftp://lb.example", "only http://"),
            ("lb.example:x", "1 to 65535"),
            ("lb.example:99999", "1 to 65535"),
            ("lb.example:0", "1 to 65535"),
            ("http://", ""),
        ] {
            let told = parse_server(text).unwrap_err();
            assert!(told.starts_with(&format!("{text:?} is no address")), "{told}");
            assert!(told.contains(why), "{told}");
        }
    }
}
