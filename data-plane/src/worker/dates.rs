//! The present as a Date field says it. It is looked up twice a second, and not for each
//! response: a date has whole seconds, and is that of when a message was made, by and large
//! (RFC 9110, 6.6.1).

use std::{
    cell::Cell,
    time::{Duration, UNIX_EPOCH},
};

use crate::{clock::unix_ms, h1::response::Date};

/// The date of the latest look.
#[derive(Debug)]
pub(crate) struct Dates {
    second: Cell<u64>,
    field: Cell<Date>,
}

impl Dates {
    /// With the date of now.
    pub(crate) fn new() -> Self {
        let dates = Self {
            second: Cell::new(0),
            field: Cell::new(*b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"),
        };
        dates.look();
        dates
    }

    /// The field with the date of the latest look.
    pub(crate) fn field(&self) -> Date {
        self.field.get()
    }

    /// Looks at the clock.
    pub(crate) fn look(&self) {
        self.set(unix_ms() / 1000);
    }

    fn set(&self, second: u64) {
        // What no date can say is a clock gone mad: the last one that could be said stays.
        if second == self.second.replace(second) || second >= YEAR_10000 {
            return;
        }
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        if let Ok(field) = format!("Date: {date}\r\n").into_bytes().try_into() {
            self.field.set(field);
        }
    }
}

const YEAR_10000: u64 = 253_402_300_800;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_of_its_second() {
        let dates = Dates::new();
        for (second, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (u64::MAX, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (YEAR_10000 - 1, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            dates.set(second);
            assert_eq!(dates.field(), format!("Date: {expected}\r\n").as_bytes());
        }
    }
}
