//! The id of a request, by which a line of the log, an answer and what a proxy or a back end noted
//! are found together.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header that carries it, both ways.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken from a request.
const MAX_BYTES: usize = 128;

/// The id of a request: the one that it brings, if that may stand in a log, or a new one, which the
/// request then has.
pub fn identify(headers: &mut HeaderMap) -> HeaderValue {
    if let Some(given) = headers.get(REQUEST_ID).filter(|given| is_sane(given.as_bytes())) {
        return given.clone();
    }
    let mut text = [0; 32];
    let id = Uuid::new_v4().simple().encode_lower(&mut text);
    let id = HeaderValue::from_str(id).expect("digits may stand in a header");
    headers.insert(REQUEST_ID, id.clone());
    id
}

/// The id of a request that was identified, as it stands in a log.
pub fn request_id(headers: &HeaderMap) -> &str {
    headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default()
}

/// Letters, digits and signs that mean nothing in any log.
fn is_sane(id: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    (1..=MAX_BYTES).contains(&id.len()) && id.iter().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identified(given: &[u8]) -> (String, HeaderMap) {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(given).unwrap());
        let id = identify(&mut headers);
        (id.to_str().unwrap().to_owned(), headers)
    }

    #[test]
    fn sane_ids_are_taken() {
        for given in
            ["a", "4bf92f3577b34da6a3ce929d0e0e4736", "Root=1-67891233-abcdef012345678912345678", &"x".repeat(128)]
        {
            let (id, headers) = identified(given.as_bytes());
            assert_eq!((id.as_str(), request_id(&headers)), (given, given));
        }
    }

    #[test]
    fn others_are_replaced() {
        for given in ["", "a b", "a\"b", "a{b", "a;b", "<a>", &"x".repeat(129), "ż"] {
            let (id, headers) = identified(given.as_bytes());
            assert_eq!((id.len(), request_id(&headers)), (32, id.as_str()), "{given}");
        }
        assert_ne!(identified(b"").0, identified(b"").0);
    }
}
