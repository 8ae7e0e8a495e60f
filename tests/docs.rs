//! Keeps the documents true: the configuration page is what the program says of itself, links lead somewhere, the book has
//! every page, and the API document names the routes that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What stands above the generated part of `docs/configuration.md`.
const CONFIGURATION: &str = "\
# Configuration

Every key that the server knows. Keys stand in the section `[channelstream]` of a file that is named by `-i FILE` or by
the variable `CHANNELSTREAM_INI`; `channelstream make-config` prints such a file with every key explained. Each key can
also be given as an environment variable, which wins over the file. What is given nowhere has its default.

The file is read as Python's `configparser` reads it: comments have lines of their own and begin with `#` or `;`, a
value may go on in lines that begin with blanks, `%%` means `%`. An unknown key, a key given twice, or a value that does
not fit stops the start with a sentence that names the place. Changes count from the next start.

This page is made from the table in `src/config/keys.rs`; `UPDATE_DOCS=1 cargo test --test docs`
writes it anew.

## Keys

";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_configuration_page_is_up_to_date() {
    let wanted = format!("{CONFIGURATION}{}\n", channelstream::config::reference().trim_end());
    let page = "docs/configuration.md";
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join(page), &wanted).unwrap();
    }
    let written = fs::read_to_string(root().join(page)).unwrap_or_default();
    let differs = written.lines().zip(wanted.lines()).position(|(written, wanted)| written != wanted);
    let line = 1 + differs.unwrap_or_else(|| written.lines().count().min(wanted.lines().count()));
    assert!(
        written == wanted,
        "{page} is not what the program says, from line {line} on; `UPDATE_DOCS=1 cargo test --test docs` writes it anew"
    );
}

/// The pages whose links are checked, from the root of the repository.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "clients/js/README.md",
        "examples/README.md",
        "examples/chat/README.md",
        "examples/notifications/README.md",
    ]
    .map(PathBuf::from)
    .into();
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = PathBuf::from(entry.unwrap().file_name());
        if name.extension().is_some_and(|extension| extension == "md") {
            pages.push(Path::new("docs").join(name));
        }
    }
    pages
}

/// A page without its blocks of code.
fn prose(page: &str) -> String {
    let parts = page.split("\n```").enumerate().filter(|(index, _)| index % 2 == 0).map(|(_, part)| part);
    parts.collect::<Vec<_>>().join("\n")
}

/// Where the links of a page lead, as written.
fn links(page: &str) -> Vec<String> {
    let page = prose(page);
    page.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned()).collect()
}

/// What a link to each heading of a page ends with, as GitHub makes it.
fn anchors(page: &str) -> BTreeSet<String> {
    let anchor = |heading: &str| -> String {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
    };
    prose(page).lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut checked = 0;
    for page in pages() {
        let text = read(&page);
        for link in links(&text).iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (file, anchor) = link.split_once('#').map_or((link.as_str(), None), |(file, it)| (file, Some(it)));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(root().join(&target).exists(), "{} links to {link}, which does not exist", page.display());
            if let Some(anchor) = anchor {
                let found = anchors(&read(&target)).contains(anchor);
                assert!(found, "{} links to {link}, but there is no such heading", page.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 5, "links are found");
}

#[test]
fn the_book_has_every_page_once() {
    let named = links(&read("docs/SUMMARY.md"));
    let mut pages: Vec<PathBuf> = pages().into_iter().filter(|page| page.starts_with("docs")).collect();
    pages.retain(|page| page != Path::new("docs/SUMMARY.md"));
    pages.sort();
    let mut named: Vec<PathBuf> = named.iter().map(|page| Path::new("docs").join(page)).collect();
    named.sort();
    assert_eq!(named, pages, "docs/SUMMARY.md (left) and the pages in docs/ (right)");
}

#[test]
fn the_book_holds_what_its_pages_lead_to_and_include() {
    let mut included = 0;
    for page in pages().iter().filter(|page| page.starts_with("docs")) {
        let text = read(page);
        let outside = links(&text).into_iter().find(|link| link.starts_with("../"));
        assert_eq!(outside, None, "{} links to what is not in the book", page.display());
        for file in text.split("{{#include ").skip(1).map(|rest| rest.split("}}").next().unwrap()) {
            assert!(
                root().join("docs").join(file).is_file(),
                "{} includes {file}, which does not exist",
                page.display()
            );
            let linked = links(&text).iter().any(|link| link == file);
            assert!(linked, "{} includes {file}, but has no link for who reads it outside of the book", page.display());
            included += 1;
        }
    }
    assert!(included > 5, "includes are found");
}

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The methods that the route table names for each path, static files left out; none: it takes every method.
fn routes() -> BTreeMap<String, BTreeSet<&'static str>> {
    let table = read("src/http/mod.rs");
    let table = table.split(".fallback(").next().unwrap();
    let mut routes: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for route in table.split(".route(").skip(1) {
        let path = route.split('"').nth(1).unwrap();
        let names = |method: &str| {
            let call = format!("{method}(");
            let mut before = route.match_indices(&call).filter_map(|(at, _)| route[..at].chars().next_back());
            before.any(|before| !before.is_alphanumeric() && before != '_')
        };
        if !path.starts_with("/static/") {
            routes.insert(path.to_owned(), METHODS.into_iter().filter(|method| names(method)).collect());
        }
    }
    assert!(routes.len() > 10 && routes["/message"].len() == 3, "the route table is where it is looked for");
    routes
}

#[test]
fn requests_are_counted_for_every_route() {
    let mut counted: BTreeSet<&str> = channelstream::http::PATHS.into();
    assert!(counted.remove("/static/{*file}"));
    assert_eq!(counted, routes().keys().map(String::as_str).collect(), "PATHS (left) and the route table (right)");
}

#[test]
fn the_api_document_names_every_route_and_no_other() {
    let document: Value = serde_json::from_str(&read("web/openapi.json")).unwrap();
    let routes = routes();
    let paths = document["paths"].as_object().unwrap();
    let documented: BTreeSet<&String> = paths.keys().collect();
    assert_eq!(documented, routes.keys().collect(), "web/openapi.json (left) and src/http/mod.rs (right)");
    for (path, served) in routes {
        let documented: BTreeSet<&str> =
            METHODS.into_iter().filter(|method| paths[&path].get(method).is_some()).collect();
        assert!(!documented.is_empty(), "web/openapi.json has no method for {path}");
        assert!(
            served.is_empty() || documented == served,
            "{path}: web/openapi.json has {documented:?}, src/http/mod.rs has {served:?}"
        );
    }
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"), "the version in web/openapi.json");
}
