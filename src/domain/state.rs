//! A user's state: a flat map whose values are scalars, and which of its keys are public.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use indexmap::IndexMap;

/// One value: numbers keep the text they came with, so no precision is lost.
#[derive(Debug, Clone)]
pub enum StateValue {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A JSON number as written.
    Number(Box<str>),
    /// A string.
    Text(Arc<str>),
}

/// Same type and same value: `1`, `1.0` and `true` are three different values.
impl PartialEq for StateValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(one), Self::Bool(two)) => one == two,
            (Self::Text(one), Self::Text(two)) => one == two,
            (Self::Number(one), Self::Number(two)) => {
                let whole = |text: &str| !text.contains(['.', 'e', 'E']);
                one == two || !whole(one) && !whole(two) && one.parse::<f64>().ok() == two.parse::<f64>().ok()
            }
            _ => false,
        }
    }
}

impl StateValue {
    /// About how many bytes it takes as JSON text.
    fn bytes(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 5,
            Self::Number(text) => text.len(),
            Self::Text(text) => text.len() + 2,
        }
    }
}

/// A change of one key.
pub type Change = (Arc<str>, StateValue);

/// Most keys in one user's state: enough for any application's flat map, small enough to list.
pub const MAX_STATE_KEYS: usize = 10_000;
/// Most bytes of one user's state as JSON text, counted roughly: it travels in every user list.
pub const MAX_STATE_BYTES: usize = 1 << 20;

/// The state of a user, in the order in which keys were first set. Keys are never removed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UserState(IndexMap<Arc<str>, StateValue>);

impl UserState {
    /// Sets the keys given and says which changed. A key set to what it is does not change,
    /// nor does an unknown key set to null.
    pub fn merge(&mut self, given: &UserState) -> Vec<Change> {
        let mut changed = Vec::new();
        for (key, value) in &given.0 {
            let same = match self.0.get(key) {
                Some(old) => old == value,
                None => *value == StateValue::Null,
            };
            if !same {
                self.0.insert(key.clone(), value.clone());
                changed.push((key.clone(), value.clone()));
            }
        }
        changed
    }

    /// Sets one key to any value; the last one wins.
    pub fn set(&mut self, key: &str, value: StateValue) {
        self.0.insert(key.into(), value);
    }

    /// Keys and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &StateValue)> {
        self.0.iter().map(|(key, value)| (&**key, value))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&StateValue> {
        self.0.get(key)
    }

    /// Whether it exceeds [`MAX_STATE_KEYS`] or [`MAX_STATE_BYTES`].
    pub fn is_too_large(&self) -> bool {
        self.0.len() > MAX_STATE_KEYS || self.bytes() > MAX_STATE_BYTES
    }

    /// About how many bytes it takes as JSON text.
    fn bytes(&self) -> usize {
        self.0.iter().map(|(key, value)| key.len() + value.bytes() + 4).sum()
    }
}

/// The keys of a state that everyone may see, in the order given.
pub type PublicKeys = Arc<[Arc<str>]>;

/// A user's state at one moment and which of it is public; a clone shares all of it.
#[derive(Debug, Clone)]
pub struct Profile {
    state: Arc<UserState>,
    public_keys: PublicKeys,
    public: Arc<UserState>,
}

impl Default for Profile {
    fn default() -> Self {
        Self::new(UserState::default(), Arc::from([]))
    }
}

impl Profile {
    /// A state of which everyone may see these keys; some may have no value yet.
    pub fn new(state: UserState, public_keys: PublicKeys) -> Self {
        let keys: HashSet<&str> = public_keys.iter().map(|key| &**key).collect();
        let shown = state.0.iter().filter(|(key, _)| keys.contains(&***key));
        let public = UserState(shown.map(|(key, value)| (key.clone(), value.clone())).collect());
        Self { state: shared(state), public: shared(public), public_keys }
    }

    /// All of the state.
    pub fn state(&self) -> &UserState {
        &self.state
    }

    /// What everyone may see, in the state's order.
    pub fn public(&self) -> &UserState {
        &self.public
    }

    /// The keys that everyone may see.
    pub fn public_keys(&self) -> &PublicKeys {
        &self.public_keys
    }

    /// About how many bytes the public part takes as JSON text.
    pub fn public_bytes(&self) -> usize {
        self.public.bytes()
    }
}

/// A state to be shared; an empty one, which most are, is the same for all.
fn shared(state: UserState) -> Arc<UserState> {
    static EMPTY: LazyLock<Arc<UserState>> = LazyLock::new(Arc::default);
    if state.0.is_empty() { EMPTY.clone() } else { Arc::new(state) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> StateValue {
        StateValue::Number(text.into())
    }

    fn state(values: &[(&str, StateValue)]) -> UserState {
        let mut state = UserState::default();
        for (key, value) in values {
            state.set(key, value.clone());
        }
        state
    }

    #[test]
    fn type_and_value_are_compared() {
        assert_ne!(number("1"), StateValue::Bool(true));
        assert_ne!(number("1"), number("1.0"));
        assert_eq!(number("1.0"), number("1.00"));
        assert_ne!(number("10000000000000000000001"), number("10000000000000000000002"));
    }

    #[test]
    fn only_real_changes_are_told() {
        let mut mine = state(&[("a", number("1")), ("b", StateValue::Text("x".into()))]);
        let given = state(&[("a", number("1")), ("b", StateValue::Null), ("c", StateValue::Null), ("d", number("2"))]);
        assert_eq!(mine.merge(&given), [("b".into(), StateValue::Null), ("d".into(), number("2"))]);
        assert_eq!(mine.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["a", "b", "d"]);
    }
}
