//! What the Connection fields of a head say.

use super::fields::{Field, classify, is_token, list};

/// What the Connection fields of a head say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ConnectionOptions {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// Fields that are named and that the proxy does not understand itself; and Trailer, since no
    /// trailers are passed on where any is named.
    named: u8,
    /// Of all their values.
    length: usize,
}

/// More than this many fields named in Connection are a refusal.
const NAMED_MAX: u8 = 16;
/// All Connection fields of a head are at most so long together: each other field is looked for
/// in them.
const CONNECTION_BYTES_MAX: usize = 1024;

impl ConnectionOptions {
    /// Adds one Connection field. `None` when it is malformed or names too many.
    pub(crate) fn add(&mut self, value: &[u8]) -> Option<()> {
        self.length += value.len();
        if self.length > CONNECTION_BYTES_MAX {
            return None;
        }
        for option in list(value) {
            if !is_token(option) {
                return None;
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if matches!(classify(option), Field::Other | Field::Trailer) {
                self.named += 1;
                if self.named > NAMED_MAX {
                    return None;
                }
            }
            // The proxy decides about the fields that it understands itself: a client
            // cannot have Host or Content-Length dropped by naming them here.
        }
        Some(())
    }

    /// Whether there are such fields.
    pub(crate) fn names_any(&self) -> bool {
        self.named > 0
    }

    /// Whether the sender meant this field, which is not one of those that are
    /// understood, for the next hop only (RFC 9110, 7.6.1). `fields` are those of the
    /// head that this was made from.
    pub(crate) fn names(&self, name: &[u8], fields: &[httparse::Header<'_>]) -> bool {
        if !self.names_any() {
            return false;
        }
        fields
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case("connection"))
            .flat_map(|field| list(field.value))
            .any(|option| option.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_connection_field_is_refused_however_little_it_says() {
        let commas = vec![b','; CONNECTION_BYTES_MAX];
        let mut options = ConnectionOptions::default();
        assert!(options.add(&commas).is_some());
        assert!(options.add(b"close").is_none());
        assert!(ConnectionOptions::default().add(&[&commas[..], b"close"].concat()).is_none());
    }

    #[test]
    fn connection_names_fields_but_not_those_of_the_proxy() {
        let mut options = ConnectionOptions::default();
        let value = b"close, X-Custom , host,content-length";
        options.add(value).unwrap();
        assert!(options.close && !options.keep_alive);
        let fields = [httparse::Header { name: "connection", value }];
        assert_eq!(options.named, 1);
        assert!(options.names(b"x-custom", &fields) && !options.names(b"x-other", &fields));
        assert!(options.add(b"a b").is_none());
        let many = "x,".repeat(17);
        assert!(ConnectionOptions::default().add(many.as_bytes()).is_none());
    }
}
