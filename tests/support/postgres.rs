//! A throw-away Postgres server for tests: made when the first test asks, gone when the test program
//! ends, however it ends.

#![allow(dead_code)] // each test file is a crate of its own and uses its part of this

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tempfile::TempDir;

/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server of its own, which a test may stop and start.
pub struct PostgresServer {
    folder: TempDir,
    port: u16,
    keeper: Option<Child>,
    databases: AtomicU32,
}

/// The server that the tests of a program share.
pub fn shared() -> &'static PostgresServer {
    static SHARED: OnceLock<PostgresServer> = OnceLock::new();
    SHARED.get_or_init(PostgresServer::start)
}

/// The folder of the server's programs: that of the newest release.
fn programs() -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let release = |folder: &PathBuf| folder.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let mut found: Vec<PathBuf> = debian.filter(|folder| release(folder).is_some()).collect();
    found.sort_by_key(release);
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let found = found.pop().map(|folder| folder.join("bin")).into_iter().chain(std::env::split_paths(&in_path));
    let mut found = found.filter(|folder| folder.join("initdb").exists());
    found.next().expect("Postgres is installed: its package is called postgresql")
}

/// User and group to run it as, if we are root, as whom it refuses to run.
fn servant() -> Option<(u32, u32)> {
    let root = Command::new("id").arg("-u").output().expect("id").stdout == b"0\n";
    root.then(|| {
        let accounts = std::fs::read_to_string("/etc/passwd").expect("accounts");
        let account = accounts.lines().find(|line| line.starts_with("postgres:")).expect("an account `postgres`");
        let mut fields = account.split(':').skip(2).map(|field| field.parse().expect("a number"));
        (fields.next().expect("a user"), fields.next().expect("a group"))
    })
}

fn as_servant(command: &mut Command) -> &mut Command {
    if let Some((user, group)) = servant() {
        command.uid(user).gid(group);
    }
    command
}

impl PostgresServer {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        if let Some((user, group)) = servant() {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group)).expect("a folder that is given away");
        }
        let mut initdb = Command::new(programs().join("initdb"));
        initdb.args(["--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "-D"]);
        let made = as_servant(initdb.arg(folder.path().join("data"))).current_dir("/").output().expect("initdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let mut server = Self { folder, port, keeper: None, databases: AtomicU32::new(0) };
        server.start_again();
        server
    }

    /// Starts it, and with it a shell that ends it as soon as this program is no more.
    pub fn start_again(&mut self) {
        const KEEP: &str = r#""$0" "$@" & server=$!; cat >/dev/null; kill -QUIT $server; wait; rm -rf "$FOLDER""#;
        assert!(self.keeper.is_none(), "it runs");
        let log =
            std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).expect("a log");
        let mut keeper = Command::new("sh");
        keeper.arg("-c").arg(KEEP).arg(programs().join("postgres")).arg("-D").arg(self.folder.path().join("data"));
        keeper.args([
            "-F",
            "-c",
            "full_page_writes=off",
            "-c",
            "max_wal_size=96MB",
            "-c",
            "max_connections=300",
            "-c",
            "listen_addresses=127.0.0.1",
        ]);
        keeper.arg("-p").arg(self.port.to_string()).arg("-k").arg(self.folder.path());
        keeper.env("FOLDER", self.folder.path()).current_dir("/");
        keeper.stdin(Stdio::piped()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.keeper = Some(as_servant(&mut keeper).spawn().expect("a server"));
        let started = Instant::now();
        while !self.is_ready() {
            assert!(started.elapsed() < PATIENCE, "the server does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// It takes connections, or says that it could.
    fn is_ready(&self) -> bool {
        let mut ask = Command::new(programs().join("pg_isready"));
        ask.arg("-q").arg("-h").arg(self.folder.path()).arg("-p").arg(self.port.to_string());
        ask.status().expect("pg_isready").success()
    }

    /// Stops it as a crash would: no session ends in good order.
    pub fn stop_at_once(&mut self) {
        let file = self.folder.path().join("data/postmaster.pid");
        let text = std::fs::read_to_string(&file).expect("a server that runs");
        let pid = text.lines().next().expect("its number").to_owned();
        let mut keeper = self.keeper.take().expect("a server that runs");
        // Not with what it holds.
        assert!(Command::new("kill").args(["-QUIT", &pid]).status().expect("kill").success());
        let started = Instant::now();
        while file.exists() && Path::new("/proc").join(&pid).exists() {
            assert!(started.elapsed() < PATIENCE, "the server does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = keeper.kill();
        let _ = keeper.wait();
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where a database of it is.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes a new, empty database and says where it is.
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut createdb = Command::new(programs().join("createdb"));
        createdb.arg("-h").arg(self.folder.path()).arg("-p").arg(self.port.to_string());
        let made = createdb.args(["-U", "postgres", &name]).output().expect("createdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        self.url(&name)
    }

    /// Drops a database that [`Self::database`] made, whoever still looks into it.
    pub fn forget(&self, url: &str) {
        let (_, name) = url.rsplit_once('/').expect("a URL with a database");
        let mut dropdb = Command::new(programs().join("dropdb"));
        dropdb.arg("-h").arg(self.folder.path()).arg("-p").arg(self.port.to_string());
        let _ = dropdb.args(["-U", "postgres", "--force", name]).stderr(Stdio::null()).status();
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

/// A connection to look into a database with.
pub async fn connect(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().expect("a URL");
    options.disable_statement_logging().connect().await.expect("a connection")
}
