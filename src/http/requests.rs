//! How many requests came for each route, how they were answered, and how long that took.

use std::time::Duration;

use axum::http::StatusCode;
use hashbrown::HashMap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::metrics::Labels;

/// Seconds that an answer may take. Polls wait for up to five.
const SECONDS: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.025, 0.1, 0.5, 2.0, 6.0];
/// The route of all paths that are none.
const OTHER: &str = "other";

/// See the module.
pub struct Requests {
    /// By pattern; a pattern that ends in a wildcard stands for all paths that begin like it.
    routes: HashMap<&'static str, Route>,
    counts: Family<Labels<2>, Counter>,
    seconds: Family<Labels<1>, Histogram, fn() -> Histogram>,
}

/// What is counted of one route.
struct Route {
    seconds: Histogram,
    pattern: &'static str,
}

impl Requests {
    /// Of these routes.
    pub fn new(patterns: &[&'static str]) -> Self {
        let seconds = Family::<_, _, fn() -> _>::new_with_constructor(|| Histogram::new(SECONDS));
        let route = |pattern: &'static str| {
            let path = pattern.split('{').next().unwrap_or(pattern);
            (path, Route { seconds: seconds.get_or_create_owned(&[("route", pattern)]), pattern })
        };
        let routes = patterns.iter().copied().chain([OTHER]).map(route).collect();
        Self { routes, counts: Family::default(), seconds }
    }

    /// A request was answered.
    pub fn note(&self, path: &str, status: StatusCode, took: Duration) {
        let route = self.routes.get(path).unwrap_or_else(|| self.by_prefix(path));
        route.seconds.observe(took.as_secs_f64());
        self.counts.get_or_create(&[("route", route.pattern), ("status", code(status))]).inc();
    }

    fn by_prefix(&self, path: &str) -> &Route {
        let mut wildcards = self.routes.iter().filter(|(prefix, route)| **prefix != route.pattern);
        let found = wildcards.find(|(prefix, _)| path.starts_with(**prefix)).map(|(_, route)| route);
        found.unwrap_or(&self.routes[OTHER])
    }

    /// Gives them their names.
    pub fn register(&self, to: &mut Registry) {
        to.register("channelstream_requests", "Requests that were answered", self.counts.clone());
        let help = "Time until the head of the answer was ready";
        to.register("channelstream_request_seconds", help, self.seconds.clone());
    }
}

/// A status as a label: of those that the server gives; there is a bounded number of them.
fn code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        101 => "101",
        200 => "200",
        302 => "302",
        304 => "304",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        406 => "406",
        408 => "408",
        413 => "413",
        422 => "422",
        426 => "426",
        429 => "429",
        500 => "500",
        503 => "503",
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_counted_by_their_route() {
        let requests = Requests::new(&["/message", "/static/{*file}"]);
        for path in ["/message", "/message", "/static/a/b.js", "/static/", "/message/", "/", "other"] {
            requests.note(path, StatusCode::OK, Duration::from_millis(1));
        }
        requests.note("/message", StatusCode::IM_A_TEAPOT, Duration::ZERO);
        let count = |route, status| requests.counts.get_or_create(&[("route", route), ("status", status)]).get();
        assert_eq!((count("/message", "200"), count("/static/{*file}", "200"), count(OTHER, "200")), (2, 2, 3));
        assert_eq!(count("/message", OTHER), 1);
    }
}
