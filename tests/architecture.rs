//! Keeps the layers: modules stand bottom-up in `src/lib.rs` and `src/domain/mod.rs`, in groups
//! with blank lines between them; each uses lower groups only. No circle anywhere, and a few
//! things are named in one place only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A source file: its module path (`domain::router`) and its text without comments and tests.
struct Source {
    module: String,
    code: String,
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let relative = path.strip_prefix(&root).unwrap().with_extension("");
        let parts: Vec<&str> = relative.iter().map(|part| part.to_str().unwrap()).collect();
        if matches!(parts[..], ["lib" | "main"] | ["bin", ..] | [.., "tests"]) {
            continue;
        }
        let parts = parts.strip_suffix(&["mod"]).unwrap_or(&parts);
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        sources.push(Source { module: parts.join("::"), code });
    }
    assert!(sources.len() > 50, "the sources are where they are looked for");
    sources
}

/// The modules that a source names, by `crate::…` or `super::…`.
fn uses(source: &Source, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let parent = source.module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let mut used = BTreeSet::new();
    for (start, prefix) in [("crate::", String::new()), ("super::", format!("{parent}::"))] {
        for (at, _) in source.code.match_indices(start) {
            let preceded = source.code[..at].chars().next_back();
            if preceded.is_some_and(|before| before.is_alphanumeric() || "_:".contains(before)) {
                continue;
            }
            for path in named(&source.code[at + start.len()..]) {
                let path = format!("{}{path}", prefix.trim_start_matches("::"));
                let longest =
                    modules.iter().filter(|module| path == **module || path.starts_with(&format!("{module}::")));
                used.extend(longest.max_by_key(|module| module.len()).cloned());
            }
        }
    }
    // What a folder's mod.rs hands on from its children is no use of them, and the reverse neither.
    used.remove(&source.module);
    used
}

/// `a::b::{c, d::e}` names `a::b::c` and `a::b::d::e`; one level of braces is enough here.
fn named(text: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || "_:".contains(c);
    let end = text.find(|c| !is_path(c)).unwrap_or(text.len());
    let head = &text[..end];
    if head.ends_with("::") && text[end..].starts_with('{') {
        let inside = &text[end + 1..end + text[end..].find('}').unwrap()];
        return inside.split(',').map(|part| format!("{head}{}", part.trim().split(' ').next().unwrap())).collect();
    }
    vec![head.to_owned()]
}

fn graph() -> BTreeMap<String, BTreeSet<String>> {
    let sources = sources();
    let modules: BTreeSet<String> = sources.iter().map(|source| source.module.clone()).collect();
    sources.iter().map(|source| (source.module.clone(), uses(source, &modules))).collect()
}

#[test]
fn no_module_is_in_a_circle() {
    let mut left = graph();
    assert!(left["journal"].contains("live") && left["domain::apply"].contains("domain::router"), "uses are found");
    loop {
        let free: Vec<String> = left.iter().filter(|(_, uses)| uses.is_empty()).map(|(name, _)| name.clone()).collect();
        if free.is_empty() {
            break;
        }
        left.retain(|name, _| !free.contains(name));
        for uses in left.values_mut() {
            uses.retain(|name| !free.contains(name));
        }
    }
    assert!(left.is_empty(), "in a circle, or above one: {left:#?}");
}

/// The groups of `mod` lines of a file, bottom-up.
fn layers(file: &str) -> BTreeMap<String, usize> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let mut layers = BTreeMap::new();
    for (layer, group) in text.split("\n\n").enumerate() {
        for line in group.lines() {
            let name = line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod "));
            if let Some(name) = name {
                layers.insert(name.trim_end_matches(';').to_owned(), layer);
            }
        }
    }
    layers
}

#[test]
fn each_layer_uses_lower_ones_only() {
    let check = |layers: &BTreeMap<String, usize>, prefix: &str| {
        let own = |module: &str| -> Option<String> {
            Some(module.strip_prefix(prefix)?.split("::").next()?.to_owned()).filter(|name| layers.contains_key(name))
        };
        for (module, uses) in graph() {
            let Some(name) = own(&module) else { continue };
            for used in uses.iter().filter_map(|used| own(used)).filter(|used| *used != name) {
                assert!(layers[&used] < layers[&name], "{module} uses {prefix}{used}, which is not below it");
            }
        }
    };
    check(&layers("src/lib.rs"), "");
    check(&layers("src/domain/mod.rs"), "domain::");
}

#[test]
fn the_domain_is_pure() {
    let impure = ["tokio", "sqlx", "axum", "hyper", "::now()", "new_v4", "std::time::Instant", "std::env", "std::fs"];
    for source in sources().iter().filter(|source| source.module.starts_with("domain")) {
        for word in impure {
            assert!(!source.code.contains(word), "{} names {word}", source.module);
        }
        for json in source.code.match_indices("serde_json") {
            let allowed = source.code[json.0..].starts_with("serde_json::value::RawValue");
            assert!(allowed, "{} takes JSON apart: only raw text passes through", source.module);
        }
    }
}

#[test]
fn some_things_are_named_in_one_place() {
    let only = |word: &str, allowed: &[&str]| {
        for source in sources() {
            let inside = allowed
                .iter()
                .any(|module| source.module == *module || source.module.starts_with(&format!("{module}::")));
            assert!(inside || !source.code.contains(word), "{} names {word}", source.module);
        }
    };
    only("sqlx", &["store"]);
    only("refinery", &["store"]);
    only("AssertSqlSafe", &["store::migrate"]);
    only("UNPROCESSABLE_ENTITY", &["http::error"]);
    only("SERVICE_UNAVAILABLE", &["http::error", "http::admin::health"]);
    only("\"catchup\"", &["wire"]);
    only("tracing_subscriber", &["telemetry"]);
    only("clap", &["cli"]);
}
