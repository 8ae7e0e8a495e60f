//! The signed request: makes and verifies the token a back end proves itself with.
//!
//! A token is `value.timestamp.mac`, as Python's itsdangerous `TimestampSigner` writes it, so back
//! ends in any language that has such a signer work unchanged. This file reads no clock and no
//! request: time and token come in as arguments.
//!
//! ```text
//! timestamp = base64url(unix seconds, big endian, no leading zero bytes)
//! key       = SHA1("itsdangerous.Signer" || "signer" || secret)
//! mac       = base64url(HMAC-SHA1(key, value "." timestamp))
//! ```

use std::fmt;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use sha1::{Digest, Sha1};

/// How far ahead of our clock a signer's clock may be, in seconds; enough for machines without time
/// synchronisation, while a token that leaked cannot have been made to last for years.
pub const MAX_CLOCK_SKEW_SECONDS: u32 = 300;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Room for a decoded part: more than the 20 bytes of a mac and the 8 of a timestamp; whatever is
/// longer is refused.
const PART_BYTES: usize = 24;
const MAX_TIMESTAMP_BYTES: usize = 8;

/// The token is not one of ours, or too old. Which of the two is not said, so that nobody can feel
/// their way forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature is malformed, wrong or expired")]
pub struct BadSignature;

/// Makes and verifies tokens of one secret.
#[derive(Clone)]
pub struct Signer {
    mac: Hmac<Sha1>,
}

impl Signer {
    /// Derives the key of `secret`; any text will do, also an empty one.
    pub fn new(secret: &str) -> Self {
        let key =
            Sha1::new().chain_update(b"itsdangerous.Signer").chain_update(b"signer").chain_update(secret).finalize();
        Self { mac: Hmac::new_from_slice(&key).expect("HMAC takes a key of any length") }
    }

    /// Signs `value` as of `unix_seconds`.
    pub fn sign(&self, value: &str, unix_seconds: u64) -> String {
        let leading_zero_bytes = unix_seconds.leading_zeros() as usize / 8;
        let mut token = format!("{value}.");
        BASE64.encode_string(&unix_seconds.to_be_bytes()[leading_zero_bytes..], &mut token);
        let mac = self.mac.clone().chain_update(&token).finalize();
        token.push('.');
        BASE64.encode_string(mac.into_bytes(), &mut token);
        token
    }

    /// Accepts a token made with our secret at most `max_age_seconds` ago, whatever value was
    /// signed.
    ///
    /// A time ahead of `now_unix_seconds` is accepted up to [`MAX_CLOCK_SKEW_SECONDS`]. Without
    /// `max_age_seconds` the time has to be there, but may be any. The mac is compared in
    /// constant time; nothing is allocated.
    ///
    /// # Errors
    ///
    /// [`BadSignature`] when a part is missing or not base64url, the mac differs, or the time is
    /// out of bounds.
    pub fn verify(&self, token: &str, now_unix_seconds: i64, max_age_seconds: Option<u32>) -> Result<(), BadSignature> {
        let (signed, mac) = token.rsplit_once('.').ok_or(BadSignature)?;
        let mut buffer = [0; PART_BYTES];
        let mac = decode(mac, &mut buffer)?;
        self.mac.clone().chain_update(signed).verify_slice(mac).map_err(|_| BadSignature)?;

        let (_, timestamp) = signed.rsplit_once('.').ok_or(BadSignature)?;
        let mut buffer = [0; PART_BYTES];
        let timestamp = decode(timestamp, &mut buffer)?;
        if timestamp.len() > MAX_TIMESTAMP_BYTES {
            return Err(BadSignature);
        }
        let made_at = timestamp.iter().fold(0, |seconds: i128, byte| seconds << 8 | i128::from(*byte));

        let age = i128::from(now_unix_seconds) - made_at;
        match max_age_seconds {
            Some(max_age) if age > max_age.into() || age < -i128::from(MAX_CLOCK_SKEW_SECONDS) => Err(BadSignature),
            _ => Ok(()),
        }
    }
}

/// Shows nothing: the key is as good as the secret.
impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Signer").finish_non_exhaustive()
    }
}

fn decode<'a>(text: &str, buffer: &'a mut [u8; PART_BYTES]) -> Result<&'a [u8], BadSignature> {
    let length = BASE64.decode_slice(text, buffer).map_err(|_| BadSignature)?;
    Ok(&buffer[..length])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_700_000_000;

    /// Secret, value, time, token: made by the Python library.
    const PUBLISHED: [(&str, &str, u64, &str); 6] = [
        ("secret", "channelstream", 1_700_000_000, "channelstream.ZVPxAA.UB9ITnnv9UITu0ka92WJCn1VFsQ"),
        ("secret", "/connect", 1_700_000_000, "/connect.ZVPxAA.LGgz2XYmQrtshS37benqptPevTY"),
        ("secret", "", 1_700_000_000, ".ZVPxAA.WYsUeUJN4PkBBW_LVSlQ0rYdDtU"),
        ("secret", "channelstream", 0, "channelstream..zsZARI-P3SDL-NFIwVlNZ0CK1Ro"),
        ("zażółć 😀", "channelstream", 1_582_329_600, "channelstream.XlBvAA.LJIfr-lPo4H_AVMzrZY6x02N8bc"),
        ("s3cr3t.with.dots", "a.b", 4_294_967_296, "a.b.AQAAAAA.6wEjT9gKlhsGldoWBqXXyI-TcTg"),
    ];

    fn signed_at(unix_seconds: i64) -> String {
        Signer::new("secret").sign("/connect", unix_seconds.try_into().unwrap())
    }

    fn verify(token: &str, max_age_seconds: Option<u32>) -> Result<(), BadSignature> {
        Signer::new("secret").verify(token, NOW, max_age_seconds)
    }

    #[test]
    fn published_tokens_are_made_and_accepted() {
        for (secret, value, time, token) in PUBLISHED {
            let signer = Signer::new(secret);
            assert_eq!(signer.sign(value, time), token);
            assert_eq!(signer.verify(token, NOW, None), Ok(()));
            assert_eq!(signer.verify(token, time as i64, Some(60)), Ok(()));
            assert_eq!(signer.verify(&token.replace('.', "x"), NOW, None), Err(BadSignature));
        }
    }

    #[test]
    fn age_counts_from_the_signed_time() {
        assert_eq!(verify(&signed_at(NOW - 60), Some(60)), Ok(()));
        assert_eq!(verify(&signed_at(NOW - 61), Some(60)), Err(BadSignature));
        assert_eq!(verify(&signed_at(NOW - 61), None), Ok(()));
    }

    #[test]
    fn a_clock_may_be_a_little_ahead() {
        assert_eq!(verify(&signed_at(NOW + 300), Some(60)), Ok(()));
        assert_eq!(verify(&signed_at(NOW + 301), Some(60)), Err(BadSignature));
        assert_eq!(verify(&signed_at(i64::MAX), Some(60)), Err(BadSignature));
        assert_eq!(verify(&signed_at(i64::MAX), None), Ok(()));
    }

    #[test]
    fn padding_after_the_mac_is_tolerated() {
        assert_eq!(verify(&format!("{}=", signed_at(NOW)), Some(60)), Ok(()));
    }

    /// A token with a good mac over `signed`, which need not hold a timestamp.
    fn with_good_mac(signed: &str) -> String {
        let mac = Signer::new("secret").mac.chain_update(signed).finalize();
        format!("{signed}.{}", BASE64.encode(mac.into_bytes()))
    }

    #[test]
    fn a_good_mac_needs_a_good_timestamp() {
        assert_eq!(verify(&with_good_mac("/connect.ZVPxAA"), Some(60)), Ok(()));
        for signed in
            ["", "/connect", "/connect.!", "/connect.AAAAAAAAAAAA", "/connect.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
        {
            assert_eq!(verify(&with_good_mac(signed), None), Err(BadSignature), "{signed}");
        }
    }

    #[test]
    fn malformed_tokens_are_refused() {
        let good = signed_at(NOW);
        for token in ["", ".", "..", "a", "a.b", "a.b.c", &good[1..], &good[..good.len() - 1], &format!("{good}AAAA")] {
            assert_eq!(verify(token, None), Err(BadSignature), "{token}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", Signer::new("hunter2")), "Signer { .. }");
    }

    proptest! {
        #[test]
        fn what_is_signed_is_accepted(
            secret in any::<String>(), value in any::<String>(), age in 0..=60_i64,
        ) {
            let signer = Signer::new(&secret);
            let token = signer.sign(&value, (NOW - age) as u64);
            prop_assert_eq!(signer.verify(&token, NOW, Some(60)), Ok(()));
        }

        #[test]
        fn any_changed_character_is_refused(
            value in "[a-z/.]{0,12}", at in any::<prop::sample::Index>(), other in any::<char>(),
        ) {
            let token = Signer::new("secret").sign(&value, NOW as u64);
            let mut changed: Vec<char> = token.chars().collect();
            let at = at.index(changed.len());
            prop_assume!(changed[at] != other);
            changed[at] = other;
            prop_assert_eq!(verify(&changed.iter().collect::<String>(), None), Err(BadSignature));
        }

        #[test]
        fn another_secret_is_refused(secret in any::<String>(), value in any::<String>()) {
            prop_assume!(secret != "secret");
            let token = Signer::new(&secret).sign(&value, NOW as u64);
            prop_assert_eq!(verify(&token, None), Err(BadSignature));
        }

        #[test]
        fn no_text_panics(
            token in any::<String>(), now in any::<i64>(), max_age in any::<Option<u32>>(),
        ) {
            let _ = Signer::new("secret").verify(&token, now, max_age);
            let _ = Signer::new("secret").verify(&with_good_mac(&token), now, max_age);
        }
    }
}
