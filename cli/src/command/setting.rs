//! Settings of objects on their way to the wire.

use std::time::Duration;

/// Replaces a field if there is a setting for it.
pub(super) fn set<T>(field: &mut T, setting: Option<T>) {
    if let Some(setting) = setting {
        *field = setting;
    }
}

/// The same for a field in milliseconds.
pub(super) fn set_millis(field: &mut u32, setting: Option<Duration>) {
    set(field, setting.map(millis));
}

/// As durations are written on the wire.
pub(super) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
