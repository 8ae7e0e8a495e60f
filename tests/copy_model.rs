//! A store that was copied is the same store: random ones, from one engine to the other and back,
//! compared with the model and, for what the model does not know, cell by cell.

#![allow(dead_code, unused_imports)] // of the ground for `store_contract` this uses a part

#[path = "support/store/mod.rs"]
mod store;

use channelstream::copy::copy;
use expect_test::expect;
use store::{Db, Engine, Postgres, Sqlite, history_size, random};

async fn copied(from: &str, to: &str) {
    let copied = copy(from, to, |_| {}).await;
    copied.unwrap_or_else(|error| panic!("{error}"));
}

/// Every cell of a SQLite file, table by table and row by row, but for what says where the log
/// stands and whose it is.
async fn cells(engine: &dyn Engine) -> Vec<String> {
    let selects = r#"SELECT 'SELECT ''' || t.name || '''' || group_concat(' || '' ' || c.name || ' '' || coalesce('
                         || 'iif(typeof("' || c.name || '") = ''blob'', hex("' || c.name || '"), '
                         || 'CAST("' || c.name || '" AS TEXT)), ''none'')', '') || ' FROM "' || t.name || '"'
                     FROM sqlite_schema AS t JOIN pragma_table_xinfo(t.name) AS c
                     WHERE t.type = 'table'
                       AND t.name NOT IN ('meta', 'epochs', 'refinery_schema_history', 'sqlite_sequence')
                     GROUP BY t.name"#;
    let mut cells = Vec::new();
    for select in engine.rows(selects).await {
        cells.extend(engine.rows(&select).await);
    }
    assert!(cells.iter().any(|row| row.starts_with("channels id 1 name ")), "{cells:?}");
    cells.sort_unstable();
    cells
}

async fn epochs(engine: &dyn Engine) -> Vec<String> {
    engine.rows("SELECT number || ' ' || id || ' ' || after FROM epochs ORDER BY number").await
}

async fn moved(db: &mut Db, engine: impl Engine + 'static) -> Result<(), String> {
    let before = epochs(db.engine()).await;
    db.move_to(engine, copied).await;
    let epochs = epochs(db.engine()).await;
    let (new, old) = epochs.split_last().expect("an epoch");
    assert_eq!(old, before, "epochs stay");
    let number = epochs.len();
    assert_eq!(*new, format!("{number} {} {}", db.start.epoch.as_str(), db.world.head.0), "and a new one begins");
    db.compare_all().await.map_err(|difference| format!("after the copy, the store {difference}"))
}

/// New channels and users have got ids of their own, and the log goes on.
async fn life_goes_on(db: &mut Db, number: u128) -> Result<(), String> {
    let (channel, user) = (format!("channel {number}"), format!("user {number}"));
    db.channel(&channel, history_size(3)).user(&user, "{}", &[]).commit().await;
    db.connect(1_000 + number, &user).subscribe(1_000 + number, &channel).posts(&channel, [number]).commit().await;
    db.compare_all().await.map_err(|difference| format!("after life went on, the store {difference}"))
}

#[test]
fn a_copy_is_the_same_store() {
    random::run_then(6, Sqlite::new, async |db| {
        life_goes_on(db, 901).await?;
        let before = cells(db.engine()).await;
        moved(db, Postgres::new()).await?;
        moved(db, Postgres::new()).await?;
        moved(db, Sqlite::new()).await?;
        assert_eq!(cells(db.engine()).await, before);

        life_goes_on(db, 902).await?;
        let before = cells(db.engine()).await;
        moved(db, Sqlite::new()).await?;
        assert_eq!(cells(db.engine()).await, before);
        life_goes_on(db, 903).await?;
        moved(db, Postgres::new()).await?;
        life_goes_on(db, 904).await
    });
}

/// Whoever changes the layout finds here that a copy has to know of it, and says so below when it does.
#[tokio::test]
async fn a_copy_knows_the_whole_layout() {
    let db = Db::fresh(Sqlite::new()).await;
    let layout = "SELECT t.name || ': ' || group_concat(c.name, ' ')
                  FROM sqlite_schema AS t JOIN pragma_table_xinfo(t.name) AS c
                  WHERE t.type = 'table' AND t.name NOT IN ('refinery_schema_history', 'sqlite_sequence')
                  GROUP BY t.name ORDER BY t.name";
    let layout = db.engine().rows(layout).await.join("\n");
    expect![[r#"
        channels: id name uuid notify_presence store_history history_size broadcast_presence_with_user_lists notify_state store_frames replay_size history_ttl last_active trimmed deleted
        connections: id user opened head
        epochs: number id after
        forgotten_users: name trimmed
        inbox: user position
        log: position channel kind uuid about edit sender timestamp edited audience body committed
        memberships: user channel floor left
        meta: id head last_batch clean
        subscriptions: connection channel
        users: id name uuid state public_keys created last_active trimmed"#]].assert_eq(&layout);
}
