//! What `--log-level` understands: a level, or filters such as `info,lb_data_plane=debug`.
//!
//! The library that filters takes any other word for the name of a module and then logs
//! nothing at all, so that a mistyped level would look like a quiet process.

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Gives the text back if every part of it is a level or looks like a filter.
///
/// # Errors
///
/// One sentence about the first part that is neither.
pub fn parse(text: &str) -> Result<String, String> {
    match text.split(',').map(str::trim).find(|part| !is_understood(part)) {
        None => Ok(text.to_owned()),
        Some(part) => Err(format!(
            "{part:?} is no level; write error, warn, info, debug, trace or off, or a filter such \
             as info,lb_data_plane=debug"
        )),
    }
}

fn is_understood(part: &str) -> bool {
    // Spans with fields have a grammar of their own, in which a comma separates, too.
    if part.contains(['[', ']', '{', '}']) {
        return true;
    }
    match part.rsplit_once('=') {
        Some((target, level)) => !target.is_empty() && is_level(level),
        None => is_level(part),
    }
}

fn is_level(word: &str) -> bool {
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_understood() {
        for text in
            ["info", "WARN", "off", "info,lb_data_plane=debug", "warn, h2=trace", "[request]=debug"]
        {
            assert_eq!(parse(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn words_that_are_no_level_are_refused() {
        for (text, part) in [
            ("verbose", "\"verbose\""),
            ("inof", "\"inof\""),
            ("", "\"\""),
            ("info,quiet", "\"quiet\""),
            ("lb_data_plane=loud", "\"lb_data_plane=loud\""),
            ("=debug", "\"=debug\""),
        ] {
            assert!(parse(text).unwrap_err().starts_with(part), "{text}");
        }
    }
}
