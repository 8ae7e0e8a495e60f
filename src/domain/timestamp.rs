//! Points in time as the protocol writes them, and the moment at which something is decided.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

/// A date and time with the zone it was given with, if any; without one it is UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    local: NaiveDateTime,
    zone: Option<FixedOffset>,
}

impl Timestamp {
    /// A time that the server itself took, cut to microseconds.
    pub fn utc(time: NaiveDateTime) -> Self {
        let cut = time.nanosecond() / 1_000 * 1_000;
        Self { local: time.with_nanosecond(cut).unwrap_or(time), zone: None }
    }

    /// Reads `YYYY-MM-DDThh:mm[:ss[.fraction]]` (or a blank for `T`) with an optional zone `Z`,
    /// `+02:00` or `-0200`; fractions beyond microseconds are cut. Everything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.is_ascii() || text.len() < 16 || !matches!(text.as_bytes()[10], b'T' | b't' | b' ') {
            return None;
        }
        let year = number(text, 0, 4).filter(|year| *year > 0)?;
        let date = NaiveDate::from_ymd_opt(year as i32, number(text, 5, 7)?, number(text, 8, 10)?)?;
        let (hour, minute) = (number(text, 11, 13)?, number(text, 14, 16)?);
        if &text[4..5] != "-" || &text[7..8] != "-" || &text[13..14] != ":" {
            return None;
        }
        let mut rest = &text[16..];
        let (mut second, mut micros) = (0, 0);
        if rest.starts_with(':') {
            second = number(rest, 1, 3)?;
            rest = &rest[3..];
            if let Some(fraction) = rest.strip_prefix(['.', ',']) {
                let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
                if digits == 0 {
                    return None;
                }
                let kept = &fraction[..digits.min(6)];
                micros = kept.parse::<u32>().ok()? * 10u32.pow(6 - kept.len() as u32);
                rest = &fraction[digits..];
            }
        }
        let time = NaiveTime::from_hms_micro_opt(hour, minute, second, micros)?;
        Some(Self { local: date.and_time(time), zone: zone(rest)? })
    }

    /// The same in UTC, for comparing it with the server's clock.
    pub fn in_utc(&self) -> NaiveDateTime {
        let offset = self.zone.map_or(0, |zone| zone.local_minus_utc());
        self.local - chrono::Duration::seconds(offset.into())
    }

    /// As listeners see it: UTC given explicitly is written `Z`.
    pub fn for_listeners(&self) -> impl fmt::Display {
        Written { timestamp: *self, utc: "Z" }
    }
}

fn number(text: &str, from: usize, to: usize) -> Option<u32> {
    let digits = text.get(from..to)?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

fn zone(text: &str) -> Option<Option<FixedOffset>> {
    let sign = match text.as_bytes().first() {
        None => return Some(None),
        Some(b'Z' | b'z') if text.len() == 1 => return Some(FixedOffset::east_opt(0)),
        Some(b'+') => 1,
        Some(b'-') => -1,
        _ => return None,
    };
    let minutes = match text.len() {
        3 => 0,
        5 => number(text, 3, 5)?,
        6 if &text[3..4] == ":" => number(text, 4, 6)?,
        _ => return None,
    };
    let hours = number(text, 1, 3)?;
    if minutes > 59 {
        return None;
    }
    FixedOffset::east_opt(sign * (hours * 3600 + minutes * 60) as i32).map(Some)
}

struct Written {
    timestamp: Timestamp,
    utc: &'static str,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Timestamp { local, zone } = self.timestamp;
        // Written for every message: digit by digit costs a tenth of what a format string does.
        let mut text = *b"0000-00-00T00:00:00.000000";
        let micros = local.nanosecond() / 1_000;
        let parts = [
            (0..4, local.year().unsigned_abs()),
            (5..7, local.month()),
            (8..10, local.day()),
            (11..13, local.hour()),
            (14..16, local.minute()),
            (17..19, local.second()),
            (20..26, micros),
        ];
        for (place, number) in parts {
            write_digits(&mut text[place], number);
        }
        let length = if micros == 0 { 19 } else { 26 };
        f.write_str(std::str::from_utf8(&text[..length]).map_err(|_| fmt::Error)?)?;
        match zone.map(|zone| zone.local_minus_utc()) {
            None => Ok(()),
            Some(0) => f.write_str(self.utc),
            Some(seconds) => {
                let sign = if seconds < 0 { '-' } else { '+' };
                let minutes = seconds.abs() / 60;
                write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
        }
    }
}

/// Fills a place with a number's last digits.
fn write_digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// As back ends see it: UTC given explicitly is written `+00:00`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Written { timestamp: *self, utc: "+00:00" }.fmt(f)
    }
}

/// When something is decided or happens: the domain never reads a clock, it is told.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The wall clock, in UTC.
    pub utc: NaiveDateTime,
    /// Time since the server started, which never goes back: for deadlines.
    pub elapsed: Duration,
}

impl Moment {
    /// The wall clock as the protocol writes it.
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::utc(self.utc)
    }

    /// The wall clock in microseconds since 1970, as the store keeps it.
    pub fn micros(&self) -> i64 {
        self.utc.and_utc().timestamp_micros()
    }
}

/// The wall clock of so many microseconds since 1970.
pub fn from_micros(micros: i64) -> NaiveDateTime {
    DateTime::from_timestamp_micros(micros).unwrap_or_default().naive_utc()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepted_forms_come_back_as_the_protocol_writes_them() {
        for (given, answer, frame) in [
            ("2010-01-01T01:01", "2010-01-01T01:01:00", "2010-01-01T01:01:00"),
            ("2010-01-01 01:01:02.5", "2010-01-01T01:01:02.500000", "2010-01-01T01:01:02.500000"),
            ("2010-01-01T01:01:02.1234567", "2010-01-01T01:01:02.123456", "2010-01-01T01:01:02.123456"),
            ("2010-01-01T01:01:02Z", "2010-01-01T01:01:02+00:00", "2010-01-01T01:01:02Z"),
            ("2010-01-01T01:01:02+02:00", "2010-01-01T01:01:02+02:00", "2010-01-01T01:01:02+02:00"),
            ("2010-01-01T01:01:02-0930", "2010-01-01T01:01:02-09:30", "2010-01-01T01:01:02-09:30"),
        ] {
            let timestamp = Timestamp::parse(given).unwrap();
            assert_eq!(timestamp.to_string(), answer);
            assert_eq!(timestamp.for_listeners().to_string(), frame);
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "zz",
            "2010-01-01",
            "01:01:01",
            "20100101T010101",
            "2010-13-01T01:01",
            "2010-01-01T25:00",
            "2010-01-01T01:01:60",
            "2010-01-01T01:01:",
            "2010-01-01T01:01:02.",
            "2010-01-01T01:01:02+25",
            "2010-01-01T01:01:02+02:60",
            "Fri, 01 Jan 2010 01:01:02 GMT",
            "2010-01-01T01:01 ",
            "+010-01-01T01:01",
            "0000-01-01T01:01",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn times_of_all_zones_compare_in_utc() {
        let utc = |text| Timestamp::utc(Timestamp::parse(text).unwrap().in_utc()).to_string();
        assert_eq!(utc("2010-01-01T01:01:02.5"), "2010-01-01T01:01:02.500000");
        assert_eq!(utc("2010-01-01T01:01:02+02:00"), "2009-12-31T23:01:02");
        assert_eq!(utc("0001-01-01T00:00+23:59"), "0000-12-31T00:01:00");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(micros in 0i64..4_000_000_000_000_000, minutes in proptest::option::of(-1439i32..1440)) {
            let zone = minutes.and_then(|minutes| FixedOffset::east_opt(minutes * 60));
            let timestamp = Timestamp { local: from_micros(micros), zone };
            prop_assert_eq!(Timestamp::parse(&timestamp.to_string()), Some(timestamp));
            prop_assert_eq!(Timestamp::parse(&timestamp.for_listeners().to_string()), Some(timestamp));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9T:. Z+]{0,32}|.{0,32}") {
            if let Some(timestamp) = Timestamp::parse(&text) {
                prop_assert_eq!(Timestamp::parse(&timestamp.to_string()), Some(timestamp));
            }
        }
    }
}
