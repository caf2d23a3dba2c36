//! Where the backends of a pool come from when nobody adds them by hand.

use std::{fmt, str::FromStr, sync::Arc};

use super::{Address, Host, Invalid};

const FIELD: &str = "pool.sources";

/// One origin of discovered backends.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Source {
    /// `dns:NAME:PORT`: every address of the name is a backend.
    Dns {
        /// In lower case, without a dot at its end.
        name: Arc<str>,
        /// The port of every backend.
        port: u16,
    },
    /// `srv:NAME`: every target of the service is a backend.
    Srv {
        /// Usually `_service._proto.domain`; in lower case, without a dot at its end.
        name: Arc<str>,
    },
    /// `file:PATH`: every line of a file on the control plane's machine is a backend.
    File {
        /// Absolute.
        path: Arc<str>,
    },
}

impl Source {
    /// How many a pool may have.
    pub const PER_POOL_MAX: usize = 8;

    /// Whether its answers carry weights. They then decide, and a change by hand is
    /// refused; otherwise weights are the operator's.
    #[must_use]
    pub fn gives_weights(&self) -> bool {
        match self {
            Self::Dns { .. } => false,
            Self::Srv { .. } | Self::File { .. } => true,
        }
    }

    /// At most [`Self::PER_POOL_MAX`], none of them twice.
    pub fn checked_list(sources: Vec<Self>) -> Result<Vec<Self>, Invalid> {
        if sources.len() > Self::PER_POOL_MAX {
            return Err(Invalid::value(
                FIELD,
                format!(
                    "{} sources are too many; a pool has at most {}",
                    sources.len(),
                    Self::PER_POOL_MAX
                ),
            ));
        }
        let twice = sources.iter().enumerate().find(|(at, one)| sources[..*at].contains(one));
        match twice {
            Some((_, source)) => Err(Invalid::value(
                FIELD,
                format!("the source {source} is named twice; name each source once"),
            )),
            None => Ok(sources),
        }
    }
}

impl FromStr for Source {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let shown: String = text.chars().take(80).collect();
        let wrong = |why: &str| Invalid::value(FIELD, format!("source {shown:?}: {why}"));
        match text.split_once(':') {
            Some(("dns", rest)) => {
                let address: Address = rest.parse().map_err(|error: Invalid| {
                    wrong(&format!("write it dns:NAME:PORT; {}", error.message))
                })?;
                match address.host() {
                    Host::Name(name) => {
                        Ok(Self::Dns { name: Arc::clone(name), port: address.port() })
                    }
                    Host::Ip(_) => Err(wrong(
                        "an address needs no discovery; add it with 'lbctl add-backend', or write \
                         dns:NAME:PORT",
                    )),
                }
            }
            Some(("srv", name)) => {
                // A name is checked as the host of an address, whatever the port.
                let address: Address = format!("{name}:1").parse().map_err(|_| {
                    wrong(
                        "write it srv:_SERVICE._PROTO.DOMAIN, for example srv:_http._tcp.web.test",
                    )
                })?;
                match address.host() {
                    Host::Name(name) => Ok(Self::Srv { name: Arc::clone(name) }),
                    Host::Ip(_) => Err(wrong("an address has no SRV records; name a service")),
                }
            }
            Some(("file", path)) => {
                if !path.starts_with('/') || path.len() > 1024 || path.contains(char::is_control) {
                    return Err(wrong(
                        "write it file:/PATH with the whole path on the control plane's machine, \
                         at most 1024 bytes",
                    ));
                }
                Ok(Self::File { path: path.into() })
            }
            _ => Err(wrong("known are dns:NAME:PORT, srv:_SERVICE._PROTO.DOMAIN and file:/PATH")),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns { name, port } => write!(f, "dns:{name}:{port}"),
            Self::Srv { name } => write!(f, "srv:{name}"),
            Self::File { path } => write!(f, "file:{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sources_are_written_as_they_are_read() {
        for (text, shown) in [
            ("dns:Web.Example.com.:80", "dns:web.example.com:80"),
            ("srv:_http._tcp.web.test", "srv:_http._tcp.web.test"),
            ("file:/etc/lb/web.txt", "file:/etc/lb/web.txt"),
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, hint) in [
            ("web.test:80", "known are dns:"),
            ("dns:web.test", "no port"),
            ("dns:10.0.0.1:80", "add-backend"),
            ("srv:", "_SERVICE"),
            ("srv:10.0.0.1", "address"),
            ("file:web.txt", "whole path"),
            ("consul:web", "known are"),
        ] {
            let error = text.parse::<Source>().unwrap_err();
            assert!(error.message.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn a_list_names_each_source_once_and_has_an_end() {
        let source = |n: usize| format!("dns:web{n}.test:80").parse::<Source>().unwrap();
        let twice = Source::checked_list(vec![source(1), source(2), source(1)]).unwrap_err();
        assert!(twice.message.contains("dns:web1.test:80"), "{twice}");
        let many = Source::checked_list((0..9).map(source).collect()).unwrap_err();
        assert!(many.message.contains("at most 8"), "{many}");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(text in "(dns:|srv:|file:/)[a-z0-9._:/\\[\\]-]{0,20}") {
            if let Ok(source) = text.parse::<Source>() {
                prop_assert_eq!(source.to_string().parse::<Source>().unwrap(), source);
            }
        }
    }
}
