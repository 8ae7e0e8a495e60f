//! Absolute links to ourselves, as the proxy in front says that we are seen.

use axum::http::{HeaderMap, header};

use crate::config::{Config, Scheme};

/// The header of a proxy that names the prefix.
pub const SCRIPT_NAME: &str = "x-script-name";

/// Whether the request came over https, by the proxy's word.
pub fn is_https(headers: &HeaderMap) -> bool {
    proxy_scheme(headers) == Some("https")
}

fn proxy_scheme(headers: &HeaderMap) -> Option<&str> {
    let named = headers.get("x-url-scheme").or_else(|| headers.get("x-scheme"))?.to_str().ok()?;
    ["http", "https"].into_iter().find(|scheme| named.eq_ignore_ascii_case(scheme))
}

/// The scheme in links.
pub fn scheme<'a>(headers: &'a HeaderMap, config: &Config) -> &'a str {
    proxy_scheme(headers).unwrap_or_else(|| config.http_scheme.map_or("http", Scheme::as_str))
}

/// The prefix under which a proxy shows us, if it names one.
pub fn script_name(headers: &HeaderMap) -> Option<&str> {
    headers.get(SCRIPT_NAME)?.to_str().ok().filter(|name| name.starts_with('/') && !name.starts_with("//"))
}

/// An absolute link to one of our paths.
pub fn link(headers: &HeaderMap, config: &Config, path: &str) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let prefix = script_name(headers).unwrap_or_default();
    format!("{}://{host}{}{path}", scheme(headers, config), prefix.trim_end_matches('/'))
}
