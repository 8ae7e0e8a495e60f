//! Domain values as JSON text and back, in the one form that both the store and the wire use.

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::domain::message::Audience;
use crate::domain::names::{ChannelName, ConnectionId, Username};
use crate::domain::roster::Roster;
use crate::domain::state::{Profile, PublicKeys, StateValue, UserState};

/// Writes a domain value as JSON.
#[derive(Debug, Clone, Copy)]
pub struct Json<'a, T: ?Sized>(pub &'a T);

/// Writes the public part of a user's state.
#[derive(Debug, Clone, Copy)]
pub struct PublicState<'a>(pub &'a Profile);

impl Serialize for Json<'_, StateValue> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            StateValue::Null => serializer.serialize_unit(),
            StateValue::Bool(value) => serializer.serialize_bool(*value),
            StateValue::Text(text) => serializer.serialize_str(text),
            StateValue::Number(digits) => match serde_json::from_str::<&RawValue>(digits) {
                Ok(raw) => raw.serialize(serializer),
                Err(error) => Err(serde::ser::Error::custom(error)),
            },
        }
    }
}

fn state_map<'a, S: Serializer>(
    entries: impl Iterator<Item = (&'a str, &'a StateValue)>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for (key, value) in entries {
        map.serialize_entry(key, &Json(value))?;
    }
    map.end()
}

impl Serialize for Json<'_, UserState> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        state_map(self.0.iter(), serializer)
    }
}

impl Serialize for PublicState<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        state_map(self.0.public().iter(), serializer)
    }
}

impl Serialize for Json<'_, Username> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl Serialize for Json<'_, ChannelName> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl Serialize for Json<'_, ConnectionId> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.0.serialize(serializer)
    }
}

impl Serialize for Json<'_, Roster> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Json))
    }
}

impl<'a, T> Serialize for Json<'a, [T]>
where
    Json<'a, T>: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for item in self.0 {
            list.serialize_element(&Json(item))?;
        }
        list.end()
    }
}

/// A scalar as a state may hold it; `None` for lists and objects, and for what no reader could
/// take: numbers out of range, halves of surrogate pairs.
pub fn state_value(raw: &RawValue) -> Option<StateValue> {
    Some(match raw.get().as_bytes().first()? {
        b'n' => StateValue::Null,
        b't' => StateValue::Bool(true),
        b'f' => StateValue::Bool(false),
        b'"' => StateValue::Text(serde_json::from_str::<String>(raw.get()).ok()?.into()),
        b'[' | b'{' => return None,
        _ => {
            serde_json::from_str::<f64>(raw.get()).ok()?;
            StateValue::Number(raw.get().into())
        }
    })
}

/// The state that was written by [`Json`]; none if the text is not one.
pub fn state_from_text(text: &str) -> Option<UserState> {
    let map: indexmap::IndexMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    let mut state = UserState::default();
    for (key, raw) in map {
        state.set(&key, state_value(raw)?);
    }
    Some(state)
}

/// The public keys as a JSON list.
pub fn public_keys_text(keys: &PublicKeys) -> String {
    to_text(&keys.iter().map(|key| &**key).collect::<Vec<&str>>())
}

/// Public keys from a JSON list; none if the text is not one.
pub fn public_keys_from_text(text: &str) -> Option<PublicKeys> {
    let keys: Vec<String> = serde_json::from_str(text).ok()?;
    Some(keys.into_iter().map(Into::into).collect())
}

#[derive(Serialize, Deserialize)]
struct AudienceText<'a> {
    #[serde(borrow)]
    pm_users: Vec<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    exclude_users: Vec<std::borrow::Cow<'a, str>>,
}

/// An audience as JSON text; none: everyone.
pub fn audience_text(audience: &Audience) -> Option<String> {
    let names = |users: &[Username]| users.iter().map(|user| user.as_str().to_owned().into()).collect();
    let text = AudienceText { pm_users: names(&audience.only), exclude_users: names(&audience.except) };
    (!audience.is_everyone()).then(|| to_text(&text))
}

/// An audience from its text; none if the text is not one.
pub fn audience_from_text(text: Option<&str>) -> Option<Audience> {
    let Some(text) = text else { return Some(Audience::default()) };
    let read: AudienceText<'_> = serde_json::from_str(text).ok()?;
    let names = |texts: Vec<std::borrow::Cow<'_, str>>| {
        texts.iter().map(|name| Username::parse(name)).collect::<Result<Vec<_>, _>>().ok()
    };
    Some(Audience { only: names(read.pm_users)?.into(), except: names(read.exclude_users)?.into() })
}

/// A value as compact JSON text.
pub fn to_text(value: &impl Serialize) -> String {
    to_text_of(value, 128)
}

/// The same, with room for so many bytes from the start.
pub fn to_text_of(value: &impl Serialize, bytes: usize) -> String {
    let mut text = Vec::with_capacity(bytes);
    serde_json::to_writer(&mut text, value).expect("a value of ours has text keys and cannot fail to serialize");
    String::from_utf8(text).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_keeps_order_and_digits() {
        let text = r#"{"b":1.0,"a":123456789012345678901234567890,"":null,"t":"\u017c","f":false}"#;
        let state = state_from_text(text).unwrap();
        assert_eq!(to_text(&Json(&state)), text.replace("\\u017c", "ż"));
    }

    #[test]
    fn what_no_reader_can_take_is_no_state() {
        for text in ["[]", "{}", "1e400", r#""\ud800""#] {
            let raw: &RawValue = serde_json::from_str(text).unwrap();
            assert_eq!(state_value(raw), None, "{text}");
        }
    }

    #[test]
    fn an_audience_survives_the_store() {
        let names = |texts: &[&str]| texts.iter().map(|text| Username::parse(text).unwrap()).collect::<Vec<_>>();
        let audience = Audience { only: names(&["ann", "\"b\\"]).into(), except: names(&["eve"]).into() };
        assert_eq!(audience_from_text(audience_text(&audience).as_deref()), Some(audience));
        assert_eq!(audience_text(&Audience::default()), None);
    }
}
