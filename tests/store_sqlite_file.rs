//! What is special about a store in a SQLite file: its place, its owner, what else may be found
//! there, and when its numbering begins anew. What all engines promise is in `store_contract`.

use std::path::Path;
use std::sync::Arc;

use channelstream::domain::position::{Epoch, Position};
use channelstream::store::{self, Batch, Start, Store, StoreError, StoreOptions, Synchronous};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Executor};
use uuid::Uuid;

fn url(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

async fn open(path: &Path) -> Result<(Arc<dyn Store>, Start), StoreError> {
    store::open(&url(path), &StoreOptions::default()).await
}

/// Why a store cannot be used.
async fn refusal(path: &Path) -> String {
    match open(path).await {
        Ok(_) => panic!("{} opens", path.display()),
        Err(StoreError::Unusable(sentence)) => sentence,
        Err(error) => panic!("{error:?}"),
    }
}

async fn execute(path: &Path, sql: &'static str) {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap().execute(sql).await.unwrap();
}

#[tokio::test]
async fn a_file_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let (first, start) = open(&path).await.unwrap();
    let sentence = refusal(&path).await;
    assert!(sentence.contains("store.db") && sentence.contains("another server"), "{sentence}");
    assert_eq!(first.totals().await.unwrap().channels, 0, "the owner does not notice");
    drop(first);
    assert_eq!(open(&path).await.unwrap().1, start);
}

#[tokio::test]
async fn a_link_to_a_file_is_that_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("store.db"), folder.path().join("link.db"));
    let owner = open(&path).await.unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    refusal(&link).await;
    drop(owner);
    open(&link).await.unwrap();
}

/// Also by several links, before there is a file, and from the other side.
#[tokio::test]
async fn all_links_lead_to_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let [path, link, other] = ["store.db", "link.db", "folder/other.db"].map(|name| folder.path().join(name));
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    std::os::unix::fs::symlink("store.db", &link).unwrap();
    std::os::unix::fs::symlink("../link.db", &other).unwrap();
    let (owner, start) = open(&other).await.unwrap();
    assert!(path.exists());
    for path in [&path, &link, &other, &folder.path().join("folder/../link.db")] {
        let sentence = refusal(path).await;
        assert!(sentence.contains("another server"), "{sentence}");
    }
    drop(owner);
    assert_eq!(open(&path).await.unwrap().1, start);
}

#[tokio::test]
async fn what_users_say_is_for_nobody_else_on_the_machine() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder.path().join("store.db")).await.unwrap();
    store.totals().await.unwrap();
    for file in ["store.db", "store.db-wal", "store.db-shm"] {
        let mode = std::fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_is_not_owned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    std::fs::write(&path, "this is no database".repeat(1000)).unwrap();
    refusal(&path).await;
    std::fs::remove_file(&path).unwrap();
    open(&path).await.unwrap();
}

#[tokio::test]
async fn odd_file_names_are_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it's 100%25 ż.db");
    drop(open(&path).await.unwrap());
    assert!(folder.path().join("it's 100% ż.db").exists(), "a URL is percent-encoded");
}

#[tokio::test]
async fn what_is_no_store_is_unusable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let (store, _) = open(&path).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let corrupt = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
    };
    corrupt(&|bytes| bytes[..16].fill(b'x'));
    assert!(refusal(&path).await.contains("store.db"));
    corrupt(&|bytes| bytes[100..].fill(0xa5));
    refusal(&path).await;
    corrupt(&|bytes| bytes.truncate(4096));
    refusal(&path).await;
    corrupt(&|_| {});
    open(&path).await.unwrap();
}

#[tokio::test]
async fn places_that_cannot_be_are_named() {
    let folder = tempfile::tempdir().unwrap();
    assert!(refusal(&folder.path().join("missing/store.db")).await.contains("missing/store.db"));
    std::fs::create_dir(folder.path().join("folder.db")).unwrap();
    assert!(refusal(&folder.path().join("folder.db")).await.contains("folder.db"));
    for url in ["", "store.db", "mysql://localhost/store", "sqlite://store.db?mode=wrong"] {
        let error = store::open(url, &StoreOptions::default()).await.err();
        assert!(matches!(error, Some(StoreError::Unusable(_))), "{url:?}: {error:?}");
    }
}

/// What is not in a file of its own is gone when the server stops.
#[tokio::test]
async fn a_store_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let in_memory = format!("{}?mode=memory", url(&folder.path().join("store.db")));
    for url in [
        in_memory.as_str(),
        "sqlite::memory:",
        "sqlite://:memory:",
        "sqlite::memory:?cache=shared",
        "sqlite://?mode=memory",
        "sqlite:?mode=rwc",
        "sqlite:file:store.db?mode=memory",
        "sqlite://file::memory:?cache=shared",
        "sqlite:",
        "sqlite://",
    ] {
        let error = store::open(url, &StoreOptions::default()).await.err();
        assert!(matches!(error, Some(StoreError::Unusable(_))), "{url:?}: {error:?}");
    }
    assert!(!folder.path().join("store.db").exists(), "not even begun");
}

#[tokio::test]
async fn tables_of_a_newer_release_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    drop(open(&path).await.unwrap());
    execute(
        &path,
        "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
         VALUES (1000, 'later', '2030-01-01T00:00:00Z', '1')",
    )
    .await;
    let sentence = refusal(&path).await;
    assert!(sentence.contains("newer release"), "{sentence}");
    execute(&path, "DELETE FROM refinery_schema_history WHERE version = 1000").await;
    open(&path).await.unwrap();
}

#[tokio::test]
async fn tables_of_another_application_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    options.connect().await.unwrap().execute("CREATE TABLE users (id INTEGER)").await.unwrap();
    refusal(&path).await;
}

/// Opens, leaves in good order or not, and opens again; the two epochs.
async fn epochs(first: Synchronous, good_end: bool, second: Synchronous) -> (Epoch, Epoch) {
    let folder = tempfile::tempdir().unwrap();
    let url = url(&folder.path().join("store.db"));
    let (store, before) = store::open(&url, &first.into()).await.unwrap();
    if good_end {
        store.close().await.unwrap();
    }
    drop(store);
    let (_, after) = store::open(&url, &second.into()).await.unwrap();
    (before.epoch, after.epoch)
}

#[tokio::test]
async fn an_epoch_ends_where_commits_may_be_lost() {
    use Synchronous::{Full, Normal};
    for (first, good_end, second, goes_on) in [
        (Full, true, Full, true),
        (Full, false, Full, true),
        (Full, false, Normal, true),
        (Full, true, Normal, true),
        (Normal, true, Normal, true),
        (Normal, true, Full, true),
        (Normal, false, Full, false),
        (Normal, false, Normal, false),
    ] {
        let (before, after) = epochs(first, good_end, second).await;
        assert_eq!(before == after, goes_on, "{first:?}, good end: {good_end}, then {second:?}");
    }
}

/// Whoever is careful from now on has not been so before, and the other way round: what counts is
/// how the last commits were made.
#[tokio::test]
async fn a_doubt_lasts_until_the_next_start() {
    use Synchronous::{Full, Normal};
    let folder = tempfile::tempdir().unwrap();
    let url = url(&folder.path().join("store.db"));
    let mut epochs = Vec::new();
    // None of these runs ends well.
    for synchronous in [Normal, Full, Full, Normal, Normal] {
        epochs.push(store::open(&url, &synchronous.into()).await.unwrap().1.epoch);
    }
    let goes_on: Vec<bool> = epochs.windows(2).map(|pair| pair[0] == pair[1]).collect();
    assert_eq!(goes_on, [false, true, true, false]);
}

#[tokio::test]
async fn numbering_goes_on_in_a_new_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let url = url(&folder.path().join("store.db"));
    let (store, _) = store::open(&url, &Synchronous::Normal.into()).await.unwrap();
    let batch = Batch {
        id: Uuid::new_v4(),
        before: Position(0),
        head: Position(7),
        at: Default::default(),
        events: Vec::new(),
    };
    store.commit(&batch).await.unwrap();
    drop(store);
    let (_, start) = store::open(&url, &Synchronous::Normal.into()).await.unwrap();
    assert_eq!(start.head, Position(7));
}

#[tokio::test]
async fn a_closed_store_answers_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder.path().join("store.db")).await.unwrap();
    store.close().await.unwrap();
    assert!(matches!(store.totals().await, Err(StoreError::Unavailable(_))));
}
