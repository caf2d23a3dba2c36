//! Objects that this build cannot read: written by a newer build, or damaged?

use lb_core::{
    model::{Invalid, Kind},
    sync::Object,
};

use crate::store::StoreError;

/// This build.
const OURS: &str = env!("CARGO_PKG_VERSION");

/// Why the store cannot be used, if an object in it cannot be read. An object of a kind that
/// this build does not know, or any in a store that a newer build was the last to use, is whole:
/// whoever is told that it is damaged starts empty for nothing.
pub(super) fn unreadable(
    object: &Object,
    invalid: &Invalid,
    written_by: Option<&str>,
) -> StoreError {
    let what = format!("{} cannot be read: {invalid}", object.key);
    let known_kind = object.key.kind.parse::<Kind>().is_ok();
    if !known_kind || written_by.is_some_and(|theirs| is_newer(theirs, OURS)) {
        let written_by = written_by.map(|build| format!(" ({build})")).unwrap_or_default();
        return StoreError::NewerBuild { what, written_by, ours: OURS };
    }
    StoreError::Damaged { what }
}

/// Whether one version is above another; not, if they cannot be compared.
fn is_newer(theirs: &str, ours: &str) -> bool {
    let numbers = |version: &str| {
        let release = version.split(['-', '+']).next()?;
        release.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>()
    };
    numbers(theirs).zip(numbers(ours)).is_some_and(|(theirs, ours)| theirs > ours)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lb_core::model::Key;

    use super::*;

    fn told(kind: &str, written_by: Option<&str>) -> String {
        let payload = Bytes::from_static(b"?");
        let object = Object { key: Key::new(kind, "a"), revision: 1, payload };
        let invalid = lb_proto::convert::decode_object(&object).unwrap_err();
        unreadable(&object, &invalid, written_by).to_string()
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (theirs, ours) in [("0.10.0", "0.9.9"), ("1.0.0", "0.9.0"), ("0.1.1-rc1", "0.1.0")] {
            assert!(is_newer(theirs, ours) && !is_newer(ours, theirs), "{theirs} {ours}");
        }
        for (theirs, ours) in [("0.1.0", "0.1.0"), ("nightly", "0.1.0"), ("", "0.1.0")] {
            assert!(!is_newer(theirs, ours), "{theirs} {ours}");
        }
    }

    #[test]
    fn what_a_newer_build_wrote_is_not_called_damaged() {
        let newer = told("pool", Some("99.1.0"));
        assert!(newer.contains("by a newer build (99.1.0)"), "{newer}");
        let kind = told("wormhole", Some(OURS));
        assert!(kind.contains("by a newer build") && kind.contains("wormhole"), "{kind}");
        assert!(told("wormhole", None).contains("by a newer build"));
        for text in [newer, kind] {
            assert!(!text.contains("damaged") && !text.contains("empty"), "{text}");
        }
        for written_by in [None, Some(OURS), Some("0.0.1")] {
            assert!(told("pool", written_by).contains("damaged"));
        }
    }
}
