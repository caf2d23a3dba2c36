//! Names and versions.
//!
//! All names share one form, so that they fit into a URL, a metric label, a
//! command line and a file name without quoting.

use std::{cmp::Ordering, fmt, sync::Arc};

use super::Invalid;

/// The longest name, in bytes: what DNS allows a label.
const NAME_MAX: usize = 63;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Eq, Hash, PartialEq)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks the form: 1 to 63 of `A-Z a-z 0-9 . _ -`, beginning with a
            /// letter or a digit.
            pub fn new(name: &str) -> Result<Self, Invalid> {
                check_name($field, name).map(|()| Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        /// As people count: see [`natural_order`].
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                natural_order(&self.0, &other.0)
            }
        }

        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl From<&$type> for Arc<str> {
            fn from(name: &$type) -> Self {
                Self::clone(&name.0)
            }
        }
    };
}

name!(
    /// The name of a pool.
    PoolName,
    "pool.name"
);
name!(
    /// The id of a backend; never reused after removal.
    BackendId,
    "backend.id"
);
name!(
    /// The name of a listener.
    ListenerName,
    "listener.name"
);
name!(
    /// The name of a route.
    RouteName,
    "route.name"
);
name!(
    /// The name of a limit.
    LimitName,
    "limit.name"
);
name!(
    /// The id of a proxy; it survives restarts.
    ProxyId,
    "proxy.id"
);
name!(
    /// One start of a proxy process.
    InstanceId,
    "proxy.instance"
);

impl PoolName {
    /// The pool that a fresh control plane holds.
    #[must_use]
    pub fn default_pool() -> Self {
        Self("default".into())
    }
}

impl ListenerName {
    /// The listener that a fresh control plane holds.
    #[must_use]
    pub fn default_listener() -> Self {
        Self("default".into())
    }
}

impl RouteName {
    /// The route from everything to the default pool.
    #[must_use]
    pub fn default_route() -> Self {
        Self("default".into())
    }
}

fn check_name(field: &'static str, name: &str) -> Result<(), Invalid> {
    if name.is_empty() {
        return Err(Invalid::value(field, format!("{field} is empty; give it 1 to 63 characters")));
    }
    if name.len() > NAME_MAX {
        let shown: String = name.chars().take(20).collect();
        return Err(Invalid::value(
            field,
            format!(
                "{field} {shown:?}... has {} bytes; at most {NAME_MAX} are allowed",
                name.len()
            ),
        ));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(bad) = name.chars().find(|&c| !allowed(c)) {
        return Err(Invalid::value(
            field,
            format!("{field} {name:?} contains {bad:?}; use letters, digits, '.', '_' and '-'"),
        ));
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(Invalid::value(
            field,
            format!("{field} {name:?} begins with a sign; begin with a letter or a digit"),
        ));
    }
    Ok(())
}

/// Orders names as people do: `backend2` before `backend10`.
#[must_use]
pub fn natural_order(a: &str, b: &str) -> Ordering {
    let ((a_stem, a_number), (b_stem, b_number)) = (split_number(a), split_number(b));
    // Without its zeros in front, the longer number is the larger one.
    let (a_digits, b_digits) = (a_number.trim_start_matches('0'), b_number.trim_start_matches('0'));
    a_stem
        .cmp(b_stem)
        .then_with(|| (a_digits.len(), a_digits).cmp(&(b_digits.len(), b_digits)))
        .then_with(|| a.cmp(b))
}

fn split_number(name: &str) -> (&str, &str) {
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    name.split_at(name.len() - digits)
}

/// The random id of a store, made when it is created or restored. Versions of
/// different epochs cannot be compared.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Epoch(pub [u8; 16]);

impl Epoch {
    /// Reads an epoch off the wire or off a disk.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Epoch {
    /// The first four bytes in hexadecimal: enough for people to tell epochs apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names one state of one store.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Version {
    /// The store.
    pub epoch: Epoch,
    /// Counts the store's changes; never goes back within an epoch.
    pub revision: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.revision, self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_a_url() {
        for good in ["default", "backend1", "a.b-c_d", "9", &"x".repeat(63)] {
            assert!(PoolName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", "a\n", &"x".repeat(64)] {
            assert!(PoolName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn people_count_backends_in_their_order() {
        let huge = format!("backend1{}", "0".repeat(30));
        let ordered =
            ["a", "backend", "backend0", "backend00", "backend1", "backend02", "backend2"];
        let ordered = [&ordered[..], &["backend10", &huge, "backend-1"]].concat();
        let mut ids: Vec<BackendId> =
            ordered.iter().map(|id| BackendId::new(id).unwrap()).collect();
        ids.reverse();
        ids.sort();
        let ids: Vec<&str> = ids.iter().map(BackendId::as_str).collect();
        assert_eq!(ids, ordered);
    }

    #[test]
    fn a_refusal_of_a_huge_name_stays_short() {
        let error = BackendId::new(&"x".repeat(1 << 20)).unwrap_err();
        assert!(error.message.len() < 200);
        assert!(error.message.contains("1048576 bytes"));
    }
}
