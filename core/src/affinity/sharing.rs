//! Whether caches that many clients share may keep an answer.
//!
//! An answer that sets a session's cookie is for one client. That it does so keeps no cache from
//! storing it (RFC 9111, 7.3), and one that did would hand a client's session to all others. So
//! such an answer says `private`, unless it is kept from them already.

/// Whether an answer with these values of `Cache-Control` is kept from shared caches as a
/// whole: by `no-store`, or by `private` that names no fields.
///
/// `no-cache` is not enough: a cache may store such an answer, and hand it out once the backend
/// has said that nothing has changed. Neither is `private="set-cookie"`, which is about that
/// field only, and which many caches take for nothing (RFC 9111, 5.2.2.7).
pub fn is_private<'a>(mut cache_control: impl Iterator<Item = &'a [u8]>) -> bool {
    cache_control.any(|value| {
        directives(value).any(|directive| {
            directive.eq_ignore_ascii_case(b"no-store")
                || directive.eq_ignore_ascii_case(b"private")
        })
    })
}

/// The members of a list, whose values may be quoted and have commas in them.
fn directives(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let members = value.split(move |&byte| {
        let ends = byte == b',' && !is_quoted;
        is_quoted ^= byte == b'"' && !is_escaped;
        is_escaped = is_quoted && byte == b'\\' && !is_escaped;
        ends
    });
    members.map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private(values: &[&str]) -> bool {
        is_private(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn only_what_keeps_the_whole_answer_from_shared_caches_is_enough() {
        for enough in [
            &["no-store"][..],
            &["private"],
            &["public, Private"],
            &["max-age=60,NO-STORE"],
            &["max-age=60", "private"],
            &["ext=\"a\\\"b, c\", private"],
        ] {
            assert!(private(enough), "{enough:?}");
        }
        for not in [
            &[][..],
            &[""],
            &["public, max-age=60"],
            &["no-cache"],
            &["private=\"set-cookie\""],
            &["ext=\"x, private, no-store\""],
            &["ext=\"a\\\", private"],
            &["no-storage, privately"],
        ] {
            assert!(!private(not), "{not:?}");
        }
    }
}
