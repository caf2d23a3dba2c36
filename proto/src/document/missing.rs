//! What to say of a name that names nothing, in the same words wherever it was given.

use super::keys::nearest;

/// How many names are listed.
const SHOWN: usize = 8;

/// Among how many names the one that was probably meant is looked for.
const COMPARED_MAX: usize = 1000;

/// Of a name that nobody checked, as much as a name can have.
const NAME_MAX: usize = 63;

/// `backend b9 does not exist; known are b1, b2`.
#[must_use]
pub fn missing(kind: &str, name: &str, known: &[&str]) -> String {
    let shown = name.chars().take(NAME_MAX);
    let shown: String = shown.map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("{kind} {shown} does not exist; {}", instead(kind, name, known))
}

/// What there is instead of a name that does not exist: the one that was probably meant, the
/// first few, or how to get one.
#[must_use]
pub fn instead(kind: &str, name: &str, known: &[&str]) -> String {
    if known.is_empty() {
        return match kind {
            "proxy" => "none has connected yet, see lb-data-plane --help".to_owned(),
            _ => format!("there is no {kind} yet; add one with 'lbctl add-{kind}'"),
        };
    }
    let meant = if known.len() > COMPARED_MAX { None } else { nearest(name, known) };
    let all = format!("known are {}", some_of(known));
    match meant.filter(|meant| letters(meant) != letters(name)) {
        Some(meant) => format!("did you mean {meant}? {all}"),
        None => all,
    }
}

/// The first few of names: `a, b and 3 more`.
#[must_use]
pub fn some_of<S: AsRef<str>>(names: &[S]) -> String {
    let shown = names.iter().take(SHOWN).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A name without its digits: `backend9` is no misspelt `backend4`.
fn letters(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_gets_a_suggestion_and_the_names_that_there_are() {
        for (name, known, told) in [
            ("crt", &["cart", "api"][..], "did you mean cart? known are cart, api"),
            ("zzzzzz", &["cart", "api"], "known are cart, api"),
            ("api9", &["api4"], "known are api4"),
            ("cart", &[], "there is no route yet; add one with 'lbctl add-route'"),
        ] {
            let expected = format!("route {name} does not exist; {told}");
            assert_eq!(missing("route", name, known), expected);
        }
        let many: Vec<String> = (0..300).map(|n| format!("b{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let told = missing("backend", &"x".repeat(1000), &many);
        assert!(told.ends_with("b6, b7 and 292 more") && told.len() < 200, "{told}");
        assert!(missing("pool", "a\nb", &[]).starts_with("pool a?b does not exist"));
    }
}
