//! Reads single values: numbers, durations, sizes, words.
//!
//! Each function takes the text and what its setting accepts, and answers `None` for what is not
//! that; saying so to the operator is the caller's part.

use std::net::Ipv6Addr;
use std::time::Duration;

use tracing::Level;

use super::keys::Accepts;

const SECONDS_A_DAY: f64 = 86_400.0;

/// Reads `true`, `yes`, `on`, `1` and their opposites, in any case, as the Python server does.
pub fn truth(text: &str, _: &Accepts) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Reads a whole number within bounds.
pub fn whole<N: TryFrom<u64>>(text: &str, accepts: &Accepts) -> Option<N> {
    let Accepts::Whole(range) = accepts else {
        return None;
    };
    let number = digits(text).filter(|number| range.contains(number))?;
    number.try_into().ok()
}

/// Reads a limit, where 0 is none.
pub fn limit<N: TryFrom<u64>>(text: &str, accepts: &Accepts) -> Option<Option<N>> {
    let Accepts::Limit(most) = accepts else {
        return None;
    };
    match digits(text)? {
        0 => Some(None),
        number if number <= *most => number.try_into().ok().map(Some),
        _ => None,
    }
}

/// Reads seconds such as `5` or `0.5`.
pub fn seconds(text: &str, accepts: &Accepts) -> Option<Duration> {
    let Accepts::Seconds(range) = accepts else {
        return None;
    };
    let seconds = decimal(text).filter(|seconds| range.contains(seconds))?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Reads days such as `30` or `0.5`, where 0 is never.
pub fn days(text: &str, accepts: &Accepts) -> Option<Option<Duration>> {
    let Accepts::Days(range) = accepts else {
        return None;
    };
    let days = decimal(text)?;
    if days == 0.0 {
        return Some(None);
    }
    let seconds = range.contains(&days).then_some(days * SECONDS_A_DAY)?;
    Duration::try_from_secs_f64(seconds).ok().map(Some)
}

/// Reads a size such as `8388608`, `256 KiB`, `8MiB` or `10 MB`, letters in any case.
pub fn bytes(text: &str, accepts: &Accepts) -> Option<usize> {
    let Accepts::Bytes(range) = accepts else {
        return None;
    };
    let unit_at = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    let bytes = digits(number)?.checked_mul(unit).filter(|bytes| range.contains(bytes))?;
    bytes.try_into().ok()
}

/// Reads a log level by its name in Python (`WARNING`, `CRITICAL`) or here (`trace`), in any case.
pub fn log_level(text: &str, _: &Accepts) -> Option<Level> {
    match text.to_ascii_lowercase().as_str() {
        "critical" | "fatal" | "error" => Some(Level::ERROR),
        "warning" | "warn" => Some(Level::WARN),
        "info" => Some(Level::INFO),
        "debug" => Some(Level::DEBUG),
        "trace" => Some(Level::TRACE),
        _ => None,
    }
}

/// Reads the address to listen on; an IPv6 one may stand in brackets and comes back without.
pub fn host(text: &str, _: &Accepts) -> Option<String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let is_name = |text: &str| {
        (1..=253).contains(&text.len())
            && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
    };
    (bare.parse::<Ipv6Addr>().is_ok() || is_name(text)).then(|| bare.to_owned())
}

/// Reads a text that is neither empty nor too long and holds no control character.
pub fn text(text: &str, accepts: &Accepts) -> Option<String> {
    let (Accepts::Text(most) | Accepts::Secret(most)) = accepts else {
        return None;
    };
    let fits = (1..=*most).contains(&text.chars().count()) && !text.contains(char::is_control);
    fits.then(|| text.to_owned())
}

/// Reads a token as an `Authorization` header can carry it.
pub fn token(text: &str, _: &Accepts) -> Option<String> {
    let fits = (1..=1024).contains(&text.len()) && text.chars().all(|letter| letter.is_ascii_graphic());
    fits.then(|| text.to_owned())
}

fn digits(text: &str) -> Option<u64> {
    let plain = text.chars().all(|letter| letter.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

fn decimal(text: &str) -> Option<f64> {
    let plain = text.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    plain.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Accepts = Accepts::Whole(0..=65535);
    const LIMIT: Accepts = Accepts::Limit(1000);
    const SECONDS: Accepts = Accepts::Seconds(0.5..=60.0);
    const DAYS: Accepts = Accepts::Days(0.01..=100.0);
    const BYTES: Accepts = Accepts::Bytes(1024..=1 << 40);
    const WORDS: Accepts = Accepts::Truth;

    #[test]
    fn truth_is_read_as_python_does() {
        for text in ["true", "True", "YES", "on", "1", "t", "y"] {
            assert_eq!(truth(text, &WORDS), Some(true), "{text}");
        }
        for text in ["false", "False", "No", "off", "0", "f", "n"] {
            assert_eq!(truth(text, &WORDS), Some(false), "{text}");
        }
        assert_eq!(truth("", &WORDS), None);
        assert_eq!(truth("maybe", &WORDS), None);
    }

    #[test]
    fn whole_numbers_are_digits_within_bounds() {
        assert_eq!(whole::<u16>("0", &WHOLE), Some(0));
        assert_eq!(whole::<u16>("65535", &WHOLE), Some(65535));
        for text in ["", "65536", "-1", "+1", "80x", "8.0", "1e3", "٣", "99999999999999999999"] {
            assert_eq!(whole::<u16>(text, &WHOLE), None, "{text}");
        }
    }

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(limit::<u32>("0", &LIMIT), Some(None));
        assert_eq!(limit::<u32>("1000", &LIMIT), Some(Some(1000)));
        assert_eq!(limit::<u32>("1001", &LIMIT), None);
        assert_eq!(limit::<u32>("none", &LIMIT), None);
    }

    #[test]
    fn durations_may_have_decimals() {
        assert_eq!(seconds("0.5", &SECONDS), Some(Duration::from_millis(500)));
        assert_eq!(seconds("60", &SECONDS), Some(Duration::from_secs(60)));
        for text in ["", ".", "0.4", "60.1", "-5", "inf", "nan", "1e1", "5 s", "1.2.3"] {
            assert_eq!(seconds(text, &SECONDS), None, "{text}");
        }
        assert_eq!(days("0.5", &DAYS), Some(Some(Duration::from_secs(43_200))));
        assert_eq!(days("0", &DAYS), Some(None));
        assert_eq!(days("0.001", &DAYS), None);
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        assert_eq!(bytes("8388608", &BYTES), Some(8 << 20));
        assert_eq!(bytes("8 MiB", &BYTES), Some(8 << 20));
        assert_eq!(bytes("256KiB", &BYTES), Some(256 << 10));
        assert_eq!(bytes("1 gib", &BYTES), Some(1 << 30));
        assert_eq!(bytes("10 MB", &BYTES), Some(10_000_000));
        for text in ["", "MiB", "1023", "8 M", "1.5 MiB", "-1 MiB", "8 MiB x", "18446744073709551615 GiB", "1025 GiB"] {
            assert_eq!(bytes(text, &BYTES), None, "{text}");
        }
    }

    #[test]
    fn log_levels_have_the_names_of_both_worlds() {
        assert_eq!(log_level("CRITICAL", &WORDS), Some(Level::ERROR));
        assert_eq!(log_level("Warning", &WORDS), Some(Level::WARN));
        assert_eq!(log_level("trace", &WORDS), Some(Level::TRACE));
        assert_eq!(log_level("loud", &WORDS), None);
    }

    #[test]
    fn hosts_are_addresses_or_names() {
        for (text, read) in
            [("0.0.0.0", "0.0.0.0"), ("::", "::"), ("[::1]", "::1"), ("push.example.com", "push.example.com")]
        {
            assert_eq!(host(text, &WORDS).as_deref(), Some(read));
        }
        for text in ["a b", "http://a", "a:80", "a/b", "[a]"] {
            assert_eq!(host(text, &WORDS), None, "{text}");
        }
    }

    #[test]
    fn texts_and_tokens_are_bounded() {
        let three = Accepts::Secret(3);
        assert_eq!(text("żół", &three).as_deref(), Some("żół"));
        assert_eq!(text("żółw", &three), None);
        assert_eq!(text("a\tb", &three), None);
        assert_eq!(text("", &three), None);
        assert_eq!(token("a-b_c.d=", &WORDS).as_deref(), Some("a-b_c.d="));
        assert_eq!(token("a b", &WORDS), None);
        assert_eq!(token("ą", &WORDS), None);
    }
}
