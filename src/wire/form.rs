//! Reads JSON objects field by field and collects everything that is wrong with them, in the
//! words and the shape in which the stock server reports it.
//!
//! No tree is built: a value stays raw text until a reader asks for it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use indexmap::IndexMap;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::readable::Readable;
use crate::domain::names::{ChannelName, NameError, Username};
use crate::domain::position::Cursor;
use crate::domain::timestamp::Timestamp;
use crate::domain::user::FloorAt;

/// Most elements in one list or map: more than any application needs, few enough to walk under a
/// lock.
pub const MAX_LIST: usize = 10_000;

/// What is wrong with one value: texts, or faults by field, index or key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Fault {
    /// In words.
    Texts(Vec<Cow<'static, str>>),
    /// Of parts.
    Parts(Faults),
}

/// What is wrong, by field, index or key.
pub type Faults = BTreeMap<String, Fault>;

impl From<&'static str> for Fault {
    fn from(text: &'static str) -> Self {
        Self::Texts(vec![text.into()])
    }
}

impl From<String> for Fault {
    fn from(text: String) -> Self {
        Self::Texts(vec![text.into()])
    }
}

impl From<NameError> for Fault {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Length { max } => format!("Length must be between 1 and {max}.").into(),
            NameError::Nul => NOT_A_STRING.into(),
        }
    }
}

/// A required key is absent.
pub const MISSING: &str = "Missing data for required field.";
/// `null` where it is not allowed.
pub const NULL: &str = "Field may not be null.";
/// A body or nested object has the wrong type.
pub const WRONG_TYPE: &str = "Invalid input type.";
/// A text that is no cursor.
pub const NOT_A_CURSOR: &str = "Not a valid cursor.";
/// Fields of which room is made for at once: more than a message has.
const USUAL_FIELDS: usize = 8;
const NOT_A_STRING: &str = "Not a valid string.";
const NOT_A_UUID: &str = "Not a valid UUID.";
/// What may stand around a JSON value.
const WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// A fault under the key that names an object as a whole.
pub fn schema_fault(text: &'static str) -> Faults {
    Faults::from([("_schema".to_owned(), text.into())])
}

/// The fields of a JSON object, as they came; of repeated keys the last wins.
#[derive(Debug)]
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// None if it is not an object.
    fn of(raw: &'a RawValue) -> Option<Self> {
        raw.get().starts_with('{').then(|| serde_json::from_str(raw.get()).ok()).flatten()
    }

    fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, raw)| *raw)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((Key(key), raw)) = map.next_entry()? {
            if fields.is_empty() {
                fields.reserve(USUAL_FIELDS);
            }
            fields.push((key, raw));
        }
        Ok(Fields(fields))
    }
}

/// A list of at most [`MAX_LIST`] elements, which are all objects.
struct Objects<'a>(Vec<Fields<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Objects<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ObjectsVisitor)
    }
}

struct ObjectsVisitor;

impl<'de> Visitor<'de> for ObjectsVisitor {
    type Value = Objects<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX_LIST} objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut objects = Vec::new();
        while let Some(object) = list.next_element()? {
            if objects.len() == MAX_LIST {
                return Err(Error::invalid_length(MAX_LIST + 1, &self));
            }
            objects.push(object);
        }
        Ok(Objects(objects))
    }
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

fn items(raw: &RawValue) -> Option<Vec<&RawValue>> {
    raw.get().starts_with('[').then(|| serde_json::from_str(raw.get()).ok()).flatten()
}

/// An object that is being read.
#[derive(Debug)]
pub struct Form<'a> {
    fields: Fields<'a>,
    faults: Faults,
}

impl<'a> Form<'a> {
    /// Begins to read; none if it is not an object.
    pub fn of(raw: &'a RawValue) -> Option<Self> {
        Fields::of(raw).map(Self::begin)
    }

    fn begin(fields: Fields<'a>) -> Self {
        Self { fields, faults: Faults::new() }
    }

    /// The field must be there.
    pub fn required<T>(&mut self, key: &str, read: impl FnOnce(&'a RawValue) -> Result<T, Fault>) -> Option<T> {
        if !self.has(key) {
            self.fault(key, MISSING);
        }
        self.optional(key, read)
    }

    /// The field may be absent, but not `null`.
    pub fn optional<T>(&mut self, key: &str, read: impl FnOnce(&'a RawValue) -> Result<T, Fault>) -> Option<T> {
        match self.nullable(key, read) {
            Some(None) => {
                self.fault(key, NULL);
                None
            }
            value => value.flatten(),
        }
    }

    /// The field may be absent or `null`.
    pub fn nullable<T>(&mut self, key: &str, read: impl FnOnce(&'a RawValue) -> Result<T, Fault>) -> Option<Option<T>> {
        let raw = self.fields.get(key)?;
        if raw.get() == "null" {
            return Some(None);
        }
        match read(raw) {
            Ok(value) => Some(Some(value)),
            Err(fault) => {
                self.fault(key, fault);
                None
            }
        }
    }

    /// Whether the field is there at all, `null` or not.
    pub fn has(&self, key: &str) -> bool {
        self.fields.get(key).is_some()
    }

    /// Something is wrong with a field.
    pub fn fault(&mut self, key: &str, fault: impl Into<Fault>) {
        self.faults.insert(key.to_owned(), fault.into());
    }

    /// Ends reading: all faults, or the value.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Faults> {
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(self.faults),
        }
    }
}

/// A string.
pub fn string(raw: &RawValue) -> Result<Cow<'_, str>, Fault> {
    if !raw.get().starts_with('"') {
        return Err(NOT_A_STRING.into());
    }
    text(raw).ok_or_else(|| NOT_A_STRING.into())
}

/// A string's text, borrowed where it has no escapes.
fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str::<String>(raw.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// A channel's name.
pub fn channel_name(raw: &RawValue) -> Result<ChannelName, Fault> {
    Ok(ChannelName::parse(&string(raw)?)?)
}

/// A user's name.
pub fn username(raw: &RawValue) -> Result<Username, Fault> {
    Ok(Username::parse(&string(raw)?)?)
}

/// A key that state may have in public: like a channel's name in length.
pub fn public_key(raw: &RawValue) -> Result<std::sync::Arc<str>, Fault> {
    let key = string(raw)?;
    ChannelName::parse(&key)?;
    Ok(key.into())
}

/// A uuid in any of the usual spellings.
pub fn uuid(raw: &RawValue) -> Result<Uuid, Fault> {
    text(raw).as_deref().and_then(parse_uuid).ok_or_else(|| NOT_A_UUID.into())
}

/// A uuid in any letter case, with or without dashes, in braces, with `urn:uuid:`.
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    let bare = text.strip_prefix("urn:").unwrap_or(text);
    let bare = bare.strip_prefix("uuid:").unwrap_or(bare).trim_matches(['{', '}']);
    let mut digits = [0; 32];
    let mut count = 0;
    for byte in bare.bytes().filter(|byte| *byte != b'-') {
        *digits.get_mut(count)? = byte;
        count += 1;
    }
    if count < digits.len() {
        return None;
    }
    Uuid::try_parse_ascii(&digits).ok()
}

/// `true`, `false`, 1, 0 and their usual spellings.
pub fn boolean(raw: &RawValue) -> Result<bool, Fault> {
    const WRONG: &str = "Not a valid boolean.";
    let by_number = |text: &str| match text.parse::<f64>() {
        Ok(1.0) => Ok(true),
        Ok(0.0) => Ok(false),
        _ => Err(WRONG.into()),
    };
    match raw.get() {
        "true" => Ok(true),
        "false" => Ok(false),
        string if string.starts_with('"') => match text(raw).as_deref() {
            Some("1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(true),
            Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(false),
            _ => Err(WRONG.into()),
        },
        number => by_number(number),
    }
}

/// A whole number of at least `least` and at most 32 bits.
pub fn integer(raw: &RawValue, least: u32) -> Result<u32, Fault> {
    integer_within(raw, least, u32::MAX)
}

/// A whole number of at least `least` and at most `most`: a number (its fraction is cut off), a
/// numeric string, or `true` for 1.
pub fn integer_within(raw: &RawValue, least: u32, most: u32) -> Result<u32, Fault> {
    const WRONG: &str = "Not a valid integer.";
    let value = match raw.get() {
        "true" => 1.0,
        "false" => 0.0,
        string if string.starts_with('"') => {
            let text = text(raw).ok_or(WRONG)?;
            let digits = text.trim();
            let unsigned = digits.strip_prefix(['-', '+']).unwrap_or(digits);
            if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(WRONG.into());
            }
            digits.parse::<f64>().map_err(|_| WRONG)?
        }
        number => number.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or(WRONG)?,
    };
    let whole = value.trunc();
    if whole < f64::from(least) {
        return Err(format!("Must be at least {least}.").into());
    }
    if whole > f64::from(most) {
        return Err(format!("Must be at most {most}.").into());
    }
    Ok(whole as u32)
}

/// A date and time.
pub fn timestamp(raw: &RawValue) -> Result<Timestamp, Fault> {
    text(raw).as_deref().and_then(Timestamp::parse).ok_or_else(|| "Not a valid datetime.".into())
}

/// A cursor.
pub fn cursor(raw: &RawValue) -> Result<Cursor, Fault> {
    text(raw).as_deref().and_then(|text| Cursor::parse(text).ok()).ok_or_else(|| NOT_A_CURSOR.into())
}

/// Where floors are put: a cursor, a date and time, or `earliest`.
pub fn floor_at(raw: &RawValue) -> Result<FloorAt, Fault> {
    let text = text(raw).ok_or(NOT_A_CURSOR)?;
    if text == "earliest" {
        return Ok(FloorAt::Earliest);
    }
    if let Some(time) = Timestamp::parse(&text) {
        return Ok(FloorAt::Time(time.in_utc()));
    }
    Cursor::parse(&text).map(FloorAt::Cursor).map_err(|_| NOT_A_CURSOR.into())
}

/// A list or map has more than [`MAX_LIST`] elements.
pub fn too_long() -> Fault {
    format!("Longer than maximum length {MAX_LIST}.").into()
}

/// A list of at most [`MAX_LIST`] elements, each read alike; faults by index.
pub fn list<'a, T>(raw: &'a RawValue, read: impl Fn(&'a RawValue) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
    let items = items(raw).ok_or("Not a valid list.")?;
    if items.len() > MAX_LIST {
        return Err(too_long());
    }
    let mut faults = Faults::new();
    let mut values = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let value = if item.get() == "null" { Err(NULL.into()) } else { read(item) };
        match value {
            Ok(value) => values.push(value),
            Err(fault) => {
                faults.insert(index.to_string(), fault);
            }
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(Fault::Parts(faults)) }
}

/// A map of at most [`MAX_LIST`] keys whose values are read alike, `null` included; faults by key, one level deeper.
pub fn map<'a>(raw: &'a RawValue, mut read: impl FnMut(&str, &'a RawValue) -> Result<(), Fault>) -> Result<(), Fault> {
    let fields = Fields::of(raw).ok_or("Not a valid mapping type.")?;
    let fields: IndexMap<Cow<'a, str>, &'a RawValue> = fields.0.into_iter().collect();
    if fields.len() > MAX_LIST {
        return Err(too_long());
    }
    let mut faults = Faults::new();
    for (key, raw) in fields {
        if let Err(fault) = read(&key, raw) {
            faults.insert(key.into_owned(), Fault::Parts(Faults::from([("value".to_owned(), fault)])));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Fault::Parts(faults)) }
}

/// A nested object with fields of its own.
pub fn object<'a, T>(raw: &'a RawValue, read: impl FnOnce(Form<'a>) -> Result<T, Faults>) -> Result<T, Fault> {
    let form = Form::of(raw).ok_or_else(|| Fault::Parts(schema_fault(WRONG_TYPE)))?;
    read(form).map_err(Fault::Parts)
}

/// Any JSON object, passed on as it is: but only if every reader can take it.
pub fn any_object(raw: &RawValue) -> Result<Box<RawValue>, Fault> {
    if !raw.get().starts_with('{') {
        return Err("Not a valid mapping type.".into());
    }
    match serde_json::from_str::<Readable>(raw.get()) {
        Ok(_) => Ok(raw.to_owned()),
        Err(_) => Err("Not readable JSON: numbers out of range, halves of surrogate pairs or too deep.".into()),
    }
}

/// The body is not JSON at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotJson;

/// One JSON value in UTF-8, white space around it allowed, and nothing after it.
pub fn body(bytes: &[u8]) -> Result<&RawValue, NotJson> {
    serde_json::from_str(text_of(bytes)?).map_err(|_| NotJson)
}

/// What a body has that is to be a list of objects.
#[derive(Debug)]
pub enum BodyItems<'a> {
    /// Each as a form, or none where it is no object.
    Forms(Vec<Option<Form<'a>>>),
    /// More than [`MAX_LIST`].
    TooMany,
    /// It is no list.
    NoList,
}

/// The elements of a body that is to be a list of objects.
pub fn body_items(bytes: &[u8]) -> Result<BodyItems<'_>, NotJson> {
    let text = text_of(bytes)?;
    if !text.trim_start_matches(WHITE_SPACE).starts_with('[') {
        return body(bytes).map(|_| BodyItems::NoList);
    }
    // Mostly all is as it should be, and then one pass over the text is enough.
    if let Ok(Objects(objects)) = serde_json::from_str(text) {
        return Ok(BodyItems::Forms(objects.into_iter().map(|fields| Some(Form::begin(fields))).collect()));
    }
    let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| NotJson)?;
    if items.len() > MAX_LIST {
        return Ok(BodyItems::TooMany);
    }
    Ok(BodyItems::Forms(items.into_iter().map(Form::of).collect()))
}

fn text_of(bytes: &[u8]) -> Result<&str, NotJson> {
    std::str::from_utf8(bytes).map_err(|_| NotJson)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(text: &str) -> &RawValue {
        body(text.as_bytes()).unwrap()
    }

    #[test]
    fn booleans_and_integers_take_the_usual_spellings() {
        for text in ["true", "1", "1.0", "\"t\"", "\"True\""] {
            assert_eq!(boolean(raw(text)), Ok(true), "{text}");
        }
        for text in ["false", "0", "0.0", "\"F\"", "\"0\""] {
            assert_eq!(boolean(raw(text)), Ok(false), "{text}");
        }
        for text in ["2", "\"yes\"", "null", "[]", "{}", "\"\"", "1e999"] {
            assert!(boolean(raw(text)).is_err(), "{text}");
        }
        for (text, value) in [("2.9", 2), ("\" 12 \"", 12), ("true", 1), ("1e2", 100), ("4294967295", u32::MAX)] {
            assert_eq!(integer(raw(text), 0), Ok(value), "{text}");
        }
        for text in ["\"2.9\"", "\"x\"", "[]", "-1", "4294967296", "1e400", "\"\"", "\"-\""] {
            assert!(integer(raw(text), 0).is_err(), "{text}");
        }
    }

    #[test]
    fn uuids_come_in_many_spellings() {
        let plain = "c6a16e44-313a-42b1-a9cd-a9b17f57cb14";
        let wanted = Uuid::parse_str(plain).ok();
        for text in [plain, "C6A16E44313A42B1A9CDA9B17F57CB14", &format!("{{{plain}}}"), &format!("urn:uuid:{plain}")] {
            assert_eq!(parse_uuid(text), wanted, "{text}");
        }
        for text in ["", "zz", "c6a16e44-313a-42b1-a9cd-a9b17f57cb1", &format!("{plain}0"), "ż"] {
            assert_eq!(parse_uuid(text), None, "{text}");
        }
    }

    #[test]
    fn floors_are_put_at_cursors_times_or_the_beginning() {
        let at = |text: &str| floor_at(raw(&format!("{text:?}"))).ok();
        assert_eq!(at("earliest"), Some(FloorAt::Earliest));
        assert_eq!(at("2026-11"), Some(FloorAt::Cursor(Cursor::parse("2026-11").unwrap())));
        let time = Timestamp::parse("2026-11-24T06:28").unwrap().in_utc();
        for text in ["2026-11-24T06:28", "2026-11-24T06:28:00Z", "2026-11-24 08:28+02:00"] {
            assert_eq!(at(text), Some(FloorAt::Time(time)), "{text}");
        }
        for text in ["", "Earliest", "latest", "now", "2026-11-24", "A-1", "a-01"] {
            assert_eq!(at(text), None, "{text}");
        }
        for other in ["5", "true", "[]", "{}", "\"\\ud800\""] {
            assert_eq!(floor_at(raw(other)), Err(NOT_A_CURSOR.into()), "{other}");
        }
    }

    #[test]
    fn of_repeated_keys_the_last_wins_and_nested_faults_are_found() {
        let mut form = Form::of(raw(r#"{"a": 5, "a": "x", "b": [1, "ok", null], "\u0063": null}"#)).unwrap();
        assert_eq!(form.required("a", string).as_deref(), Some("x"));
        assert_eq!(form.optional("b", |raw| list(raw, string)), None);
        assert_eq!(form.optional("c", string), None);
        assert_eq!(form.required("d", string), None);
        let faults = serde_json::to_string(&form.finish::<()>(None).unwrap_err()).unwrap();
        let expected = r#"{"b":{"0":["Not a valid string."],"2":["Field may not be null."]},"c":["Field may not be null."],"d":["Missing data for required field."]}"#;
        assert_eq!(faults, expected);
    }

    #[test]
    fn bodies_that_some_reader_cannot_take_are_refused() {
        let deep = format!("{}{}{}", "{\"a\":".repeat(200), "1", "}".repeat(200));
        for text in [r#"{"a": 1e400}"#, r#"{"a": "\ud800"}"#, r#"{"\ud800": 1}"#, &deep, "[]", "5"] {
            assert!(any_object(raw(text)).is_err(), "{text}");
        }
        let odd = r#"{ "a":1.0 , "b":123456789012345678901234567890,"c":"\ud83d\ude00" }"#;
        assert_eq!(any_object(raw(odd)).unwrap().get(), odd);
        for text in ["", "{bad", "NaN", r#"{"a": NaN}"#, "{} x", "\u{feff}{}"] {
            assert_eq!(body(text.as_bytes()).err(), Some(NotJson), "{text}");
        }
        assert_eq!(body(b"{\"a\": \"\xe9\xff\"}").err(), Some(NotJson));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = body(&bytes);
        }

        #[test]
        fn no_json_panics(text in "[\\[\\]{}\":,0-9a-e\\\\u. -]{0,60}") {
            if let Ok(raw) = body(text.as_bytes()) {
                let _ = (string(raw), boolean(raw), integer(raw, 0), uuid(raw), timestamp(raw), any_object(raw));
                let _ = (cursor(raw), floor_at(raw));
                let _ = (list(raw, string), map(raw, |_, raw| string(raw).map(drop)));
            }
        }
    }
}
