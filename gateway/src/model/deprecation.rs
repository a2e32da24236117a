//! That a route is on its way out, and until when it is there.

use std::sync::Arc;

use http::HeaderValue;
use time::{Month, OffsetDateTime, Weekday};

/// What answers of a route say of its end, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deprecation {
    /// Deprecation (RFC 9745).
    pub since: Option<HeaderValue>,
    /// Sunset (RFC 8594).
    pub sunset: Option<HeaderValue>,
    /// Link, for each of them.
    pub links: Vec<HeaderValue>,
    /// When the route ends.
    pub ends: Option<OffsetDateTime>,
}

impl Deprecation {
    /// Since when, until when, and where more about either is to be read. Addresses have been checked: they have no
    /// character that ends them in a field. `None` if one of them cannot stand in a field all the same.
    pub fn new(
        since: Option<OffsetDateTime>,
        sunset: Option<OffsetDateTime>,
        link: Option<&str>,
        sunset_link: Option<&str>,
    ) -> Option<Arc<Self>> {
        let links = [(link, "deprecation"), (sunset_link, "sunset")];
        let links =
            links.into_iter().filter_map(|(to, relation)| Some(format!("<{}>; rel=\"{relation}\"", to?)));
        Some(Arc::new(Self {
            since: since.map(|since| HeaderValue::try_from(structured_date(since))).transpose().ok()?,
            sunset: sunset.map(|sunset| HeaderValue::try_from(http_date(sunset))).transpose().ok()?,
            links: links.map(HeaderValue::try_from).collect::<Result<_, _>>().ok()?,
            ends: sunset,
        }))
    }
}

/// As structured fields have it (RFC 9651, section 3.3.7).
fn structured_date(time: OffsetDateTime) -> String {
    format!("@{}", time.unix_timestamp())
}

/// As HTTP has it (RFC 9110, section 5.6.7).
fn http_date(time: OffsetDateTime) -> String {
    let day = match time.weekday() {
        Weekday::Monday => "Mon",
        Weekday::Tuesday => "Tue",
        Weekday::Wednesday => "Wed",
        Weekday::Thursday => "Thu",
        Weekday::Friday => "Fri",
        Weekday::Saturday => "Sat",
        Weekday::Sunday => "Sun",
    };
    let month = match time.month() {
        Month::January => "Jan",
        Month::February => "Feb",
        Month::March => "Mar",
        Month::April => "Apr",
        Month::May => "May",
        Month::June => "Jun",
        Month::July => "Jul",
        Month::August => "Aug",
        Month::September => "Sep",
        Month::October => "Oct",
        Month::November => "Nov",
        Month::December => "Dec",
    };
    let (hour, minute, second) = time.to_hms();
    format!("{day}, {:02} {month} {:04} {hour:02}:{minute:02}:{second:02} GMT", time.day(), time.year())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_their_fields_have_them() {
        for (seconds, structured, http) in [
            (0, "@0", "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "@784111777", "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_709_164_800, "@1709164800", "Thu, 29 Feb 2024 00:00:00 GMT"),
        ] {
            let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            assert_eq!((structured_date(time).as_str(), http_date(time).as_str()), (structured, http));
        }
    }
}
