//! What stands before every handler and after it: addresses, signatures, https, CORS, prefixes,
//! error pages, and the pages for administrators.

mod support;

use std::time::{Duration, Instant};

use channelstream::config::{Config, Scheme, Secret};
use serde_json::{Value, json};
use support::{Answer, Client, Socket, TestServer, send};

const SECRET: &str = "x-channelstream-secret";
const FORM: &str = "application/x-www-form-urlencoded";
/// What back ends may call, with a method that each of them serves.
const SIGNED: [(&str, &str); 10] = [
    ("POST", "/connect"),
    ("POST", "/subscribe"),
    ("POST", "/unsubscribe"),
    ("POST", "/user_state"),
    ("POST", "/message"),
    ("PATCH", "/message"),
    ("DELETE", "/message"),
    ("POST", "/channel_config"),
    ("POST", "/info"),
    ("GET", "/info"),
];

fn allow(list: &str) -> impl FnOnce(&mut Config) {
    let list = list.parse().expect("a list of addresses");
    move |config| config.allow_posting_from = list
}

// ---- Who may call ----

#[tokio::test]
async fn back_ends_call_from_the_networks_that_are_listed() {
    for (list, allowed) in [
        ("127.0.0.1", true),
        ("10.0.0.0/8, 127.0.0.0/8", true),
        ("0.0.0.0", true),
        ("::ffff:127.0.0.1", true),
        ("127.0.0.2", false),
        ("10.0.0.0/8", false),
        ("::1", false),
    ] {
        let server = TestServer::with(allow(list)).await;
        let status = server.send("POST", "/info", "").await.status;
        assert_eq!(status, if allowed { 200 } else { 403 }, "{list}");
    }
}

#[tokio::test]
async fn the_address_comes_before_the_signature_and_the_signature_before_the_body() {
    let server = TestServer::start().await;
    for (method, path) in SIGNED {
        let plain = send(server.request(method, path).body("{bad")).await;
        assert_eq!(plain.status, 403, "{method} {path}");
        let wrong = send(server.request(method, path).header(SECRET, "a.b.c").body("{bad")).await;
        assert_eq!(wrong.refusal(), (401, json!({"request": "Bad Signature"})), "{method} {path}");
        assert_eq!(server.send(method, path, "{bad").await.status, 400, "{method} {path}");
    }
    let server = TestServer::with(allow("10.0.0.0/8")).await;
    for (method, path) in SIGNED {
        for request in [
            server.request(method, path),
            server.request(method, path).header(SECRET, "a.b.c"),
            server.signed(method, path),
            server.signed(method, path).header("x-forwarded-for", "10.0.0.1").header("forwarded", "for=10.0.0.1"),
        ] {
            assert_eq!(send(request.body("{bad")).await.status, 403, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn listeners_and_administrators_call_from_anywhere() {
    let mut server = TestServer::start().await;
    let id = server.connect("ann", &["room"]).await;
    server.say("room", [1]).await;
    server.restart_with(allow("10.0.0.0/8")).await;
    let _socket = Socket::open(&server, &id).await;
    assert_eq!(server.get(&format!("/disconnect?conn_id={id}")).await.text.trim(), "true");
    assert_eq!(server.get("/admin/sign_in").await.status, 200);
    assert_eq!(server.get("/healthz").await.status, 200);
    assert_eq!(send(server.signed("GET", "/admin/admin.json")).await.status, 200);
}

#[tokio::test]
async fn a_signature_may_stand_in_header_query_or_form() {
    let server = TestServer::start().await;
    let good = server.token();
    let form = |body: String| server.request("POST", "/info").header("content-type", FORM).body(body);
    let cases = [
        ("a header", server.request("POST", "/info").header(SECRET, &good), 200),
        ("a header of any case", server.request("POST", "/info").header("X-ChannelStream-SECRET", &good), 200),
        ("a query", server.request("POST", "/info").query(&[("secret", &good)]), 200),
        ("the first of two", server.request("POST", "/info").query(&[("secret", good.as_str()), ("secret", "x")]), 200),
        ("not the second of two", server.request("POST", "/info").query(&[("secret", "x"), ("secret", &good)]), 401),
        ("a header before a query", server.request("POST", "/info?secret=x").header(SECRET, &good), 200),
        ("a wrong header", server.request("POST", "/info").query(&[("secret", &good)]).header(SECRET, "x"), 401),
        ("an empty header", server.request("POST", "/info").query(&[("secret", &good)]).header(SECRET, ""), 403),
        ("an empty query", server.request("POST", "/info?secret="), 403),
        // The body of these is no JSON, so what is signed well comes as far as that.
        ("a form", form(format!("a=b&secret={good}")), 400),
        ("a wrong form", form("secret=x".to_owned()), 401),
        ("a form without", form("a=b".to_owned()), 403),
        ("a query before a form", form(format!("secret={good}")).query(&[("secret", "x")]), 401),
        ("no form", server.request("POST", "/info").body(format!("secret={good}")), 403),
    ];
    for (case, request, status) in cases {
        assert_eq!(send(request).await.status, status, "{case}");
    }
    // A body is read as JSON whatever it is said to be.
    let body = json!({"username": "ann"}).to_string();
    for kind in [FORM, "text/plain", "multipart/form-data; boundary=x", "application/json; charset=latin1", "nonsense"]
    {
        let request = server.signed("POST", "/connect").header("content-type", kind).body(body.clone());
        assert_eq!(send(request).await.status, 200, "{kind}");
    }
}

#[tokio::test]
async fn a_signature_is_good_for_a_minute_unless_told_otherwise() {
    let mut server = TestServer::start().await;
    let aged = async |client: &Client, seconds: u64| {
        send(client.request("POST", "/info").header(SECRET, client.token_aged(seconds))).await.status
    };
    assert_eq!([aged(&server, 0).await, aged(&server, 55).await, aged(&server, 62).await], [200, 200, 401]);
    server.restart_with(|config| config.validate_requests = false).await;
    assert_eq!([aged(&server, 62).await, aged(&server, 400_000_000).await], [200, 200]);
    let other = Client::new(server.address(), "another secret");
    assert_eq!(send(other.signed("POST", "/info")).await.status, 401);
}

// ---- Https ----

#[tokio::test]
async fn https_is_demanded_of_everything() {
    let server = TestServer::with(|config| config.enforce_https = true).await;
    let https = ("x-url-scheme", "https");
    let connected = server.signed("POST", "/connect").header(https.0, https.1).json(&json!({"username": "ann"}));
    let id = send(connected).await.json()["conn_id"].as_str().expect("an id").to_owned();
    let ws = format!("/ws?conn_id={id}");
    for (method, path) in [
        ("POST", "/connect"),
        ("GET", "/listen"),
        ("GET", "/admin"),
        ("GET", "/admin/sign_in"),
        ("GET", "/healthz"),
        ("GET", "/nope"),
        ("OPTIONS", "/connect"),
        ("GET", "/static/channelstream-admin/style.css"),
        ("GET", &ws),
    ] {
        for (name, value) in [("x", "y"), ("x-url-scheme", "http"), ("x-forwarded-proto", "https"), ("x-scheme", "ftp")]
        {
            let request = server.signed(method, path).header(name, value).header("accept", "application/json");
            let answer = send(request).await;
            assert_eq!((answer.status, &answer.json()["title"]), (406, &json!("Not Acceptable")), "{method} {path}");
            assert!(answer.json()["message"].as_str().expect("a text").contains("SSL is required"));
        }
        let both = server.signed(method, path).header("x-url-scheme", "http").header("x-scheme", "https");
        assert_eq!(send(both).await.status, 406, "the first header wins");
        for name in ["x-url-scheme", "x-scheme"] {
            assert_ne!(send(server.signed(method, path).header(name, "https")).await.status, 406, "{method} {path}");
        }
    }
    assert_eq!(send(server.handshake(&ws)).await.status, 406);
    assert_eq!(send(server.handshake(&ws).header("x-scheme", "HTTPS")).await.status, 101);
}

#[tokio::test]
async fn links_have_the_scheme_the_host_and_the_prefix_that_the_proxy_says() {
    let mut server = TestServer::start().await;
    let location = async |client: &Client, headers: &[(&str, &str)]| {
        let mut request = client.request("GET", "/admin").header("host", "push.example:8443");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = send(request).await;
        assert_eq!(answer.status, 302);
        answer.header("location").to_owned()
    };
    let sign_in = "push.example:8443/admin/sign_in";
    assert_eq!(location(&server, &[]).await, format!("http://{sign_in}"));
    assert_eq!(location(&server, &[("x-scheme", "https")]).await, format!("https://{sign_in}"));
    assert_eq!(
        location(&server, &[("x-scheme", "https"), ("x-url-scheme", "http")]).await,
        format!("http://{sign_in}")
    );
    assert_eq!(location(&server, &[("x-forwarded-proto", "https")]).await, format!("http://{sign_in}"));
    for prefix in ["/pfx", "/pfx/"] {
        let expected = "http://push.example:8443/pfx/admin/sign_in";
        assert_eq!(location(&server, &[("x-script-name", prefix)]).await, expected);
    }
    server.restart_with(|config| config.http_scheme = Some(Scheme::Https)).await;
    assert_eq!(location(&server, &[]).await, format!("https://{sign_in}"));
    assert_eq!(location(&server, &[("x-url-scheme", "http")]).await, format!("http://{sign_in}"));
}

#[tokio::test]
async fn a_prefix_is_taken_off_where_it_is() {
    let server = TestServer::start().await;
    let under = |path: &str| server.signed("POST", path).header("x-script-name", "/pfx").body("");
    assert_eq!(send(under("/pfx/info")).await.status, 200);
    assert_eq!(send(under("/pfx/%69nfo?secret=x")).await.status, 200);
    assert_eq!(send(under("/info")).await.status, 200);
    assert_eq!(send(under("/pfx/pfx/info")).await.status, 404);
    assert_eq!(send(server.signed("POST", "/pfx/info")).await.status, 404, "only if the proxy says so");
    let id = server.connect("ann", &[]).await;
    let handshake = |path: &str| server.handshake(&format!("{path}?conn_id={id}")).header("x-script-name", "/pfx");
    assert_eq!(send(handshake("/pfx/ws")).await.status, 404);
    assert_eq!(send(handshake("/ws")).await.status, 101);
}

// ---- CORS ----

/// One answer of every kind that there is.
async fn answers_of_every_kind(server: &TestServer) -> Vec<(&'static str, Answer)> {
    let origin = "https://app.example.com";
    let request = |method: &str, path: &str| server.request(method, path).header("origin", origin);
    let signed = |method: &str, path: &str, body: &str| {
        server.signed(method, path).header("origin", origin).body(body.to_owned())
    };
    let large = "x".repeat(2000);
    let unknown = "/listen?conn_id=3106dab9-3425-43c4-9b95-4d22d8fc9561";
    let requests = [
        ("200", signed("POST", "/info", "")),
        ("a preflight", request("OPTIONS", "/connect")),
        ("302", request("GET", "/admin")),
        ("400", signed("POST", "/connect", "{bad")),
        ("400 for a path", request("GET", "/%ff")),
        ("401 for a signature", request("POST", "/connect").header(SECRET, "x")),
        ("401 for a poll", request("GET", unknown)),
        ("403", request("POST", "/connect")),
        ("404", request("GET", "/nope")),
        ("404 for a method", request("GET", "/connect")),
        ("413", signed("POST", "/connect", &large)),
        ("422", signed("POST", "/connect", "{}")),
        ("422 for a poll", request("GET", "/listen?conn_id=x")),
        ("426", request("GET", "/ws")),
        ("the sign-in page", request("GET", "/admin/sign_in")),
        ("health", request("GET", "/healthz")),
    ];
    let mut answers = Vec::new();
    for (kind, request) in requests {
        let answer = send(request).await;
        let expected = kind.split(' ').next().and_then(|status| status.parse().ok()).unwrap_or(200);
        assert_eq!(answer.status, expected, "{kind}: {}", answer.text);
        answers.push((kind, answer));
    }
    answers
}

#[tokio::test]
async fn every_answer_can_be_read_by_every_page() {
    let server = TestServer::with(|config| config.max_body_bytes = 1024).await;
    for (kind, answer) in answers_of_every_kind(&server).await {
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{kind}");
        assert_eq!(answer.header("xdomainrequestallowed"), "1", "{kind}");
        assert_eq!(answer.header("access-control-allow-methods"), "GET, POST, OPTIONS, PUT, DELETE, PATCH", "{kind}");
        assert_eq!(
            answer.header("access-control-allow-headers"),
            "Content-Type, Depth, User-Agent, X-File-Size, X-Requested-With, If-Modified-Since, X-File-Name, \
             Cache-Control, Pragma, Origin, Connection, Referer, Cookie",
            "{kind}"
        );
        assert_eq!(answer.header("access-control-max-age"), "86400", "{kind}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{kind}");
    }
    let file = server.get("/static/channelstream-admin/style.css").await;
    assert_eq!((file.status, file.header("access-control-allow-origin")), (200, ""));
}

#[tokio::test]
async fn pages_of_any_origin_import_the_browser_client() {
    let server = TestServer::start().await;
    for (name, text) in [
        ("channelstream.js", include_str!("../clients/js/channelstream.js")),
        ("index.js", include_str!("../clients/js/index.js")),
    ] {
        let path = format!("/static/channelstream/{name}");
        let file = server.get(&path).await;
        assert_eq!((file.status, file.text.as_str()), (200, text));
        assert_eq!((file.header("content-type"), file.header("access-control-allow-origin")), ("text/javascript", "*"));
        let known = send(server.request("GET", &path).header("if-none-match", file.header("etag"))).await;
        assert_eq!((known.status, known.header("access-control-allow-origin")), (304, "*"));
    }
    for other in ["package.json", "sign.js", "test/unit.test.js", "../sign.js", ""] {
        assert_eq!(server.get(&format!("/static/channelstream/{other}")).await.status, 404, "{other}");
    }
}

#[tokio::test]
async fn with_a_list_only_its_pages_can_read_answers() {
    for (list, allowed) in [("example.com", true), ("https://app.example.com", true), ("example.org", false)] {
        let server = TestServer::with(|config| {
            config.max_body_bytes = 1024;
            config.allow_cors = list.parse().expect("a list of sites");
        })
        .await;
        for (kind, answer) in answers_of_every_kind(&server).await {
            let expected = if allowed { "*" } else { "" };
            assert_eq!(answer.header("access-control-allow-origin"), expected, "{list}: {kind}");
            assert_eq!(answer.header("xdomainrequestallowed"), "1", "{list}: {kind}");
        }
    }
    let server = TestServer::with(|config| config.allow_cors = "example.com".parse().expect("a list of sites")).await;
    for origin in ["http://example.com.evil.org", "http://evilexample.com", "null", "example.com", ""] {
        let answer = send(server.request("GET", "/healthz").header("origin", origin)).await;
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
    }
    assert_eq!(server.get("/healthz").await.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn options_is_answered_everywhere() {
    let server = TestServer::start().await;
    for path in ["/connect", "/info", "/listen", "/ws", "/disconnect", "/admin", "/nope", "/", "/a/b?c"] {
        let answer = send(server.request("OPTIONS", path)).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, ""), "{path}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=UTF-8", "{path}");
        assert_eq!(send(server.signed("OPTIONS", path)).await.status, 200, "{path}");
        let wrong = send(server.request("OPTIONS", path).header(SECRET, "x")).await;
        assert_eq!(wrong.status, if path == "/ws" { 200 } else { 401 }, "{path}");
    }
    assert_eq!(send(server.request("OPTIONS", "/static/channelstream-admin/style.css")).await.status, 404);
}

// ---- What is not there ----

#[tokio::test]
async fn a_method_that_a_path_does_not_serve_is_not_found() {
    let server = TestServer::start().await;
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "FOO"];
    for (path, served) in [
        ("/connect", &["POST"][..]),
        ("/subscribe", &["POST"]),
        ("/unsubscribe", &["POST"]),
        ("/user_state", &["POST"]),
        ("/channel_config", &["POST"]),
        ("/message", &["POST", "PATCH", "DELETE"]),
        ("/listen", &["GET", "HEAD"]),
        ("/info", &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]),
        ("/disconnect", &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]),
        ("/admin", &["GET", "HEAD"]),
        ("/admin/admin.json", &["GET", "HEAD", "POST"]),
        ("/openapi.json", &["GET", "HEAD"]),
        ("/healthz", &["GET", "HEAD"]),
        ("/static/channelstream-admin/style.css", &["GET", "HEAD"]),
    ] {
        for method in methods {
            let answer = send(server.signed(method, path)).await;
            assert_eq!(answer.status != 404, served.contains(&method), "{method} {path}: {}", answer.status);
            assert_ne!(answer.status, 405, "{method} {path}");
        }
    }
    for path in ["/", "/connect/", "/admin/", "/admin/x", "/CONNECT", "/static", "/admin/debug"] {
        for method in methods {
            assert_eq!(send(server.signed(method, path)).await.status, 404, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn an_error_page_comes_as_it_was_asked_for() {
    let server = TestServer::start().await;
    let page = async |accept: &str, path: &str| send(server.request("GET", path).header("accept", accept)).await;
    let answer = page("application/json", "/nope").await;
    let told = json!({"message": "The resource could not be found.\n\n\n/nope\n\n", "code": "404 Not Found",
        "title": "Not Found"});
    assert_eq!((answer.refusal(), answer.header("content-type")), ((404, told), "application/json"));
    for accept in ["", "text/plain", "image/png"] {
        let answer = page(accept, "/nope").await;
        assert!(answer.header("content-type").starts_with("text/plain"), "{accept}");
        assert!(answer.text.contains("404 Not Found") && answer.text.contains("/nope"), "{}", answer.text);
    }
    for accept in ["text/html", "*/*", "text/html, application/xhtml+xml;q=0.9"] {
        let answer = page(accept, "/nope").await;
        assert!(answer.header("content-type").starts_with("text/html"), "{accept}");
        assert!(answer.text.contains("404 Not Found"), "{}", answer.text);
    }
    let unknown = "/listen?conn_id=3106dab9-3425-43c4-9b95-4d22d8fc9561";
    assert_eq!(page("application/json", unknown).await.json()["code"], "401 Unauthorized");
    let forbidden = send(server.request("POST", "/connect").header("accept", "application/json")).await;
    assert_eq!(forbidden.json()["code"], "403 Forbidden");
    assert_eq!(send(server.request("HEAD", "/nope")).await.text, "");
}

// ---- Administrators ----

/// Signs in; gives the answer.
async fn sign_in(client: &Client, user: &str, password: &str) -> Answer {
    send(client.request("POST", "/admin/sign_in").form(&[("username", user), ("password", password)])).await
}

/// The cookie in an answer, as a browser sends it back.
fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().expect("a cookie").to_owned()
}

#[tokio::test]
async fn who_signs_in_gets_a_cookie_that_opens_admin_pages_only() {
    let server = TestServer::start().await;
    for path in ["/admin", "/admin/admin.json", "/api-explorer"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 302, "{path}");
        assert!(answer.header("location").ends_with("/admin/sign_in"), "{path}");
    }
    assert_eq!(server.get("/openapi.json").await.status, 403);
    let form = server.get("/admin/sign_in").await;
    assert!(form.text.contains("password") && form.header("content-type").starts_with("text/html"));

    let answer = sign_in(&server, " admin ", " a password of this test\n").await;
    assert_eq!(answer.status, 302, "blanks around do not count");
    assert!(answer.header("location").ends_with("/admin"));
    let set: Vec<String> = answer.header("set-cookie").split("; ").map(str::to_lowercase).collect();
    assert!(set[0].starts_with("auth_tkt="), "{set:?}");
    for flag in ["httponly", "samesite=lax", "path=/", "max-age=2592000"] {
        assert!(set.iter().any(|given| given == flag), "{flag} in {set:?}");
    }
    assert!(!set.contains(&"secure".to_owned()), "{set:?}");

    let cookie = cookie(&answer);
    let with = |method: &str, path: &str| server.request(method, path).header("cookie", format!("a=b; {cookie}"));
    for path in ["/admin", "/api-explorer", "/openapi.json", "/admin/admin.json"] {
        assert_eq!(send(with("GET", path)).await.status, 200, "{path}");
    }
    let panel = send(with("GET", "/admin")).await;
    assert!(panel.header("content-security-policy").contains("default-src 'self'"));
    assert_eq!(panel.header("cache-control"), "no-store");
    for (method, path) in SIGNED {
        assert_eq!(send(with(method, path)).await.status, 403, "{method} {path}");
    }
    assert_eq!(send(with("GET", "/admin/admin.json").header(SECRET, "x")).await.status, 401);

    let out = send(with("GET", "/admin/sign_out")).await;
    assert_eq!(out.status, 302);
    assert!(out.header("location").ends_with("/admin/sign_in"));
    let cleared = out.header("set-cookie").to_lowercase();
    assert!(
        cleared.starts_with("auth_tkt=;") && cleared.contains("max-age=0") && cleared.contains("path=/"),
        "{cleared}"
    );
}

#[tokio::test]
async fn a_wrong_password_costs_time_and_gives_nothing() {
    let server = TestServer::start().await;
    let started = Instant::now();
    let (password, user, old) = tokio::join!(
        sign_in(&server, "admin", "wrong"),
        sign_in(&server, "wrong", "a password of this test"),
        sign_in(&server, "admin", "admin_secret"),
    );
    for answer in [password, user, old] {
        assert_eq!((answer.status, answer.header("set-cookie")), (200, ""));
        assert!(answer.text.contains("<form"), "{}", answer.text);
    }
    assert!(started.elapsed() >= Duration::from_millis(500));
}

#[tokio::test]
async fn a_cookie_is_secure_behind_https_and_lasts_over_a_restart_only_with_a_secret() {
    let mut server = TestServer::start().await;
    let request = server.request("POST", "/admin/sign_in").header("x-url-scheme", "https");
    let answer = send(request.form(&[("username", "admin"), ("password", "a password of this test")])).await;
    assert!(answer.header("set-cookie").to_lowercase().contains("; secure"), "{}", answer.header("set-cookie"));

    let status = async |client: &Client, cookie: &str| {
        send(client.request("GET", "/admin/admin.json").header("cookie", cookie)).await.status
    };
    let session = cookie(&answer);
    assert_eq!(status(&server, &session).await, 200);
    server.restart().await;
    assert_eq!(status(&server, &session).await, 302, "the key was random");

    let keep = |config: &mut Config| config.cookie_secret = Some(Secret::new("a secret for cookies"));
    server.restart_with(keep).await;
    let session = cookie(&sign_in(&server, "admin", "a password of this test").await);
    server.restart().await;
    assert_eq!(status(&server, &session).await, 200);
    let (name, value) = session.split_once('=').expect("a cookie");
    for changed in [format!("{name}={value}0"), format!("{name}=0{value}"), session.replace("admin", "root")] {
        assert_eq!(status(&server, &changed).await, 302, "{changed}");
    }
    server.restart_with(|config| config.admin_user = "root".to_owned()).await;
    assert_eq!(status(&server, &session).await, 302, "a session of somebody else");
}

#[tokio::test]
async fn the_report_counts_what_is_there() {
    let server = TestServer::start().await;
    server.configure("room", json!({"store_history": true})).await;
    let body = json!({"username": "ann", "channels": ["room"], "user_state": {"color": "red", "secret": 1},
        "state_public_keys": ["color"]});
    let ann = server.post("/connect", body).await["conn_id"].clone();
    let bob = server.connect("bob", &["room"]).await;
    server.say("room", [1]).await;
    server.post("/message", json!([{"user": "x", "channel": "nowhere"}, {"user": "x"}])).await;

    let report = send(server.signed("GET", "/admin/admin.json")).await;
    assert_eq!(report.header("content-type"), "application/json");
    let report = report.json();
    let figures = ["remembered_user_count", "unique_user_count", "total_connections", "total_channels"];
    assert_eq!(figures.map(|name| report[name].as_i64()), [Some(2), Some(2), Some(2), Some(1)]);
    assert_eq!((&report["total_messages"], &report["total_unique_messages"]), (&json!(2), &json!(2)));
    assert_eq!(report["channels"]["room"], server.channel("room").await);
    let mut users = support::list(&report["users"]).to_vec();
    users.sort_by_key(|user| user["user"].to_string());
    let uuids: Vec<&Value> = users.iter().map(|user| &user["uuid"]).collect();
    assert_eq!(
        json!(users),
        json!([
            {"state": {"color": "red"}, "user": "ann", "uuid": uuids[0], "connections": [ann]},
            {"state": {}, "user": "bob", "uuid": uuids[1], "connections": [bob]},
        ])
    );
    let uptime = report["uptime"].as_str().expect("a text");
    assert!(uptime.starts_with("0:0") && uptime.len() == 7, "{uptime}");
    assert!(report["version"].is_string());
    let posted = send(server.signed("POST", "/admin/admin.json").body("{ignored")).await;
    assert_eq!(posted.status, 200);
}

#[tokio::test]
async fn the_description_of_the_api_has_every_route() {
    /// For people, not for programs.
    const PAGES: [&str; 3] = ["/admin", "/api-explorer", "/static/{*file}"];
    let server = TestServer::start().await;
    let document = send(server.signed("GET", "/openapi.json")).await.json();
    let described = document["paths"].as_object().expect("paths");

    let table = include_str!("../src/http/mod.rs");
    let routes: Vec<&str> =
        table.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")?.split('"').next()).collect();
    assert!(routes.len() > 15, "{routes:?}");
    for route in &routes {
        assert!(described.contains_key(*route) || PAGES.contains(route), "{route} is not described");
    }
    for (path, operations) in described {
        assert!(routes.contains(&path.as_str()), "{path} is described but not there");
        for method in operations.as_object().expect("operations").keys() {
            let status = send(server.signed(&method.to_uppercase(), path)).await.status;
            assert_ne!(status, 404, "{method} {path} is described but not served");
        }
    }
}
