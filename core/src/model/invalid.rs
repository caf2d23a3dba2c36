//! Why a value was refused.

/// A value that breaks a rule of the domain, with what to do instead.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// Which field of which object, for example `backend.weight`.
    pub field: &'static str,
    /// A stable, machine-readable code such as `invalid_value`.
    pub code: &'static str,
    /// A sentence with the offending value and the remedy.
    pub message: String,
}

impl Invalid {
    /// A value outside its allowed range or form.
    #[must_use]
    pub fn value(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, code: "invalid_value", message: message.into() }
    }

    /// A value from a set that this build does not know all of.
    #[must_use]
    pub fn unknown(field: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { field, code, message: message.into() }
    }
}

/// As much of a bad value as an error quotes: whoever sent a megabyte knows it by its beginning.
#[must_use]
pub fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}
