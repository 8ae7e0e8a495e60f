//! Values as Postgres takes them.

/// Texts as an array.
pub(super) fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    texts.into_iter().collect()
}
