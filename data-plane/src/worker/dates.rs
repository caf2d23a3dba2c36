//! The present as a Date field says it, written anew once a second at most.

use std::{
    cell::Cell,
    time::{Duration, UNIX_EPOCH},
};

use crate::{clock::unix_ms, h1::response::Date};

/// The latest date that was asked for.
#[derive(Debug)]
pub(crate) struct Dates {
    second: Cell<u64>,
    text: Cell<Date>,
}

impl Default for Dates {
    fn default() -> Self {
        Self { second: Cell::new(0), text: Cell::new(*b"Thu, 01 Jan 1970 00:00:00 GMT") }
    }
}

impl Dates {
    /// The date of now.
    pub(crate) fn present(&self) -> Date {
        self.at(unix_ms() / 1000)
    }

    fn at(&self, second: u64) -> Date {
        // What no date can say is a clock gone mad: the last one that could be said stays.
        if second != self.second.replace(second) && second < YEAR_10000 {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            if let Ok(text) = text.as_bytes().try_into() {
                self.text.set(text);
            }
        }
        self.text.get()
    }
}

const YEAR_10000: u64 = 253_402_300_800;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_of_its_second() {
        let dates = Dates::default();
        for (second, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (u64::MAX, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (YEAR_10000 - 1, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(dates.at(second), expected.as_bytes());
        }
    }
}
