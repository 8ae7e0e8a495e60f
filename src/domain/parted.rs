//! A map in many small parts. One large map would stop everybody when it grows, since all that it
//! holds moves then; these grow one at a time, and can be gone through one at a time.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};

use hashbrown::DefaultHashBuilder;
use hashbrown::hash_table::{Entry, HashTable};

/// How many parts: a million entries are four thousand in each, which move in a fraction of a
/// millisecond.
pub const PARTS: usize = 256;

/// See the module. Only pointers move when a part grows, and its empty places take no more than one.
#[derive(Debug)]
pub struct Parted<K, V> {
    parts: Vec<HashTable<Box<(K, V)>>>,
    hasher: DefaultHashBuilder,
    len: usize,
}

impl<K, V> Default for Parted<K, V> {
    fn default() -> Self {
        let parts = std::iter::repeat_with(HashTable::new).take(PARTS).collect();
        Self { parts, hasher: DefaultHashBuilder::default(), len: 0 }
    }
}

impl<K: Hash + Eq, V> Parted<K, V> {
    /// What a key stands for.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        self.parts[part_of(hash)].find(hash, |entry| entry.0.borrow() == key).map(|entry| &entry.1)
    }

    /// The same, to be changed.
    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        self.parts[part_of(hash)].find_mut(hash, |entry| entry.0.borrow() == key).map(|entry| &mut entry.1)
    }

    /// Whether a key is there.
    pub fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Takes something in; gives what the key stood for before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = self.hasher.hash_one(&key);
        let hasher = &self.hasher;
        match self.parts[part_of(hash)].entry(hash, |entry| entry.0 == key, |entry| hasher.hash_one(&entry.0)) {
            Entry::Occupied(mut entry) => Some(std::mem::replace(&mut entry.get_mut().1, value)),
            Entry::Vacant(place) => {
                place.insert(Box::new((key, value)));
                self.len += 1;
                None
            }
        }
    }

    /// Takes something out.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let found = self.parts[part_of(hash)].find_entry(hash, |entry| entry.0.borrow() == key).ok()?;
        self.len -= 1;
        Some(found.remove().0.1)
    }

    /// Takes out all that is in the same part as a key, if that holds as many as this.
    pub fn empty_part_of(&mut self, key: &K, most: usize) {
        let part = &mut self.parts[part_of(self.hasher.hash_one(key))];
        if part.len() >= most {
            self.len -= part.len();
            part.clear();
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        (0..PARTS).flat_map(|part| self.part(part))
    }

    /// One of the [`PARTS`].
    pub fn part(&self, part: usize) -> impl Iterator<Item = (&K, &V)> {
        self.parts[part].iter().map(|entry| (&entry.0, &entry.1))
    }

    /// The values of one of the [`PARTS`], to be changed.
    pub fn part_mut(&mut self, part: usize) -> impl Iterator<Item = &mut V> {
        self.parts[part].iter_mut().map(|entry| &mut entry.1)
    }
}

/// The part of a hash, by bits that the parts do not look at: else what shares a part would share its places as well.
fn part_of(hash: u64) -> usize {
    (hash >> 32) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_map() {
        let mut map = Parted::default();
        assert!((0..10_000).all(|key| map.insert(key, key * 2).is_none()));
        assert_eq!((map.insert(7, 1), map.get(&7), map.get(&10_000)), (Some(14), Some(&1), None));
        *map.get_mut(&7).unwrap() = 2;
        assert_eq!((map.remove(&7), map.remove(&7), map.len()), (Some(2), None, 9_999));
        assert!(!map.contains_key(&7) && map.contains_key(&8));
        let mut keys: Vec<i32> = (0..PARTS).flat_map(|part| map.part(part)).map(|(key, _)| *key).collect();
        keys.sort_unstable();
        assert!(keys.is_sorted() && keys.len() == 9_999 && map.iter().count() == 9_999);
        assert!((0..PARTS).all(|part| (10..80).contains(&map.part(part).count())), "they are spread");
    }

    #[test]
    fn a_full_part_is_emptied_alone() {
        let mut map = Parted::default();
        for key in 0..10_000 {
            map.empty_part_of(&key, 20);
            map.insert(key, ());
        }
        assert!((0..PARTS).all(|part| map.part(part).count() <= 20));
        assert!(map.len() > PARTS * 5 && map.len() == map.iter().count());
    }
}
