//! Conditions on what is there: an object's ETag is its revision.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
};

use super::fault::Fault;

/// The condition of a request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Condition {
    /// `If-Match`.
    pub(super) matches: Option<Tags>,
    /// `If-None-Match`.
    pub(super) none_matches: Option<Tags>,
}

/// The value of one of the two fields.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Tags {
    /// `*`: whatever there is.
    Any,
    /// These.
    List(Vec<Tag>),
}

/// An entity tag.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Tag {
    weak: bool,
    /// Without its quotes.
    text: String,
}

impl Tag {
    /// None for what cannot be the tag of anything here.
    fn revision(&self) -> Option<u64> {
        let revision = self.text.parse().ok().filter(|revision| *revision > 0);
        revision.filter(|_| !self.weak)
    }
}

/// The tag of a revision.
pub(super) fn etag(revision: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).expect("quotes and digits are a field value")
}

impl Condition {
    pub(super) fn read(fields: &HeaderMap) -> Result<Self, Fault> {
        Ok(Self {
            matches: tags(fields, &header::IF_MATCH)?,
            none_matches: tags(fields, &header::IF_NONE_MATCH)?,
        })
    }

    /// Whether the request depends on a revision, or on there being an object.
    pub(super) fn is_given(&self) -> bool {
        self.matches.is_some() || self.none_matches.is_some()
    }

    /// Whether who asks holds this revision already.
    pub(super) fn holds(&self, revision: u64) -> bool {
        self.none_matches.as_ref().is_some_and(|tags| match tags {
            Tags::Any => true,
            // Reading compares weakly: what a cache between weakened is still the same.
            Tags::List(tags) => tags.iter().any(|tag| tag.text == revision.to_string()),
        })
    }

    /// The revision that a write expects to find, where there is this one; 0 for any.
    /// Writing compares strongly. One tag is left to the registry to compare: it knows
    /// whether this is the repetition of a write that was made.
    pub(super) fn expected(&self, found: Option<u64>) -> Result<u64, Fault> {
        let tags = match (&self.matches, found) {
            (None, _) | (Some(Tags::Any), Some(_)) => return Ok(0),
            (Some(Tags::Any), None) => {
                return Err(Fault::stale(
                    "it does not exist, and If-Match asks for one that does; leave If-Match out \
                     to create it",
                ));
            }
            (Some(Tags::List(tags)), _) => tags,
        };
        let mut revisions = tags.iter().filter_map(Tag::revision);
        let wanted = match (tags.as_slice(), found) {
            ([_], _) => revisions.next(),
            (_, found) => revisions.find(|revision| Some(*revision) == found),
        };
        wanted.ok_or_else(|| {
            Fault::stale(
                "If-Match does not name the revision that there is now; read it again, repeat \
                 the change, and send its ETag as If-Match",
            )
        })
    }

    /// Whether a write must create: `If-None-Match: *`.
    pub(super) fn creates(&self) -> Result<bool, Fault> {
        match &self.none_matches {
            None => Ok(false),
            Some(Tags::Any) => Ok(true),
            Some(Tags::List(_)) => Err(Fault::bad(
                "a write takes If-None-Match only as *, which creates and never replaces; to \
                 replace one revision, send it as If-Match",
            )),
        }
    }
}

/// Refuses a write with a field that its operation does not look at: whoever sends a condition
/// relies on it.
pub(super) fn unknown(request: &Request, known: &[&str]) -> Option<Fault> {
    const LOOKED_AT: [&str; 3] = ["If-Match", "If-None-Match", "Idempotency-Key"];
    if request.method().is_safe() {
        return None;
    }
    let is_known = |name: &&str| known.contains(name);
    let given = |name: &&str| request.headers().contains_key(*name);
    let unknown = LOOKED_AT.into_iter().find(|name| given(name) && !is_known(name))?;
    let known: Vec<&str> = LOOKED_AT.into_iter().filter(|name| is_known(name)).collect();
    let known = if known.is_empty() { "none of its like".to_owned() } else { known.join(", ") };
    Some(Fault::bad(format!(
        "{} does not look at {unknown}, so nothing was done; leave it out: what it takes is {known}",
        request.method()
    )))
}

fn tags(fields: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Fault> {
    let mut list = Vec::new();
    let mut given = false;
    for value in fields.get_all(name) {
        given = true;
        let value = value.to_str().map_err(|_| wrong(name))?.trim();
        if value == "*" {
            return Ok(Some(Tags::Any));
        }
        for tag in value.split(',') {
            let tag = tag.trim();
            let (weak, quoted) = match tag.strip_prefix("W/") {
                Some(rest) => (true, rest),
                None => (false, tag),
            };
            let text = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let text = text.ok_or_else(|| wrong(name))?.to_owned();
            list.push(Tag { weak, text });
        }
    }
    Ok(given.then_some(Tags::List(list)))
}

fn wrong(name: &HeaderName) -> Fault {
    Fault::bad(format!(
        "{name} cannot be read; send the ETag of the last answer with its quotes, as in \"12\", \
         or *"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(name: HeaderName, value: &'static str) -> Result<Condition, Fault> {
        let mut fields = HeaderMap::new();
        fields.insert(name, HeaderValue::from_static(value));
        Condition::read(&fields)
    }

    #[test]
    fn a_write_needs_the_strong_tag_of_what_is_there() {
        for (value, found, expected) in [
            ("\"7\"", Some(7), Some(7)),
            ("\"6\"", Some(7), Some(6)),
            ("\"6\"", None, Some(6)),
            ("\"6\", \"7\"", Some(7), Some(7)),
            ("\"5\", \"6\"", Some(7), None),
            ("*", Some(7), Some(0)),
            ("W/\"7\"", Some(7), None),
            ("\"0\"", Some(7), None),
            ("\"x\"", Some(7), None),
            ("*", None, None),
        ] {
            let condition = condition(header::IF_MATCH, value).unwrap();
            assert_eq!(condition.expected(found).ok(), expected, "{value} {found:?}");
        }
        assert_eq!(Condition::default().expected(None).ok(), Some(0));
    }

    #[test]
    fn a_reader_is_spared_what_it_holds() {
        for (value, held) in [("\"7\"", true), ("W/\"7\"", true), ("*", true), ("\"8\"", false)] {
            assert_eq!(condition(header::IF_NONE_MATCH, value).unwrap().holds(7), held, "{value}");
        }
    }

    #[test]
    fn a_write_creates_on_a_star_only() {
        assert!(condition(header::IF_NONE_MATCH, "*").unwrap().creates().unwrap());
        assert!(condition(header::IF_NONE_MATCH, "\"7\"").unwrap().creates().is_err());
        assert!(condition(header::IF_MATCH, "7").is_err());
    }
}
