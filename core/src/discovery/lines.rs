//! The plain form of a file of backends: one `HOST:PORT [weight=N] [id=ID]` per line.

use std::collections::HashSet;

use super::Found;
use crate::model::{Address, BackendId, Invalid, Weight, shorten};

/// What is wrong with a file, and where.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Reads a file of lines. Empty lines and what follows a `#` are for people. Nothing is
/// taken from a file of which any line is wrong.
pub fn parse_lines(text: &str) -> Result<Vec<Found>, BadLine> {
    let mut found: Vec<Found> = Vec::new();
    let mut twins = Twins::default();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(address) = words.next() else { continue };
        let wrong = |message: String| BadLine { line: at + 1, message };
        let mut one = Found::new(address.parse().map_err(|e: Invalid| wrong(e.message))?);
        for word in words {
            set(&mut one, word).map_err(wrong)?;
        }
        if let Some(twin) = twins.of(&one) {
            return Err(wrong(twin));
        }
        found.push(one);
    }
    Ok(found)
}

/// Finds entries of one list that cannot both be meant, however long the list is.
#[derive(Debug, Default)]
pub struct Twins {
    addresses: HashSet<Address>,
    ids: HashSet<BackendId>,
}

impl Twins {
    /// Says what the next entry has in common with an earlier one.
    #[must_use]
    pub fn of(&mut self, one: &Found) -> Option<String> {
        let twice = |what: String| Some(format!("{what} is there twice; keep one of the two"));
        if !self.addresses.insert(one.address.clone()) {
            return twice(one.address.to_string());
        }
        let id = one.id.as_ref().filter(|id| !self.ids.insert((*id).clone()))?;
        twice(format!("id={id}"))
    }
}

fn set(found: &mut Found, word: &str) -> Result<(), String> {
    let shown = shorten(word);
    match word.split_once('=') {
        Some(("weight", number)) => {
            let weight = number.parse().map_err(|_| {
                format!("{shown:?} is no weight; write weight=N with 0 to {}", Weight::MAX)
            })?;
            found.weight = Some(Weight::new(weight).map_err(|error| error.message)?);
        }
        Some(("id", id)) => {
            found.id = Some(BackendId::new(id).map_err(|error| error.message)?);
        }
        _ => return Err(format!("unknown setting {shown:?}; known are weight=N and id=ID")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_is_read_with_its_comments() {
        let text = "# web\n10.0.0.1:80\n\n[::1]:80 weight=3 id=six # spare\nweb.test:81 weight=0\n";
        let found = parse_lines(text).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|f| (f.address.to_string(), f.weight.map(Weight::get), f.id.as_ref()))
            .map(|(address, weight, id)| (address, weight, id.map(ToString::to_string)))
            .collect();
        assert_eq!(shown[0], ("10.0.0.1:80".to_owned(), None, None));
        assert_eq!(shown[1], ("[::1]:80".to_owned(), Some(3), Some("six".to_owned())));
        assert_eq!(shown[2], ("web.test:81".to_owned(), Some(0), None));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, line, hint) in [
            ("10.0.0.1:80\n10.0.0.2", 2, "no port"),
            ("10.0.0.1:80 weight=300", 1, "0 to 256"),
            ("10.0.0.1:80 weight=x", 1, "weight=N"),
            ("10.0.0.1:80 id=a/b", 1, "'/'"),
            ("10.0.0.1:80 zone=a", 1, "unknown setting"),
            ("\n10.0.0.1:80\n10.0.0.1:80", 3, "twice"),
            ("10.0.0.1:80 id=a\n10.0.0.2:80 id=a", 2, "id=a is there twice"),
        ] {
            let error = parse_lines(text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(error.message.contains(hint), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_within_its_lines(text in "([a-c0-9.:#= \n]|weight=|id=|10.0.0.1:80){0,60}") {
            match parse_lines(&text) {
                Ok(found) => prop_assert!(found.len() <= text.lines().count()),
                Err(error) => prop_assert!((1..=text.lines().count()).contains(&error.line)),
            }
        }

        #[test]
        fn what_is_written_reads_back(hosts in prop::collection::btree_map(any::<[u8; 4]>(), 0u32..=256, 0..20)) {
            let line = |(ip, weight): (&[u8; 4], &u32)| {
                format!("{}.{}.{}.{}:80 weight={weight}\n", ip[0], ip[1], ip[2], ip[3])
            };
            let text: String = hosts.iter().map(line).collect();
            let found = parse_lines(&text).unwrap();
            let weights: Vec<u32> = found.iter().map(|f| f.weight.unwrap().get().into()).collect();
            prop_assert_eq!(weights, hosts.values().copied().collect::<Vec<_>>());
        }
    }
}
