//! A configuration as a whole: where its texts come from, what they mean, how mistakes read.

use proptest::prelude::*;

use super::*;

fn load(ini: &str, environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let mut written = Written::default();
    file::read_text("config.ini", ini, &mut written)?;
    let environment = environment.iter();
    Config::load_over(written, environment.map(|(name, text)| (name.to_string(), text.to_string())))
}

/// Loads one line under `[channelstream]`, which makes it line 2.
fn config(line: &str) -> Config {
    load(&format!("[channelstream]\n{line}"), &[]).unwrap().config
}

fn error(line: &str) -> String {
    load(&format!("[channelstream]\n{line}"), &[]).unwrap_err().to_string()
}

fn made(overrides: &[(&str, &str)]) -> Result<String, ConfigError> {
    let overrides = overrides.iter();
    make_config(&overrides.map(|(name, text)| (name.to_string(), text.to_string())).collect())
}

#[test]
fn the_example_file_is_what_make_config_writes() {
    assert_eq!(made(&[]).unwrap(), include_str!("../../config.ini"));
}

#[test]
fn the_example_file_loads_as_the_defaults() {
    assert_eq!(load(&made(&[]).unwrap(), &[]).unwrap().config, Config::default());
    assert_eq!(config(""), Config::default());
}

#[test]
fn every_setting_of_the_table_is_read() {
    for key in KEYS {
        let mut written = Written::default();
        written.set(key.name, "\u{1}", Source::Override).unwrap();
        let error = Config::check(&written).unwrap_err().to_string();
        assert!(error.starts_with(&format!("make-config: `{}` ", key.name)), "{error}");
    }
}

#[test]
fn defaults_mean_what_they_should() {
    let config = Config::default();
    assert_eq!((config.host.as_str(), config.port), ("0.0.0.0", 8000));
    assert!(config.secret.matches("secret") && config.admin_secret.matches("admin_secret"));
    assert!(config.allow_posting_from.allows([127, 0, 0, 1].into()));
    assert!(!config.allow_posting_from.allows([127, 0, 0, 2].into()));
    assert!(config.allow_cors.allows(None));
    assert_eq!((config.cookie_secret, config.http_scheme, config.metrics_token), (None, None, None));
    assert_eq!((config.validate_requests, config.enforce_https, config.debug), (true, false, false));
    assert_eq!((config.log_level, config.log_format), (Level::INFO, LogFormat::Text));
    assert_eq!(config.database_url.as_str(), "sqlite://channelstream.db");
    assert_eq!(config.sqlite_synchronous, SqliteSynchronous::Full);
    assert_eq!(config.gc_conns_after, Duration::from_secs(15));
    assert_eq!(config.resume_window, Duration::from_secs(86_400));
    assert_eq!(config.forget_users_after, Some(Duration::from_secs(30 * 86_400)));
    assert_eq!(config.heartbeat_interval, Duration::from_secs(5));
    assert_eq!(config.commit_timeout, Duration::from_secs(2));
    assert_eq!(config.request_timeout, Duration::from_secs(10));
    assert_eq!(config.drain_seconds, Duration::from_secs(10));
    assert_eq!(config.max_body_bytes, 8 << 20);
    assert_eq!(config.max_queue_bytes, 1 << 20);
    assert_eq!(config.tail_memory, 256 << 20);
    assert_eq!((config.max_connections, config.attach_rate), (None, Some(20)));
}

#[test]
fn a_file_of_the_python_server_loads_unchanged() {
    let ini = "\
[channelstream]
admin_user = root
# comment
admin_secret = a#b;c
# another
# and another
cookie_secret = 
secret = s=cr:t
port = 8123
allow_posting_from = 127.0.0.1,
                 10.0.0.7
                 
log_level = WARNING
# comment
enforce_https = False
http_scheme = https

# comment
signature_checker = some.python.Class
[handlers]
level = NOTSET
";
    let Loaded { config, warnings } = load(ini, &[]).unwrap();
    assert_eq!((config.admin_user.as_str(), config.port), ("root", 8123));
    assert_eq!((config.admin_secret.expose(), config.secret.expose()), ("a#b;c", "s=cr:t"));
    assert_eq!(config.cookie_secret, None);
    assert!(config.allow_posting_from.allows([10, 0, 0, 7].into()));
    assert_eq!((config.log_level, config.http_scheme), (Level::WARN, Some(Scheme::Https)));
    let sentence = "config.ini:19: `signature_checker` has no meaning in this server and is ignored";
    assert_eq!(warnings, [sentence]);
}

#[test]
fn the_environment_wins_over_the_file() {
    let environment = [
        ("CHANNELSTREAM_PORT", "81"),
        ("CHANNELSTREAM_INI", "x.ini"),
        ("CHANNELSTREAM_ALLOW_CORS", ""),
        ("PORT", "82"),
    ];
    let ini = "[channelstream]\nport = 80\nallow_cors = example.com\nhost = ::1";
    let config = load(ini, &environment).unwrap().config;
    assert_eq!((config.port, config.host.as_str()), (81, "::1"));
    assert!(config.allow_cors.allows(None));
}

#[test]
fn without_a_file_the_environment_is_enough() {
    let environment = [("CHANNELSTREAM_SECRET".to_owned(), " 50%% ".to_owned())];
    let config = Config::load(None, environment.into_iter()).unwrap().config;
    assert_eq!(config.secret.expose(), "50%%");
}

#[test]
fn mistakes_in_the_environment_name_the_variable() {
    let error = |name, text| load("[channelstream]", &[(name, text)]).unwrap_err().to_string();
    assert_eq!(
        error("CHANNELSTREAM_PORT", "80x"),
        "environment variable `CHANNELSTREAM_PORT` is \"80x\", \
         which is not a whole number from 0 to 65535"
    );
    assert_eq!(
        error("CHANNELSTREAM_PROT", "80"),
        "environment variable `CHANNELSTREAM_PROT` is not a setting of this server; \
         did you mean `CHANNELSTREAM_PORT`?"
    );
    assert_eq!(
        error("CHANNELSTREAM_SECRET", ""),
        "environment variable `CHANNELSTREAM_SECRET` is empty; give it a value or leave it out"
    );
    assert!(error("CHANNELSTREAM_SERVICE_HOST", "10.0.0.1").contains("enableServiceLinks"));
}

#[test]
fn mistakes_in_the_file_name_the_line() {
    assert_eq!(error("port = 80x"), "config.ini:2: `port` is \"80x\", which is not a whole number from 0 to 65535");
    assert_eq!(
        error("# comment\n\nprot = 80"),
        "config.ini:4: `prot` is not a setting of this server; did you mean `port`?"
    );
    assert_eq!(
        error("colour = red"),
        "config.ini:2: `colour` is not a setting of this server; \
         `channelstream make-config` shows all there are"
    );
    assert_eq!(
        error("allow_posting_from = 127.0.0.1,\n localhost"),
        "config.ini:2: `allow_posting_from` lists \"localhost\", \
         which is not an IP address or a network such as 10.0.0.0/8"
    );
    assert_eq!(
        error("host = a\n  port = 80"),
        "config.ini:2: `host` goes on in the next line; \
         begin that line without blanks if it is another key"
    );
    assert_eq!(error("port ="), "config.ini:2: `port` is empty; give it a value or leave it out");
    assert!(error("allow_posting_from = ,").contains("is empty"));
    assert!(error("http_scheme = ftp").ends_with("is \"ftp\", which is not `http` or `https`"));
    assert!(error("heartbeat_interval = 0.5").ends_with("a number of seconds from 1 to 3600"));
}

#[test]
fn errors_do_not_show_secrets() {
    let long = "hunter2".repeat(200);
    let lines = [
        format!("secret = {long}"),
        format!("admin_secret = {long}"),
        format!("cookie_secret = {long}"),
        "metrics_token = hunter2 hunter2".to_owned(),
        "database_url = mysql://me:hunter2@host/db".to_owned(),
        "secret = %(hunter2".to_owned(),
        "secret = abc\nhunter2".to_owned(),
        "secret = abc\n hunter2".to_owned(),
    ];
    for line in lines {
        assert!(!error(&line).contains("hunter2"), "{}", error(&line));
    }
}

#[test]
fn debug_output_shows_no_secret() {
    let ini = "secret = hunter2\nadmin_secret = hunter2\ncookie_secret = hunter2\n\
               metrics_token = hunter2\ndatabase_url = postgres://me:hunter2@host/db";
    let shown = format!("{:?}", config(ini));
    assert!(!shown.contains("hunter2") && shown.contains("postgres://host/db"), "{shown}");
}

#[test]
fn percent_signs_are_read_as_python_does() {
    assert_eq!(config("secret = 50%%off").secret.expose(), "50%off");
    assert_eq!(config("secret = %%(x)").secret.expose(), "%(x)");
    assert_eq!(config("secret = p%40ss%").secret.expose(), "p%40ss%");
    assert!(error("secret = %(port)s").starts_with("config.ini:2: `secret` contains `%(`"));
}

#[test]
fn zero_stands_for_no_limit() {
    let config = config("max_connections = 0\nattach_rate = 0\nforget_users_after = 0");
    assert_eq!((config.max_connections, config.attach_rate, config.forget_users_after), (None, None, None));
}

#[test]
fn debug_lowers_the_log_level() {
    assert_eq!(config("debug = on").log_level, Level::DEBUG);
    assert_eq!(config("debug = on\nlog_level = trace").log_level, Level::TRACE);
}

#[test]
fn default_secrets_are_warned_of() {
    let warnings = |ini| load(ini, &[]).unwrap().warnings;
    assert_eq!(warnings("[channelstream]").len(), 2);
    assert_eq!(warnings("[channelstream]\nsecret = other").len(), 1);
    assert_eq!(warnings("[channelstream]\nsecret = a\nadmin_secret = b").len(), 0);
}

#[test]
fn make_config_writes_what_it_is_given() {
    let text = made(&[("port", "81"), ("secret", "50%(x)#;="), ("allow_posting_from", "127.0.0.1,\n10.0.0.0/8")]);
    let text = text.unwrap();
    assert!(text.contains("\nport = 81\n") && text.contains("\nsecret = 50%%(x)#;=\n"), "{text}");
    let config = load(&text, &[]).unwrap().config;
    assert_eq!(config.secret.expose(), "50%(x)#;=");
    assert!(config.allow_posting_from.allows([10, 0, 0, 1].into()));
}

#[test]
fn make_config_refuses_what_would_not_load() {
    let error = |name, text| made(&[(name, text)]).unwrap_err().to_string();
    assert!(error("port", "x").starts_with("make-config: `port` is \"x\", which is not"));
    assert!(error("prot", "80").ends_with("did you mean `port`?"));
    assert!(error("secret", "a\nport = 1").starts_with("make-config: `secret` goes on"));
    assert!(error("allow_cors", "a.test\n[::1]").contains("may not go on with `[`"));
}

#[test]
fn the_reference_has_every_setting() {
    let text = reference();
    assert!(KEYS.iter().all(|key| text.contains(&format!("### `{}`\n", key.name))));
    assert!(text.contains("Default: `8 MiB`. Takes a size from 1 KiB to 1 GiB"), "{text}");
}

proptest! {
    #[test]
    fn no_environment_panics(name in "[A-Z_]{0,8}", key in 0..KEYS.len(), text in any::<String>()) {
        let known = written::variable(KEYS[key].name);
        for variable in [format!("CHANNELSTREAM_{name}"), known] {
            let _ = load("[channelstream]", &[(&variable, &text)]);
        }
    }

    #[test]
    fn what_make_config_writes_loads_as_it_was_meant(
        secret in "\\PC{1,20}", user in any::<String>(), port in any::<u16>(),
        half_seconds in 2..100_u32, kib in 1..2000_u32, list in "[a-z.,: \n]{0,20}",
    ) {
        let seconds = (f64::from(half_seconds) / 2.0).to_string();
        let (port, kib) = (port.to_string(), format!("{kib} KiB"));
        let overrides = [
            ("secret", secret.as_str()), ("admin_user", &user), ("port", &port),
            ("allow_cors", &list),
            ("heartbeat_interval", &seconds), ("max_queue_bytes", &kib),
        ];
        // An override that is refused must not keep the others from being tried.
        let overrides: Vec<_> = overrides.into_iter().filter(|one| made(&[*one]).is_ok()).collect();
        let mut meant = Written::default();
        for (name, text) in &overrides {
            meant.set(name, text, Source::Override).unwrap();
        }
        let loaded = load(&made(&overrides).unwrap(), &[]).unwrap();
        prop_assert_eq!(loaded.config, Config::check(&meant).unwrap());
        prop_assert!(overrides.len() >= 3);
    }
}
