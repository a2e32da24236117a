//! The field Date of responses over HTTP/2 that bring none (RFC 9110, section 6.6.1). Over HTTP/1.1 hyper writes it.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use time::OffsetDateTime;

thread_local! {
    /// The second that was asked for last, and how it is written: one of thousands of responses a second writes it.
    static WRITTEN: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
}

/// The time of now.
pub(super) fn now() -> HeaderValue {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
    WRITTEN.with_borrow_mut(|(known, written)| {
        if *known != second || written.is_empty() {
            *known = second;
            *written = HeaderValue::try_from(write(second)).unwrap_or_else(|_| HeaderValue::from_static(""));
        }
        written.clone()
    })
}

/// A second of the Unix epoch as an IMF-fixdate (section 5.6.7).
fn write(second: u64) -> String {
    let time = i64::try_from(second).ok().and_then(|second| OffsetDateTime::from_unix_timestamp(second).ok());
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (weekday, month) = (time.weekday().to_string(), time.month().to_string());
    let (year, day, (hour, minute, second)) = (time.year(), time.day(), time.to_hms());
    format!("{weekday:.3}, {day:02} {month:.3} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_http_has_them() {
        for (second, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_709_210_096, "Thu, 29 Feb 2024 12:34:56 GMT"),
            (u64::MAX, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            assert_eq!(write(second), expected);
        }
        assert!(now().to_str().unwrap().ends_with(" GMT"));
    }
}
