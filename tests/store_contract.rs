//! What every engine of the store promises, in the same tests for all of them. After each test all
//! that can be read is compared with a naive model, at once, after a good end and after a crash: a
//! test itself only spells out what it is about.
//!
//! In the expectations `#3~5` is a message logged at position 3 whose latest edit stands at 5,
//! `m1` a message's uuid, `was #3` where a deleted message was logged, `i1001` the identity of a channel or user, `@2` the moment of the second
//! batch.

#[path = "support/store/mod.rs"]
mod store;

use std::time::{Duration, Instant};

use channelstream::domain::event::Event;
use channelstream::domain::message::{Audience, Edit, Message};
use channelstream::domain::position::Position;
use channelstream::domain::replay::{Doubt, GapReason};
use channelstream::domain::settings::ChannelSettings;
use channelstream::domain::tail::Place;
use channelstream::store::{HistoryQuery, StoreError};
use expect_test::expect;
use hashbrown::HashSet;

use store::{
    Db, PRIVATE, Postgres, Sqlite, channel, clock, edit, history_size, message, only, private, random, time, user, uuid,
};

/// The contract for one engine. A test that is missing in this list is dead code, and the
/// compiler says so.
macro_rules! contract {
    ($engine:ident, $fresh:expr, $cases:expr) => {
        contract!($engine, $fresh, $cases,
            a_fresh_store_is_empty
            an_opened_store_goes_on_where_it_was

            channel_settings_come_back
            a_changed_channel_keeps_its_identity_and_history
            names_that_do_not_exist_are_left_out
            bare_channels_lack_their_histories_and_nothing_else
            channel_names_come_page_by_page_in_order_of_creation
            a_channel_is_active_when_something_happens_in_it

            state_comes_back_to_the_letter
            a_changed_user_keeps_its_identity
            a_user_is_active_when_it_changes_comes_or_goes
            idle_users_are_those_without_connections
            a_forgotten_user_leaves_nothing_behind
            what_a_forgotten_user_shared_stays_with_the_others
            a_name_that_is_used_again_knows_how_far_its_inbox_went
            a_user_is_forgotten_with_its_connections
            a_forgotten_channel_leaves_its_name_behind
            a_channel_of_a_forgotten_name_is_another_one

            history_is_the_newest_messages_oldest_first
            a_larger_history_shows_older_messages_again
            messages_come_back_to_the_letter
            moments_are_kept_to_the_microsecond
            large_batches_and_bodies_are_kept
            a_history_of_very_large_messages_is_shorter
            one_uuid_is_another_message_elsewhere
            what_is_not_logged_leaves_nothing_behind
            a_page_of_history_is_bounded_in_bytes
            a_page_of_history_ends_where_it_is_told_to
            a_page_of_history_leaves_out_what_is_past_its_time

            an_edit_replaces_the_content
            an_edit_changes_only_what_it_names
            of_several_edits_only_the_last_is_logged
            two_edits_in_one_batch
            a_deletion_takes_the_message_and_its_edit
            a_deleted_body_is_in_no_table
            a_deletion_of_a_deletion_takes_its_place
            a_deletion_keeps_whom_it_is_for
            two_deletions_in_one_batch
            a_deletion_of_the_unknown_is_logged

            a_private_message_is_one_entry_in_several_inboxes
            private_messages_are_edited_and_deleted_everywhere
            two_deletions_of_a_private_message_in_one_batch
            a_trimmed_inbox_keeps_the_newest
            a_trimmed_inbox_keeps_the_newest_deletions
            what_no_inbox_holds_is_gone

            a_trimmed_channel_keeps_the_newest_and_what_happened_since
            a_trimmed_channel_keeps_the_newest_deletions
            channels_that_are_trimmed_together_keep_as_much_as_each_should
            trimming_counts_the_edits_of_what_goes
            trimming_does_not_change_when_a_channel_was_active
            trimming_comes_after_the_messages_of_its_batch
            an_edit_of_what_is_trimmed_in_the_same_batch
            an_edit_of_what_leaves_an_inbox_in_the_same_batch
            a_channel_may_keep_nothing

            a_tail_is_the_newest_entries_up_to_a_position
            a_tail_has_bodies_of_no_more_than_so_many_bytes
            edits_and_deletions_are_in_tails
            several_tails_share_one_reading

            connections_and_subscriptions_come_and_go
            a_connection_opened_again_keeps_its_channels
            a_connection_and_all_it_needs_come_in_one_batch
            a_floor_that_is_set_wins_over_one_that_is_held
            a_time_is_the_newest_entry_that_was_committed_by_then

            a_batch_on_another_head_changes_nothing
            readers_see_whole_batches
            the_last_batch_is_found_and_an_unknown_one_is_not
            a_refused_batch_leaves_nothing_behind
            a_commit_that_was_given_up_is_settled_for_good
            hostile_names_come_back
            names_that_differ_in_anything_are_different
        );
    };
    ($engine:ident, $fresh:expr, $cases:expr, $($test:ident)+) => {
        mod $engine {
            use super::*;

            $(
                #[tokio::test]
                async fn $test() {
                    let mut db = Db::fresh($fresh).await;
                    super::$test(&mut db).await;
                    db.comes_back().await;
                }
            )+

            #[test]
            fn random_batches() {
                random::run($cases, || $fresh);
            }
        }
    };
}

// A new database takes longer where it is a server's.
contract!(sqlite, Sqlite::new(), 30);
contract!(postgres, Postgres::new(), 15);

// ---- Start ----

async fn a_fresh_store_is_empty(db: &mut Db) {
    assert_eq!((db.start.head, db.start.latest), (Position(0), Default::default()));
    assert!(!db.start.epoch.as_str().is_empty());
}

async fn an_opened_store_goes_on_where_it_was(db: &mut Db) {
    let epoch = db.start.epoch.clone();
    db.channel("news", history_size(10)).commit().await;
    db.posts("news", 1..=2).commit().await;
    db.reopen().await;
    assert_eq!((&db.start.epoch, db.start.head, db.start.latest), (&epoch, Position(2), clock(2)));
    db.users(&["ann"]).commit().await;
    db.posts("news", 3..=3).commit().await;
    db.crash().await;
    assert_eq!((&db.start.epoch, db.start.head), (&epoch, Position(3)));
    assert_eq!(db.start.latest, clock(4), "of the newest entry");
    db.posts("news", 4..=4).commit().await;
    expect![[r#"
        holds 4
        #1 m1 @2 2010-01-01T01:01:00 ann: {}
        #2 m2 @2 2010-01-01T01:01:00 ann: {}
        #3 m3 @4 2010-01-01T01:01:00 ann: {}
        #4 m4 @5 2010-01-01T01:01:00 ann: {}
    "#]]
    .assert_eq(&db.read_history("news").await);
}

// ---- Channels ----

async fn channel_settings_come_back(db: &mut Db) {
    let default = ChannelSettings::default();
    let all = [
        default.clone(),
        ChannelSettings { notify_presence: true, ..default.clone() },
        ChannelSettings { store_history: true, ..default.clone() },
        ChannelSettings { broadcast_presence_with_user_lists: true, ..default.clone() },
        ChannelSettings { notify_state: true, ..default.clone() },
        ChannelSettings { store_frames: false, ..default.clone() },
        ChannelSettings { history_size: 0, replay_size: 0, history_ttl: Some(0), ..default.clone() },
        ChannelSettings { history_size: 100_000, replay_size: 99_999, history_ttl: Some(u32::MAX), ..default.clone() },
    ];
    let name = |number: usize| format!("channel {number}");
    for (number, settings) in all.iter().enumerate() {
        db.channel(&name(number), settings.clone());
    }
    db.commit().await;
    let names = (0..all.len()).map(|number| channel(&name(number))).collect();
    let channels = db.store().channels(&names).await.unwrap();
    for (number, settings) in all.iter().enumerate() {
        assert_eq!(channels[&channel(&name(number))].settings, *settings);
    }
    // From all to the opposite, and a limit that is taken away.
    for (number, settings) in all.iter().rev().enumerate() {
        db.channel(&name(number), settings.clone());
    }
    db.commit().await;
}

async fn a_changed_channel_keeps_its_identity_and_history(db: &mut Db) {
    db.channel("news", history_size(10)).channel("chat", history_size(10)).commit().await;
    db.posts("news", 1..=2).commit().await;
    let names = HashSet::from([channel("news")]);
    let before = db.store().channels(&names).await.unwrap();
    db.channel("news", ChannelSettings { notify_state: true, ..history_size(5) }).commit().await;
    let after = db.store().channels(&names).await.unwrap();
    assert_eq!(after[&channel("news")].uuid, before[&channel("news")].uuid);
    assert_eq!(after[&channel("news")].settings.history_size, 5);
    expect![[r#"
        holds 2
        #1 m1 @2 2010-01-01T01:01:00 ann: {}
        #2 m2 @2 2010-01-01T01:01:00 ann: {}
    "#]]
    .assert_eq(&db.read_history("news").await);
}

async fn names_that_do_not_exist_are_left_out(db: &mut Db) {
    db.channel("news", history_size(10)).users(&["ann"]).commit().await;
    let channels = db.store().channels(&["news", "chat"].map(channel).into()).await.unwrap();
    assert_eq!(channels.into_keys().collect::<Vec<_>>(), [channel("news")]);
    let users = db.store().users(&["bob", "ann"].map(user).into()).await.unwrap();
    assert_eq!(users.into_keys().collect::<Vec<_>>(), [user("ann")]);
    assert!(db.store().held(&HashSet::from([uuid(1)])).await.unwrap().is_empty());
    // Nothing asked for, nothing found.
    assert!(db.store().channels(&HashSet::new()).await.unwrap().is_empty());
    assert!(db.store().users(&HashSet::new()).await.unwrap().is_empty());
    assert!(db.store().held(&HashSet::new()).await.unwrap().is_empty());
}

async fn bare_channels_lack_their_histories_and_nothing_else(db: &mut Db) {
    db.channel("news", history_size(10)).channel("empty", history_size(10)).commit().await;
    db.posts("news", 1..=3).commit().await;
    let names = ["news", "empty", "nowhere"].map(channel).into();
    let (all, mut bare) = tokio::try_join!(db.store().channels(&names), db.store().bare_channels(&names)).unwrap();
    assert_eq!(all.len(), 2);
    for (name, channel) in all {
        let bare = bare.remove(&name).expect("the same channels");
        assert!(bare.history.is_empty());
        assert_eq!(
            (bare.uuid, &bare.settings, bare.last_active),
            (channel.uuid, &channel.settings, channel.last_active)
        );
        assert_eq!(bare.retained, channel.retained);
    }
    assert!(bare.is_empty());
    assert!(db.store().bare_channels(&HashSet::new()).await.unwrap().is_empty());
}

async fn channel_names_come_page_by_page_in_order_of_creation(db: &mut Db) {
    db.channel("c", history_size(1)).channel("a", history_size(1)).commit().await;
    db.channel("b", history_size(1)).commit().await;
    db.channel("a", history_size(2)).channel("d", history_size(2)).commit().await;
    let mut pages = Vec::new();
    let mut after = 0;
    loop {
        let page = db.store().channel_names(after, 3).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = *last;
        pages.push(page.iter().map(|(_, name)| name.to_string()).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec!["c", "a", "b"], vec!["d"]]);
    assert!(db.store().channel_names(0, 0).await.unwrap().is_empty());
}

async fn a_channel_is_active_when_something_happens_in_it(db: &mut Db) {
    db.channel("news", history_size(10)).channel("chat", history_size(10)).users(&["ann"]).commit().await;
    assert_eq!(db.channel_activity("news").await, "@1");
    db.connect(1, "ann").subscribe(1, "news").commit().await;
    assert_eq!(db.channel_activity("news").await, "@2");
    db.post(message("news", 1, "{}")).commit().await;
    assert_eq!(db.channel_activity("news").await, "@3");
    db.edit(edit("news", 1, "{}")).commit().await;
    assert_eq!(db.channel_activity("news").await, "@4");
    db.delete("news", 1).commit().await;
    assert_eq!(db.channel_activity("news").await, "@5");
    db.channel("news", history_size(11)).commit().await;
    assert_eq!(db.channel_activity("news").await, "@6");
    db.unsubscribe(1, "news").commit().await;
    assert_eq!(db.channel_activity("news").await, "@7");
    db.subscribe(1, "news").commit().await;
    db.end(1).commit().await;
    assert_eq!(db.channel_activity("news").await, "@9");
    assert_eq!(db.channel_activity("chat").await, "@1", "nothing happened in chat");
}

// ---- Users ----

async fn state_comes_back_to_the_letter(db: &mut Db) {
    db.user("none", "{}", &[]);
    db.user(
        "ann",
        r#"{"z":1.0,"a":1,"n":123456789012345678901234567890,"e":1E+2,"m":-0,"d":0.10,"t":"żó 😀 \" \\ \n \u0000","":null,"f":false,"y":true}"#,
        &["z", "", "a key it does not have", "\"\\\u{0}", "z"],
    );
    db.user("bob", r#"{"$serde_json::private::RawValue":"1","$serde_json::private::Number":"2"}"#, &["a"]);
    db.commit().await;
    expect![[r#"
        "ann" i1002 active @1 holds 0 {"z":1.0,"a":1,"n":123456789012345678901234567890,"e":1E+2,"m":-0,"d":0.10,"t":"żó 😀 \" \\ \n \u0000","":null,"f":false,"y":true} public ["z","","a key it does not have","\"\\\u0000","z"]
        "bob" i1003 active @1 holds 0 {"$serde_json::private::RawValue":"1","$serde_json::private::Number":"2"} public ["a"]
        "none" i1001 active @1 holds 0 {} public []
    "#]]
    .assert_eq(&db.read_users(&["none", "ann", "bob"]).await);
}

async fn a_changed_user_keeps_its_identity(db: &mut Db) {
    db.user("ann", r#"{"a":1,"b":2}"#, &["a"]).commit().await;
    db.user("ann", r#"{"a":3,"b":2,"c":"x"}"#, &[]).commit().await;
    expect![[r#"
        "ann" i1001 active @2 holds 0 {"a":3,"b":2,"c":"x"} public []
    "#]]
    .assert_eq(&db.read_users(&["ann"]).await);
}

async fn a_user_is_active_when_it_changes_comes_or_goes(db: &mut Db) {
    db.channel("news", history_size(10)).users(&["ann", "bob"]).commit().await;
    assert_eq!(db.user_activity("ann").await, "@1");
    db.user("ann", r#"{"a":1}"#, &[]).commit().await;
    assert_eq!(db.user_activity("ann").await, "@2");
    db.connect(1, "ann").connect(2, "ann").commit().await;
    assert_eq!(db.user_activity("ann").await, "@3");
    // Neither what a user subscribes to nor what is said to it counts.
    db.subscribe(1, "news").post(message("news", 1, "{}")).post(private(2, &["ann"], "{}")).commit().await;
    db.unsubscribe(1, "news").commit().await;
    assert_eq!(db.user_activity("ann").await, "@3");
    db.end(1).commit().await;
    assert_eq!(db.user_activity("ann").await, "@6");
    assert_eq!(db.user_activity("bob").await, "@1", "bob did nothing");
}

async fn idle_users_are_those_without_connections(db: &mut Db) {
    db.users(&["ann"]).commit().await;
    db.users(&["bob"]).commit().await;
    db.users(&["cat"]).commit().await;
    assert_eq!(db.idle_users(0, 10).await, [""; 0]);
    assert_eq!(db.idle_users(2, 10).await, ["ann", "bob"]);
    assert_eq!(db.idle_users(9, 2).await, ["ann", "bob"], "the longest idle come first");
    db.connect(1, "ann").connect(2, "bob").connect(3, "bob").commit().await;
    assert_eq!(db.idle_users(9, 10).await, ["cat"]);
    db.end(1).end(2).commit().await;
    assert_eq!(db.idle_users(9, 10).await, ["cat", "ann"], "bob has a connection left");
}

async fn a_forgotten_user_leaves_nothing_behind(db: &mut Db) {
    db.user("ann", r#"{"secret":"in the state"}"#, &[]).users(&["bob"]).commit().await;
    db.post(private(1, &["ann"], r#"{"text":"for ann"}"#)).post(private(2, &["ann"], "{}")).commit().await;
    db.edit(edit(PRIVATE, 1, r#"{"text":"still for ann"}"#)).delete(PRIVATE, 2).commit().await;
    db.forget("ann").commit().await;
    expect![[r#"
        "bob" i1002 active @1 holds 0 {} public []
    "#]]
    .assert_eq(&db.read_users(&["ann", "bob"]).await);
    assert_eq!(db.read_held(1..=2).await, "");
    assert_eq!(log(db).await, [""; 0], "neither the edit nor the deletion");
    assert_eq!(rows_with(db, "for ann").await, [""; 0]);
    assert_eq!(rows_with(db, "secret").await, [""; 0]);
    // Someone new under the same name is someone else.
    db.users(&["ann"]).commit().await;
    expect![[r#"
        "ann" i1003 active @5 holds 0 {} public []
    "#]]
    .assert_eq(&db.read_users(&["ann"]).await);
}

async fn what_a_forgotten_user_shared_stays_with_the_others(db: &mut Db) {
    db.channel("news", history_size(10)).users(&["ann", "bob"]).commit().await;
    db.post(Message { sender: user("ann"), ..message("news", 1, "{}") });
    db.post(private(2, &["ann", "bob"], r#"{"text":"for both"}"#)).commit().await;
    db.edit(edit(PRIVATE, 2, r#"{"text":"still for both"}"#)).commit().await;
    db.forget("ann").commit().await;
    expect![[r#"
        "news" #1 m1 @2 2010-01-01T01:01:00 ann: {}
        private #2~3 m2 @2 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann to ["ann", "bob"]: {"text":"still for both"}
    "#]]
    .assert_eq(&db.read_held(1..=2).await);
}

async fn a_name_that_is_used_again_knows_how_far_its_inbox_went(db: &mut Db) {
    db.users(&["ann", "bob", "cat"]).commit().await;
    db.post(private(1, &["ann"], "{}")).post(private(2, &["ann", "bob"], "{}")).commit().await;
    db.edit(edit(PRIVATE, 2, "{}")).commit().await;
    db.trim_inbox("bob", 0, 0).commit().await;
    db.forget("ann").forget("bob").forget("cat").commit().await;
    assert_eq!(trimmed(db, "forgotten_users").await, ["ann 3", "bob 3"], "cat had nothing");
    db.reopen().await;
    db.users(&["ann", "cat"]).commit().await;
    assert_eq!(trimmed(db, "users").await, ["ann 3", "cat 0"]);
    assert_eq!(trimmed(db, "forgotten_users").await, ["bob 3"]);
    db.user("ann", r#"{"a":1}"#, &[]).commit().await;
    db.forget("ann").commit().await;
    assert_eq!(trimmed(db, "forgotten_users").await, ["ann 3", "bob 3"], "and again");
}

async fn a_user_is_forgotten_with_its_connections(db: &mut Db) {
    db.channel("news", history_size(10)).users(&["ann", "bob"]).commit().await;
    db.connect(1, "ann").subscribe(1, "news").connect(2, "ann").connect(3, "bob").subscribe(3, "news").commit().await;
    db.end(1).end(2).forget("ann").commit().await;
    assert_eq!(db.read_connections().await, "k3 \"bob\": [\"news\"]\n");
    assert_eq!(floors(db).await, ["bob 0"]);
}

async fn a_forgotten_channel_leaves_its_name_behind(db: &mut Db) {
    let brief = ChannelSettings { history_ttl: Some(1), ..history_size(10) };
    db.channel("news", brief).channel("chat", history_size(10)).channel("quiet", history_size(10)).users(&["ann"]);
    db.connect(1, "ann").subscribe(1, "news").subscribe(1, "chat").commit().await;
    db.post(message("news", 1, r#"{"text":"a secret"}"#)).posts("news", 2..=3).posts("chat", 4..=5).commit().await;
    db.edit(edit("news", 2, "{}")).delete("news", 3).posts("chat", [6]).commit().await;
    db.forget_channel("news").forget_channel("quiet").commit().await;
    assert_eq!(rows_with(db, "a secret").await, [""; 0]);
    assert_eq!(trimmed(db, "channels").await, ["chat 0", "news 7", "quiet 0"]);
    assert_eq!(floors(db).await, [""; 0]);
    assert_eq!(db.read_connections().await, "k1 \"ann\": [\"chat\"]\n");
    assert_eq!(db.store().totals().await.unwrap().channels, 1);
    assert!(db.store().size().await.unwrap() > 10_000, "what is stored takes room");
    let names: Vec<_> = db.store().channel_names(0, 9).await.unwrap().into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, [channel("chat")]);
    assert!(db.store().channels(&HashSet::from([channel("news")])).await.unwrap().is_empty());
    assert!(db.store().expired_channels(clock(1_000), 9).await.unwrap().is_empty());
    assert_eq!(page(db, &Place::Channel(channel("news")), |_| {}).await, None);
    // Its row still tells of the gap.
    let doubt = |after, through| Doubt {
        channel: Some(channel("news")),
        after: Position(after),
        through: Position(through),
        reason: GapReason::Floor,
    };
    let found = db.store().holding(&user("ann"), &[doubt(6, 8), doubt(7, 8)]).await.unwrap();
    assert_eq!(found, [doubt(6, 8)]);
}

async fn a_channel_of_a_forgotten_name_is_another_one(db: &mut Db) {
    db.channel("news", history_size(10)).channel("chat", history_size(10)).users(&["ann"]).commit().await;
    db.connect(1, "ann").subscribe(1, "news").posts("news", 1..=2).commit().await;
    let names = HashSet::from([channel("news")]);
    let before = db.store().channels(&names).await.unwrap();
    db.forget_channel("news").commit().await;
    db.channel("news", ChannelSettings::default()).commit().await;
    let after = db.store().channels(&names).await.unwrap();
    assert_ne!(after[&channel("news")].uuid, before[&channel("news")].uuid);
    assert_eq!(after[&channel("news")].settings, ChannelSettings::default());
    assert_eq!(db.read_history("news").await, "holds 0\n");
    assert_eq!(trimmed(db, "channels").await, ["chat 0", "news 2"]);
    // The uuids are free again, and nobody is in it.
    db.posts("news", 1..=1).subscribe(1, "news").commit().await;
    assert_eq!(floors(db).await, ["ann 3"]);
    db.unsubscribe(1, "news").commit().await;
    db.forget_channel("news").commit().await;
    assert_eq!(trimmed(db, "channels").await, ["chat 0", "news 3"]);
}

// ---- Messages ----

async fn history_is_the_newest_messages_oldest_first(db: &mut Db) {
    db.channel("news", history_size(3))
        .channel("chat", history_size(2))
        .channel("quiet", history_size(1))
        .commit()
        .await;
    db.posts("news", 1..=2).posts("chat", 3..=3).posts("news", 4..=4).commit().await;
    db.posts("chat", 5..=6).posts("news", 7..=8).commit().await;
    expect![[r#"
        holds 5
        #4 m4 @2 2010-01-01T01:01:00 ann: {}
        #7 m7 @3 2010-01-01T01:01:00 ann: {}
        #8 m8 @3 2010-01-01T01:01:00 ann: {}
    "#]]
    .assert_eq(&db.read_history("news").await);
    expect![[r#"
        holds 3
        #5 m5 @3 2010-01-01T01:01:00 ann: {}
        #6 m6 @3 2010-01-01T01:01:00 ann: {}
    "#]]
    .assert_eq(&db.read_history("chat").await);
    assert_eq!(db.read_history("quiet").await, "holds 0\n");
}

async fn a_larger_history_shows_older_messages_again(db: &mut Db) {
    db.channel("news", history_size(0)).commit().await;
    db.posts("news", 1..=3).commit().await;
    assert_eq!(db.read_history("news").await, "holds 3\n");
    db.channel("news", history_size(2)).commit().await;
    expect![[r#"
        holds 3
        #2 m2 @2 2010-01-01T01:01:00 ann: {}
        #3 m3 @2 2010-01-01T01:01:00 ann: {}
    "#]]
    .assert_eq(&db.read_history("news").await);
}

async fn messages_come_back_to_the_letter(db: &mut Db) {
    db.channel("news", history_size(10)).commit().await;
    let zoned = |number, text| Message { timestamp: time(text), ..message("news", number, "{}") };
    db.post(message("news", 1, "{ \"b\" :\t1.0,\n\"a\":[ ],  \"b\":1e2, \"big\":123456789012345678901234567890 }"))
        .post(message("news", 2, r#"{"ż":"\u017c 😀 \ud83d\ude00 \ud800 \u0000 \/ ' \" \\"}"#))
        .post(Message { body: None, ..message("news", 3, "{}") })
        .post(message("news", 4, "null"))
        .post(Message { sender: user("it's \"bob\\\" 😀"), ..message("news", 5, "{}") })
        .post(Message { audience: only(&["ann", "it's \"bob\\\""]), ..message("news", 6, "{}") })
        .post(Message { audience: Audience { only: [].into(), ..but(&["eve", "ann"]) }, ..message("news", 7, "{}") })
        .post(Message { audience: Audience { only: only(&["ann"]).only, ..but(&["ann"]) }, ..message("news", 8, "{}") })
        .post(zoned(9, "2010-01-01T01:01:02.000001Z"))
        .post(zoned(10, "2010-01-01T01:01:02.5+02:00"))
        .post(Message { edited: Some(time("9999-12-31T23:59:59.999999-23:59")), ..zoned(11, "0001-01-01T00:00-00:30") })
        .channel("news", history_size(20))
        .commit()
        .await;
    expect![[r#"
        holds 11
        #1 m1 @2 2010-01-01T01:01:00 ann: { "b" :	1.0,
        "a":[ ],  "b":1e2, "big":123456789012345678901234567890 }
        #2 m2 @2 2010-01-01T01:01:00 ann: {"ż":"\u017c 😀 \ud83d\ude00 \ud800 \u0000 \/ ' \" \\"}
        #3 m3 @2 2010-01-01T01:01:00 ann: no body
        #4 m4 @2 2010-01-01T01:01:00 ann: null
        #5 m5 @2 2010-01-01T01:01:00 it's "bob\" 😀: {}
        #6 m6 @2 2010-01-01T01:01:00 ann to ["ann", "it's \"bob\\\""]: {}
        #7 m7 @2 2010-01-01T01:01:00 ann but ["eve", "ann"]: {}
        #8 m8 @2 2010-01-01T01:01:00 ann to ["ann"] but ["ann"]: {}
        #9 m9 @2 2010-01-01T01:01:02.000001+00:00 ann: {}
        #10 m10 @2 2010-01-01T01:01:02.500000+02:00 ann: {}
        #11 m11 @2 0001-01-01T00:00:00-00:30 edited 9999-12-31T23:59:59.999999-23:59 ann: {}
    "#]]
    .assert_eq(&db.read_history("news").await);
}

fn but(names: &[&str]) -> Audience {
    Audience { only: [].into(), except: only(names).only }
}

async fn moments_are_kept_to_the_microsecond(db: &mut Db) {
    db.channel("news", history_size(10)).users(&["ann"]).posts("news", 1..=1);
    let mut draft = db.draft();
    draft.batch.at += Duration::from_nanos(999);
    db.store().commit(&draft.batch).await.unwrap();
    db.adopt(draft);
    db.check_all("with a moment in nanoseconds").await;
    assert_eq!(db.idle_users(1, 10).await, ["ann"]);
}

async fn large_batches_and_bodies_are_kept(db: &mut Db) {
    db.channel("news", history_size(5_000)).users(&["ann"]).commit().await;
    db.posts("news", 1..=3_000);
    for number in 3_001..=4_000 {
        db.post(private(number, &["ann"], "{}"));
    }
    let megabyte = format!(r#"{{"text":"{}"}}"#, "ż\\u017c".repeat(1 << 17));
    db.post(message("news", 5_000, &megabyte)).commit().await;
    let names = HashSet::from([channel("news")]);
    let news = db.store().channels(&names).await.unwrap().remove(&channel("news")).unwrap();
    let last = news.history.iter().next_back().unwrap();
    assert_eq!((news.retained.messages, last.position), (3_001, Position(4_001)));
    assert_eq!(last.message.body.as_ref().unwrap().get(), megabyte);
    let held = db.store().held(&(1..=5_000).map(uuid).collect()).await.unwrap();
    assert_eq!(held.len(), 4_001);
}

/// However many messages a channel shows, they do not fill the memory; the newest always comes.
async fn a_history_of_very_large_messages_is_shorter(db: &mut Db) {
    db.channel("news", history_size(10)).commit().await;
    let megabytes = |count: usize| format!(r#"{{"text":"{}"}}"#, "x".repeat(count << 20));
    for (number, size) in [9, 9, 1, 17].into_iter().enumerate() {
        db.post(message("news", number as u128 + 1, &megabytes(size)));
    }
    db.posts("news", [5]).commit().await;
    db.delete("news", 5).commit().await;
    expect![[r#"
        holds 4 and 1 deleted
        #4 m4 @2 2010-01-01T01:01:00 ann: 17825803 bytes of {"text":"xxxxxxxxxxx
    "#]]
    .assert_eq(&db.read_history("news").await);
    db.delete("news", 4).commit().await;
    expect![[r#"
        holds 3 and 2 deleted
        #2 m2 @2 2010-01-01T01:01:00 ann: 9437195 bytes of {"text":"xxxxxxxxxxx
        #3 m3 @2 2010-01-01T01:01:00 ann: 1048587 bytes of {"text":"xxxxxxxxxxx
    "#]]
    .assert_eq(&db.read_history("news").await);
}

async fn one_uuid_is_another_message_elsewhere(db: &mut Db) {
    db.channel("news", history_size(10)).channel("chat", history_size(10)).users(&["ann"]).commit().await;
    db.post(message("news", 1, r#"{"in":"news"}"#)).commit().await;
    db.post(message("chat", 1, r#"{"in":"chat"}"#)).commit().await;
    db.post(private(1, &["ann"], r#"{"in":"private"}"#)).commit().await;
    db.edit(edit("news", 1, r#"{"in":"news","edited":true}"#)).commit().await;
    db.delete("chat", 1).commit().await;
    expect![[r#"
        "chat" #5 m1 is deleted, was #2
        "news" #1~4 m1 @2 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann: {"in":"news","edited":true}
        private #3 m1 @4 2010-01-01T01:01:00 ann to ["ann"]: {"in":"private"}
    "#]]
    .assert_eq(&db.read_held([1]).await);
}

async fn what_is_not_logged_leaves_nothing_behind(db: &mut Db) {
    db.channel("news", history_size(10)).users(&["ann"]).commit().await;
    let posted = message("news", 1, r#"{"text":"ephemeral"}"#).into();
    db.ephemeral(Event::Posted { position: None, message: posted, inboxes: vec![] });
    let posted = private(2, &["ann"], r#"{"text":"ephemeral"}"#).into();
    db.ephemeral(Event::Posted { position: None, message: posted, inboxes: vec![user("ann")] });
    db.ephemeral(Event::StateChanged { user: user("ann"), changed: [].into() });
    // Neither an edit of the unknown nor a deletion of an unknown private message is logged.
    db.edit(edit("news", 3, r#"{"text":"ephemeral"}"#)).delete(PRIVATE, 4);
    db.commit().await;
    assert_eq!(db.world.head, Position(0));
    assert_eq!(db.read_history("news").await, "holds 0\n");
    assert_eq!(db.read_held(1..=4).await, "");
    assert_eq!(rows_with(db, "ephemeral").await, [""; 0]);
}

// ---- Edits and deletions ----

async fn an_edit_replaces_the_content(db: &mut Db) {
    db.channel("news", history_size(10)).commit().await;
    db.post(message("news", 1, r#"{"text":"before"}"#)).posts("news", 2..=2).commit().await;
    db.edit(edit("news", 1, r#"{ "text" : "after" }"#)).commit().await;
    expect![[r#"
        holds 2
        #1~3 m1 @2 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann: { "text" : "after" }
        #2 m2 @2 2010-01-01T01:01:00 ann: {}
    "#]]
    .assert_eq(&db.read_history("news").await);
    expect![[r#"
        "news" #1~3 m1 @2 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann: { "text" : "after" }
    "#]]
    .assert_eq(&db.read_held([1]).await);
    assert_eq!(rows_with(db, "before").await, [""; 0]);
}

async fn an_edit_changes_only_what_it_names(db: &mut Db) {
    db.channel("news", history_size(10)).commit().await;
    db.post(Message {
        audience: Audience { only: only(&["ann"]).only, ..but(&["bob"]) },
        ..message("news", 1, r#"{"a":1}"#)
    });
    db.posts("news", 2..=4).commit().await;
    // Whom a request names does not change whom the message is for.
    db.edit(Edit { body: None, audience: only(&["eve"]), ..edit("news", 1, "{}") });
    db.edit(Edit { body: None, sender: Some(user("bob")), ..edit("news", 2, "{}") });
    db.edit(Edit { timestamp: Some(time("2011-11-11T11:11+02:00")), ..edit("news", 3, r#"{"c":3}"#) });
    db.edit(Edit { edited: time("2022-02-22T22:22:22.000022Z"), ..edit("news", 4, "{}") });
    db.commit().await;
    expect![[r#"
        holds 4
        #1~5 m1 @2 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann to ["ann"] but ["bob"]: {"a":1}
        #2~6 m2 @2 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 bob: {}
        #3~7 m3 @2 2011-11-11T11:11:00+02:00 edited 2020-02-02T02:02:00 ann: {"c":3}
        #4~8 m4 @2 2010-01-01T01:01:00 edited 2022-02-22T22:22:22.000022+00:00 ann: {}
    "#]]
    .assert_eq(&db.read_history("news").await);
}

async fn of_several_edits_only_the_last_is_logged(db: &mut Db) {
    db.channel("news", history_size(10)).commit().await;
    db.post(message("news", 1, r#"{"edit":0}"#)).commit().await;
    db.edit(edit("news", 1, r#"{"edit":1}"#)).commit().await;
    db.edit(edit("news", 1, r#"{"edit":2}"#)).commit().await;
    expect![[r#"
        holds 1
        #1~3 m1 @2 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann: {"edit":2}
    "#]]
    .assert_eq(&db.read_history("news").await);
    assert_eq!(log(db).await, ["1 message", "3 edit of 1"]);
}

async fn two_edits_in_one_batch(db: &mut Db) {
    db.channel("news", history_size(10)).users(&["ann"]).commit().await;
    db.post(message("news", 1, "{}")).post(private(2, &["ann"], "{}")).commit().await;
    db.edit(edit("news", 1, r#"{"edit":1}"#)).edit(edit("news", 1, r#"{"edit":2}"#));
    db.edit(edit(PRIVATE, 2, r#"{"edit":1}"#)).edit(edit(PRIVATE, 2, r#"{"edit":2}"#)).commit().await;
    expect![[r#"
        "news" #1~4 m1 @2 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann: {"edit":2}
        private #2~6 m2 @2 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann to ["ann"]: {"edit":2}
    "#]]
    .assert_eq(&db.read_held(1..=2).await);
    assert_eq!(log(db).await, ["1 message", "2 message", "4 edit of 1", "6 edit of 2"]);
}

async fn a_deletion_takes_the_message_and_its_edit(db: &mut Db) {
    db.channel("news", history_size(10)).commit().await;
    db.posts("news", 1..=3).commit().await;
    db.edit(edit("news", 2, "{}")).commit().await;
    db.delete("news", 2).delete("news", 3).commit().await;
    expect![[r#"
        holds 1 and 2 deleted
        #1 m1 @2 2010-01-01T01:01:00 ann: {}
    "#]]
    .assert_eq(&db.read_history("news").await);
    expect![[r#"
        "news" #1 m1 @2 2010-01-01T01:01:00 ann: {}
        "news" #5 m2 is deleted, was #2
        "news" #6 m3 is deleted, was #3
    "#]]
    .assert_eq(&db.read_held(1..=3).await);
    assert_eq!(log(db).await, ["1 message", "5 deletion", "6 deletion"]);
}

async fn a_deleted_body_is_in_no_table(db: &mut Db) {
    let (first, second) = (r#"{"text":"to be deleted"}"#, r#"{"text":"still to be deleted"}"#);
    db.channel("news", history_size(10)).users(&["ann"]).commit().await;
    db.post(message("news", 1, first)).post(private(2, &["ann"], first)).commit().await;
    assert_eq!(rows_with(db, "to be deleted").await, [first; 2], "a body can be found");
    db.edit(edit("news", 1, second)).edit(edit(PRIVATE, 2, second)).commit().await;
    assert_eq!(rows_with(db, "to be deleted").await, [second; 2], "an edit holds no copy");
    db.delete("news", 1).delete(PRIVATE, 2).commit().await;
    assert_eq!(rows_with(db, "to be deleted").await, [""; 0]);
}

async fn a_deletion_of_a_deletion_takes_its_place(db: &mut Db) {
    db.channel("news", history_size(10)).users(&["ann"]).commit().await;
    db.posts("news", 1..=1).post(private(2, &["ann"], "{}")).commit().await;
    db.delete("news", 1).delete(PRIVATE, 2).commit().await;
    db.delete("news", 1).delete(PRIVATE, 2).commit().await;
    expect![[r#"
        "news" #5 m1 is deleted, was #1
        private #6 m2 is deleted, was #2, for {"pm_users":["ann"],"exclude_users":[]}
    "#]]
    .assert_eq(&db.read_held(1..=2).await);
    assert_eq!(log(db).await, ["5 deletion", "6 deletion"]);
    // And so on: where the message was is carried over.
    db.delete("news", 1).delete(PRIVATE, 2).commit().await;
    expect![[r#"
        "news" #7 m1 is deleted, was #1
        private #8 m2 is deleted, was #2, for {"pm_users":["ann"],"exclude_users":[]}
    "#]]
    .assert_eq(&db.read_held(1..=2).await);
    // Of a message that was never there, there is nothing to carry over.
    db.delete("news", 3).commit().await;
    db.delete("news", 3).commit().await;
    expect![[r#"
        "news" #10 m3 is deleted
    "#]]
    .assert_eq(&db.read_held([3]).await);
}

/// The message's audience, whomever the request names.
async fn a_deletion_keeps_whom_it_is_for(db: &mut Db) {
    db.channel("news", history_size(10)).users(&["ann", "bob"]).commit().await;
    db.posts("news", [1]).post(Message { audience: but(&["it's \"bob\\\""]), ..message("news", 2, "{}") });
    db.post(private(3, &["ann", "bob"], "{}")).commit().await;
    db.delete_for("news", 1, only(&["eve"])).delete("news", 2).delete_for(PRIVATE, 3, only(&["ann"]));
    db.delete_for("news", 4, only(&["ann"])).delete("news", 5).commit().await;
    assert_eq!(
        deletions(db).await,
        [
            "4 of 1 for everyone",
            r#"5 of 2 for {"pm_users":[],"exclude_users":["it's \"bob\\\""]}"#,
            r#"6 of 3 for {"pm_users":["ann","bob"],"exclude_users":[]}"#,
            r#"7 of nothing for {"pm_users":["ann"],"exclude_users":[]}"#,
            "8 of nothing for everyone",
        ]
    );
    // Also once it is gone: its deletion says whom it was for.
    db.delete_for("news", 1, only(&["eve"])).delete_for(PRIVATE, 3, only(&["ann"])).commit().await;
    assert_eq!(
        deletions(db).await[3..],
        ["9 of 1 for everyone", r#"10 of 3 for {"pm_users":["ann","bob"],"exclude_users":[]}"#,]
    );
    assert_eq!(db.read_users(&["ann", "bob"]).await.matches("holds 0 and 1 deleted").count(), 2, "both still have it");
}

async fn two_deletions_in_one_batch(db: &mut Db) {
    db.channel("news", history_size(10)).commit().await;
    db.posts("news", 1..=1).commit().await;
    db.delete("news", 1).delete("news", 1).delete("news", 2).delete("news", 2).commit().await;
    expect![[r#"
        "news" #3 m1 is deleted, was #1
        "news" #5 m2 is deleted
    "#]]
    .assert_eq(&db.read_held(1..=2).await);
    assert_eq!(log(db).await, ["3 deletion", "5 deletion"]);
}

async fn a_deletion_of_the_unknown_is_logged(db: &mut Db) {
    db.channel("news", history_size(10)).channel("chat", history_size(10)).commit().await;
    db.posts("chat", 1..=1).commit().await;
    db.delete("news", 1).commit().await;
    expect![[r#"
        "chat" #1 m1 @2 2010-01-01T01:01:00 ann: {}
        "news" #2 m1 is deleted
    "#]]
    .assert_eq(&db.read_held([1]).await);
}

// ---- Private messages ----

async fn a_private_message_is_one_entry_in_several_inboxes(db: &mut Db) {
    db.users(&["ann", "bob", "cat"]).commit().await;
    // Of those named, dan is not known and cat is excluded.
    let audience = Audience { only: only(&["bob", "ann", "dan", "cat", "bob"]).only, ..but(&["cat"]) };
    db.post(Message { audience, ..private(1, &[], r#"{"text":"psst"}"#) }).commit().await;
    expect![[r#"
        "ann" i1001 active @1 holds 1 {} public []
        "bob" i1002 active @1 holds 1 {} public []
        "cat" i1003 active @1 holds 0 {} public []
    "#]]
    .assert_eq(&db.read_users(&["ann", "bob", "cat"]).await);
    expect![[r#"
        private #1 m1 @2 2010-01-01T01:01:00 ann to ["bob", "ann", "dan", "cat", "bob"] but ["cat"]: {"text":"psst"}
    "#]]
    .assert_eq(&db.read_held([1]).await);
    assert_eq!(log(db).await, ["1 message"]);
}

async fn private_messages_are_edited_and_deleted_everywhere(db: &mut Db) {
    db.users(&["ann", "bob"]).commit().await;
    db.post(private(1, &["ann", "bob"], "{}")).post(private(2, &["ann", "bob"], "{}")).commit().await;
    // A request may name others than the message was for.
    db.edit(Edit { audience: only(&["eve"]), ..edit(PRIVATE, 1, r#"{"edited":true}"#) }).commit().await;
    db.delete(PRIVATE, 2).commit().await;
    expect![[r#"
        "ann" i1001 active @1 holds 1 and 1 deleted {} public []
        "bob" i1002 active @1 holds 1 and 1 deleted {} public []
    "#]]
    .assert_eq(&db.read_users(&["ann", "bob"]).await);
    expect![[r#"
        private #1~3 m1 @2 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann to ["ann", "bob"]: {"edited":true}
        private #4 m2 is deleted, was #2, for {"pm_users":["ann","bob"],"exclude_users":[]}
    "#]]
    .assert_eq(&db.read_held(1..=2).await);
}

/// The second deletion takes the first one's place in the inboxes, too: else nobody holds it, and
/// the next trimming takes it away.
async fn two_deletions_of_a_private_message_in_one_batch(db: &mut Db) {
    db.users(&["ann", "bob"]).commit().await;
    db.post(private(1, &["ann"], "{}")).commit().await;
    db.delete(PRIVATE, 1).delete(PRIVATE, 1).commit().await;
    db.post(private(2, &["bob"], "{}")).post(private(3, &["bob"], "{}")).commit().await;
    db.trim_inbox("bob", 0, 9).commit().await;
    expect![[r#"
        private #3 m1 is deleted, was #1, for {"pm_users":["ann"],"exclude_users":[]}
    "#]]
    .assert_eq(&db.read_held([1]).await);
}

async fn a_trimmed_inbox_keeps_the_newest(db: &mut Db) {
    db.users(&["ann", "bob"]).commit().await;
    for number in 1..=5 {
        db.post(private(number, &["ann"], "{}"));
    }
    db.post(private(6, &["bob"], "{}")).commit().await;
    db.delete(PRIVATE, 2).edit(edit(PRIVATE, 4, "{}")).commit().await;
    db.trim_inbox("ann", 2, 9).trim_inbox("bob", 2, 9).commit().await;
    expect![[r#"
        "ann" i1001 active @1 holds 2 and 1 deleted {} public []
        "bob" i1002 active @1 holds 1 {} public []
    "#]]
    .assert_eq(&db.read_users(&["ann", "bob"]).await);
    expect![[r#"
        private #4~8 m4 @2 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann to ["ann"]: {}
        private #5 m5 @2 2010-01-01T01:01:00 ann to ["ann"]: {}
        private #6 m6 @2 2010-01-01T01:01:00 ann to ["bob"]: {}
        private #7 m2 is deleted, was #2, for {"pm_users":["ann"],"exclude_users":[]}
    "#]]
    .assert_eq(&db.read_held(1..=6).await);
    assert_eq!(trimmed(db, "users").await, ["ann 3", "bob 0"]);
}

async fn a_trimmed_inbox_keeps_the_newest_deletions(db: &mut Db) {
    db.users(&["ann", "bob"]).commit().await;
    for number in 1..=4 {
        db.post(private(number, &["ann", "bob"], "{}"));
    }
    db.commit().await;
    db.delete(PRIVATE, 2).delete(PRIVATE, 3).commit().await;
    db.edit(edit(PRIVATE, 4, "{}")).delete(PRIVATE, 1).commit().await;
    db.trim_inbox("ann", 1, 1).commit().await;
    expect![[r#"
        "ann" i1001 active @1 holds 1 and 1 deleted {} public []
        "bob" i1002 active @1 holds 1 and 3 deleted {} public []
    "#]]
    .assert_eq(&db.read_users(&["ann", "bob"]).await);
    assert_eq!(trimmed(db, "users").await, ["ann 6", "bob 0"]);
    assert_eq!(log(db).await, ["4 message", "5 deletion", "6 deletion", "7 edit of 4", "8 deletion"], "bob has all");
    db.trim_inbox("bob", 9, 2).commit().await;
    assert_eq!(log(db).await, ["4 message", "6 deletion", "7 edit of 4", "8 deletion"]);
    // Deletions that are older than the newest message that goes do not stay, however few they are.
    db.post(private(5, &["bob"], "{}")).post(private(6, &["bob"], "{}")).commit().await;
    db.trim_inbox("bob", 1, 9).commit().await;
    assert_eq!(log(db).await, ["4 message", "7 edit of 4", "8 deletion", "10 message"], "ann has the older ones");
    assert_eq!(trimmed(db, "users").await, ["ann 6", "bob 9"]);
    db.trim_inbox("ann", 0, 0).commit().await;
    assert_eq!(log(db).await, ["10 message"]);
    assert_eq!(trimmed(db, "users").await, ["ann 8", "bob 9"]);
}

async fn what_no_inbox_holds_is_gone(db: &mut Db) {
    db.users(&["ann", "bob"]).commit().await;
    db.post(private(1, &["ann", "bob"], "{}")).post(private(2, &["ann"], "{}")).commit().await;
    db.edit(edit(PRIVATE, 1, "{}")).edit(edit(PRIVATE, 2, "{}")).commit().await;
    db.trim_inbox("ann", 0, 9).commit().await;
    assert_eq!(trimmed(db, "users").await, ["ann 4", "bob 0"], "the edits of what goes count");
    assert_eq!(log(db).await, ["1 message", "3 edit of 1"], "bob holds the first message, nobody the second");
    expect![[r#"
        private #1~3 m1 @2 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann to ["ann", "bob"]: {}
    "#]]
    .assert_eq(&db.read_held(1..=2).await);
    db.trim_inbox("bob", 0, 9).commit().await;
    assert_eq!(log(db).await, [""; 0]);
}

// ---- Trimming ----

async fn a_trimmed_channel_keeps_the_newest_and_what_happened_since(db: &mut Db) {
    db.channel("news", history_size(10)).channel("chat", history_size(10)).commit().await;
    db.posts("news", 1..=3).posts("chat", 4..=6).commit().await;
    db.delete("news", 2).commit().await;
    db.posts("news", 7..=8).commit().await;
    db.edit(edit("news", 7, "{}")).delete("news", 99).commit().await;
    db.trim_channel("news", 2, 9).commit().await;
    expect![[r#"
        holds 2 and 2 deleted
        #8~10 m7 @4 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann: {}
        #9 m8 @4 2010-01-01T01:01:00 ann: {}
    "#]]
    .assert_eq(&db.read_history("news").await);
    expect![[r#"
        "chat" #4 m4 @2 2010-01-01T01:01:00 ann: {}
        "chat" #5 m5 @2 2010-01-01T01:01:00 ann: {}
        "chat" #6 m6 @2 2010-01-01T01:01:00 ann: {}
        "news" #11 m99 is deleted
        "news" #7 m2 is deleted, was #2
        "news" #8~10 m7 @4 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann: {}
        "news" #9 m8 @4 2010-01-01T01:01:00 ann: {}
    "#]]
    .assert_eq(&db.read_held((1..=8).chain([99])).await);
    assert_eq!(trimmed(db, "channels").await, ["chat 0", "news 3"]);
    // Trimming again, or to more than there is, changes nothing.
    db.trim_channel("news", 2, 9).trim_channel("chat", 100, 9).commit().await;
    assert_eq!(trimmed(db, "channels").await, ["chat 0", "news 3"]);
    expect![[r#"
        holds 2 and 2 deleted
        #8~10 m7 @4 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann: {}
        #9 m8 @4 2010-01-01T01:01:00 ann: {}
    "#]]
    .assert_eq(&db.read_history("news").await);
}

async fn channels_that_are_trimmed_together_keep_as_much_as_each_should(db: &mut Db) {
    for name in ["one", "two", "three", "four"] {
        db.channel(name, history_size(10));
    }
    db.commit().await;
    db.posts("one", 1..=3).posts("two", 4..=6).posts("three", 7..=9).posts("four", 10..=12).commit().await;
    db.edit(edit("one", 1, "{}")).edit(edit("four", 12, "{}")).delete("two", 99).delete("two", 98).commit().await;
    // What is said in the same batch counts among the newest.
    db.posts("three", 13..=13);
    db.trim_channel("one", 2, 9).trim_channel("two", 2, 1).trim_channel("three", 2, 9).trim_channel("four", 9, 9);
    db.commit().await;
    let left = ["2 message", "3 message", "5 message", "6 message", "9 message", "10 message", "11 message"];
    let later = ["12 message", "14 edit of 12", "16 deletion", "17 message"];
    assert_eq!(log(db).await, [&left[..], &later].concat());
    assert_eq!(trimmed(db, "channels").await, ["four 0", "one 13", "three 8", "two 15"]);
}

async fn a_trimmed_channel_keeps_the_newest_deletions(db: &mut Db) {
    db.channel("news", history_size(10)).channel("chat", history_size(10)).commit().await;
    db.posts("news", 1..=4).posts("chat", 5..=5).commit().await;
    db.delete("news", 2).delete("chat", 5).delete("news", 99).commit().await;
    db.edit(edit("news", 1, "{}")).delete("news", 4).commit().await;
    db.trim_channel("news", 9, 1).commit().await;
    expect![[r#"
        holds 2 and 1 deleted
        #1~9 m1 @2 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann: {}
        #3 m3 @2 2010-01-01T01:01:00 ann: {}
    "#]]
    .assert_eq(&db.read_history("news").await);
    expect![[r#"
        "chat" #7 m5 is deleted, was #5
        "news" #10 m4 is deleted, was #4
        "news" #1~9 m1 @2 2010-01-01T01:01:00 edited 2020-02-02T02:02:00 ann: {}
        "news" #3 m3 @2 2010-01-01T01:01:00 ann: {}
    "#]]
    .assert_eq(&db.read_held((1..=5).chain([99])).await);
    assert_eq!(trimmed(db, "channels").await, ["chat 0", "news 8"]);
    // Both limits at once: here the messages' reaches farther, then the deletions'.
    db.posts("news", 6..=7).delete("news", 98).commit().await;
    db.trim_channel("news", 1, 2).commit().await;
    assert_eq!(log(db).await, ["7 deletion", "12 message", "13 deletion"]);
    assert_eq!(trimmed(db, "channels").await, ["chat 0", "news 11"]);
    db.trim_channel("news", 0, 0).commit().await;
    assert_eq!(log(db).await, ["7 deletion"], "of chat");
    assert_eq!(trimmed(db, "channels").await, ["chat 0", "news 13"]);
    assert_eq!(db.read_history("news").await, "holds 0\n");
}

async fn trimming_counts_the_edits_of_what_goes(db: &mut Db) {
    db.channel("news", history_size(10)).commit().await;
    db.posts("news", 1..=2).commit().await;
    db.edit(edit("news", 1, "{}")).posts("news", 3..=3).commit().await;
    db.trim_channel("news", 1, 9).commit().await;
    assert_eq!(trimmed(db, "channels").await, ["news 3"], "who saw up to 2 misses an edit");
    assert_eq!(log(db).await, ["4 message"]);
}

async fn trimming_does_not_change_when_a_channel_was_active(db: &mut Db) {
    db.channel("news", history_size(10)).commit().await;
    db.posts("news", 1..=2).commit().await;
    db.edit(edit("news", 1, "{}")).commit().await;
    db.trim_channel("news", 1, 9).commit().await;
    assert_eq!(db.channel_activity("news").await, "@3");
    // Not even if nothing is left that shows it.
    db.delete("news", 2).commit().await;
    assert_eq!(db.channel_activity("news").await, "@5");
    db.trim_channel("news", 0, 0).commit().await;
    assert_eq!(log(db).await, [""; 0]);
    assert_eq!(db.channel_activity("news").await, "@5");
    // What is trimmed in the batch in which it happened has happened all the same.
    db.posts("news", [3]).trim_channel("news", 0, 0).commit().await;
    assert_eq!(log(db).await, [""; 0]);
    assert_eq!(db.channel_activity("news").await, "@7");
}

async fn trimming_comes_after_the_messages_of_its_batch(db: &mut Db) {
    db.channel("news", history_size(10)).users(&["ann"]).commit().await;
    db.posts("news", 1..=3).post(private(4, &["ann"], "{}")).post(private(5, &["ann"], "{}")).commit().await;
    db.trim_channel("news", 1, 9).trim_inbox("ann", 1, 9);
    db.posts("news", 6..=7).post(private(8, &["ann"], "{}")).commit().await;
    expect![[r#"
        holds 1
        #7 m7 @3 2010-01-01T01:01:00 ann: {}
    "#]]
    .assert_eq(&db.read_history("news").await);
    expect![[r#"
        private #8 m8 @3 2010-01-01T01:01:00 ann to ["ann"]: {}
    "#]]
    .assert_eq(&db.read_held([4, 5, 8]).await);
}

/// What goes must go with its newest edit, and must count as trimmed up to there.
async fn an_edit_of_what_is_trimmed_in_the_same_batch(db: &mut Db) {
    db.channel("news", history_size(10)).commit().await;
    db.posts("news", 1..=2).commit().await;
    db.edit(edit("news", 1, "{}")).trim_channel("news", 1, 9).trims_first().commit().await;
    assert_eq!(log(db).await, ["2 message"]);
    assert_eq!(trimmed(db, "channels").await, ["news 3"]);
    db.posts("news", 3..=3).commit().await;
}

async fn an_edit_of_what_leaves_an_inbox_in_the_same_batch(db: &mut Db) {
    db.users(&["ann", "bob"]).commit().await;
    db.post(private(1, &["ann"], "{}")).post(private(2, &["bob"], "{}")).commit().await;
    // The requests name another user, so that nothing keeps them and what happens to the inboxes apart.
    let by_eve = |number| Edit { audience: only(&["eve"]), ..edit(PRIVATE, number, "{}") };
    db.edit(by_eve(1)).edit(by_eve(2)).trim_inbox("ann", 0, 9).forget("bob").trims_first().commit().await;
    assert_eq!(log(db).await, [""; 0]);
    assert_eq!(trimmed(db, "users").await, ["ann 3"]);
}

async fn a_channel_may_keep_nothing(db: &mut Db) {
    db.channel("news", history_size(10)).commit().await;
    db.posts("news", 1..=2).commit().await;
    db.delete("news", 3).commit().await;
    db.channel("news", ChannelSettings { replay_size: 0, ..history_size(0) }).commit().await;
    db.trim_channel("news", 0, 9).commit().await;
    assert_eq!(db.read_history("news").await, "holds 0 and 1 deleted\n");
    expect![[r#"
        "news" #3 m3 is deleted
    "#]]
    .assert_eq(&db.read_held(1..=3).await);
}

// ---- Tails ----

async fn a_tail_is_the_newest_entries_up_to_a_position(db: &mut Db) {
    db.channel("news", history_size(2)).channel("talk", history_size(2)).commit().await;
    db.posts("news", 1..=3).posts("talk", 4..=5).posts("news", 6..=7).commit().await;
    let news = Place::Channel(channel("news"));
    assert_eq!(tail(db, &news, 7, 3, 1_000).await, (vec![3, 6, 7], true), "history_size does not matter");
    assert_eq!(tail(db, &news, 7, 4, 1_000).await, (vec![2, 3, 6, 7], true));
    assert_eq!(tail(db, &news, 7, 5, 1_000).await, (vec![1, 2, 3, 6, 7], false));
    assert_eq!(tail(db, &news, 5, 2, 1_000).await, (vec![2, 3], true));
    assert_eq!(tail(db, &news, 0, 2, 1_000).await, (vec![], false));
    assert_eq!(tail(db, &Place::Channel(channel("else")), 7, 2, 1_000).await, (vec![], false));
    db.trim_channel("news", 3, 0).commit().await;
    let part = &db.store().tails(&[(news, Position(7))], 5, 1_000).await.expect("a tail")[0];
    assert_eq!((part.entries.len(), part.has_older, part.trimmed), (3, false, Position(2)));
}

async fn a_tail_has_bodies_of_no_more_than_so_many_bytes(db: &mut Db) {
    db.channel("news", history_size(10)).commit().await;
    let body = |length: usize| format!("\"{}\"", "ż".repeat((length - 2) / 2));
    for (number, length) in [(1, 10), (2, 300), (3, 10), (4, 20)] {
        db.post(message("news", number, &body(length)));
    }
    db.commit().await;
    let news = Place::Channel(channel("news"));
    assert_eq!(tail(db, &news, 4, 10, 340).await, (vec![1, 2, 3, 4], false));
    assert_eq!(tail(db, &news, 4, 10, 339).await, (vec![2, 3, 4], true));
    assert_eq!(tail(db, &news, 4, 10, 329).await, (vec![3, 4], true), "what is older is left out, however small");
    assert_eq!(tail(db, &news, 4, 10, 19).await, (vec![], true));
    // An edit has the content of its message.
    db.edit(edit("news", 1, &body(30))).commit().await;
    assert_eq!(tail(db, &news, 5, 10, 60).await, (vec![3, 4, 5], true));
    assert_eq!(tail(db, &news, 5, 10, 59).await, (vec![4, 5], true));
}

async fn edits_and_deletions_are_in_tails(db: &mut Db) {
    db.channel("news", history_size(10)).users(&["ann", "bob"]).commit().await;
    db.posts("news", 1..=2).post(private(3, &["ann", "bob"], "{}")).commit().await;
    db.edit(edit("news", 1, "[1]")).edit(edit(PRIVATE, 3, "[3]")).delete("news", 2).commit().await;
    let places = [Place::Channel(channel("news")), Place::Inbox(user("ann"))].map(|place| (place, Position(9)));
    let tails = db.store().tails(&places, 10, 1_000).await.expect("tails");
    let shown: String = places
        .iter()
        .zip(&tails)
        .map(|((place, before), part)| store::tail_text(place, *before, part) + "\n")
        .collect();
    expect![[r#"
        Channel("news") up to 9, trimmed 0
        #1 @2 message m1 of ann at 2010-01-01T01:01:00 Some("2020-02-02T02:02:00"): [1]
        #4 @3 edit of #1 @2 m1 of ann at 2010-01-01T01:01:00 Some("2020-02-02T02:02:00"): [1]
        #6 @3 deletion of m2 Some(Position(2))
        Inbox("ann") up to 9, trimmed 0
        #3 @2 message m3 of ann at 2010-01-01T01:01:00 Some("2020-02-02T02:02:00") to ["ann", "bob"]: [3]
        #5 @3 edit of #3 @2 m3 of ann at 2010-01-01T01:01:00 Some("2020-02-02T02:02:00") to ["ann", "bob"]: [3]
    "#]]
    .assert_eq(&shown);
}

async fn several_tails_share_one_reading(db: &mut Db) {
    db.users(&["ann", "bob", "eve"]).channel("ann", history_size(10)).commit().await;
    db.post(private(1, &["ann", "bob"], "{}")).posts("ann", 2..=2).post(private(3, &["bob"], "{}")).commit().await;
    let inbox = |name| Place::Inbox(user(name));
    let asked = [
        (inbox("bob"), Position(3)),
        (Place::Channel(channel("ann")), Position(3)),
        (inbox("nobody"), Position(3)),
        (inbox("ann"), Position(3)),
        (inbox("bob"), Position(2)),
        (inbox("eve"), Position(3)),
    ];
    let tails = db.store().tails(&asked, 10, 1_000).await.expect("tails");
    let found = tails.iter().map(|part| part.entries.iter().map(|entry| entry.position.0).collect());
    assert_eq!(found.collect::<Vec<Vec<u64>>>(), [vec![1, 3], vec![2], vec![], vec![1], vec![1], vec![]]);
}

/// Where the entries of a tail are, and whether there are older ones.
async fn tail(db: &Db, place: &Place, before: u64, limit: u32, bytes: u32) -> (Vec<u64>, bool) {
    let tails = db.store().tails(&[(place.clone(), Position(before))], limit, bytes).await.expect("a tail");
    let [part] = &tails[..] else { panic!("one tail") };
    (part.entries.iter().map(|entry| entry.position.0).collect(), part.has_older)
}

// ---- Connections ----

async fn connections_and_subscriptions_come_and_go(db: &mut Db) {
    db.channel("news", history_size(10)).channel("chat", history_size(10)).users(&["ann", "bob"]).commit().await;
    db.connect(1, "ann").connect(2, "ann").connect(3, "bob").commit().await;
    db.subscribe(1, "news").subscribe(1, "chat").subscribe(2, "news").subscribe(3, "chat").commit().await;
    expect![[r#"
        k1 "ann": ["chat", "news"]
        k2 "ann": ["news"]
        k3 "bob": ["chat"]
    "#]]
    .assert_eq(&db.read_connections().await);
    db.unsubscribe(1, "news").end(2).commit().await;
    expect![[r#"
        k1 "ann": ["chat"]
        k3 "bob": ["chat"]
    "#]]
    .assert_eq(&db.read_connections().await);
    // An id that ended may be given again, to anybody, and begins without subscriptions.
    db.connect(2, "bob").end(3).commit().await;
    expect![[r#"
        k1 "ann": ["chat"]
        k2 "bob": []
    "#]]
    .assert_eq(&db.read_connections().await);
    db.subscribe(1, "news").commit().await;
    db.end(1).end(2).commit().await;
    assert_eq!(db.read_connections().await, "");
}

async fn a_connection_opened_again_keeps_its_channels(db: &mut Db) {
    db.channel("news", history_size(10)).users(&["ann"]).connect(1, "ann").subscribe(1, "news").commit().await;
    db.posts("news", [1]).commit().await;
    // More than once in a batch, too.
    db.connect(1, "ann").connect(1, "ann").commit().await;
    expect![[r#"
        k1 "ann": ["news"]
    "#]]
    .assert_eq(&db.read_connections().await);
    assert_eq!(db.user_activity("ann").await, "@3");
    assert_eq!(db.channel_activity("news").await, "@2");
}

async fn a_connection_and_all_it_needs_come_in_one_batch(db: &mut Db) {
    db.user("ann", r#"{"a":1}"#, &["a"]).connect(1, "ann");
    db.channel("news", history_size(10)).subscribe(1, "news").channel("chat", history_size(10)).subscribe(1, "chat");
    db.commit().await;
    expect![[r#"
        k1 "ann": ["chat", "news"]
    "#]]
    .assert_eq(&db.read_connections().await);
}

// ---- Batches ----

async fn a_floor_that_is_set_wins_over_one_that_is_held(db: &mut Db) {
    db.channel("news", history_size(10)).channel("chat", history_size(10)).users(&["ann", "bob", "cat"]).commit().await;
    db.posts("news", 1..=3).commit().await;
    // Who is new, who is there, who left, and who left long ago: in either order.
    for turned_around in [false, true] {
        db.connect(1, "ann").subscribe(1, "news").connect(2, "bob").subscribe(2, "news").commit().await;
        db.end(2).commit().await;
        db.connect(3, "bob").connect(4, "cat").commit().await;
        db.set_floor("ann", "news", 1);
        db.subscribe(3, "news").set_floor("bob", "news", 2);
        db.subscribe(4, "news").set_floor("cat", "news", 0);
        if turned_around {
            db.turned_around();
        }
        db.commit().await;
        assert_eq!(floors(db).await, ["ann 1", "bob 2", "cat 0"]);
        db.end(3).end(4).commit().await;
        db.connect(4, "cat").commit().await;
        db.end_floor("cat", "news").subscribe(4, "news").set_floor("cat", "news", 3).commit().await;
        assert_eq!(floors(db).await, ["ann 1", "bob 2 left", "cat 3"]);
        db.unsubscribe(1, "news").end(1).end(4).commit().await;
    }
}

async fn a_time_is_the_newest_entry_that_was_committed_by_then(db: &mut Db) {
    assert_eq!(db.position_at(clock(9)).await, 0);
    db.channel("news", history_size(100)).channel("chat", history_size(100)).users(&["ann"]).commit().await;
    for batch in 2..=20 {
        db.posts("news", [batch * 10]).posts("chat", [batch * 10 + 1]);
        db.post(private(batch * 10 + 2, &["ann"], "{}")).commit().await;
    }
    db.delete("chat", 31).delete(PRIVATE, 32).delete("news", 40).commit().await;
    db.trim_channel("news", 9, 9).trim_channel("chat", 0, 0).commit().await;
    let just_before = |batch| clock(batch) - Duration::from_micros(1);
    assert_eq!(db.position_at(clock(0)).await, 0);
    assert_eq!(db.position_at(just_before(2)).await, 0);
    assert_eq!((db.position_at(clock(2)).await, db.position_at(just_before(3)).await), (3, 3));
    assert_eq!(db.position_at(clock(3)).await, 3, "all of that batch is gone");
    assert_eq!(db.position_at(clock(20)).await, 57);
    assert_eq!((db.position_at(just_before(21)).await, db.position_at(clock(21)).await), (57, 60));
    assert_eq!(db.position_at(clock(1_000_000)).await, 60);
    assert!(db.store().positions_at(&HashSet::new()).await.unwrap().is_empty());
}

async fn a_batch_on_another_head_changes_nothing(db: &mut Db) {
    db.channel("news", history_size(10)).commit().await;
    db.posts("news", 1..=2).commit().await;
    for before in [Position(0), Position(1), Position(3)] {
        let mut draft = db.posts("news", 3..=3).channel("chat", history_size(10)).users(&["ann"]).draft();
        draft.batch.before = before;
        let error = db.store().commit(&draft.batch).await.unwrap_err();
        assert!(matches!(error, StoreError::NotOurs), "{error:?}");
        assert!(!db.store().settle(draft.batch.id).await.unwrap());
        db.check_all("after a batch on another head").await;
    }
    db.posts("news", 3..=3).commit().await;
}

async fn readers_see_whole_batches(db: &mut Db) {
    let news = HashSet::from([channel("news")]);
    db.channel("news", history_size(1000)).users(&["ann"]).commit().await;
    for batch in 0..10 {
        db.connect(batch, "ann").subscribe(batch, "news").posts("news", 50 * batch..50 * (batch + 1));
        let draft = db.draft();
        let read = async || tokio::try_join!(db.store().channels(&news), db.store().connections()).unwrap();
        let mut commit = db.store().commit(&draft.batch);
        loop {
            tokio::select! {
                outcome = &mut commit => break outcome.unwrap(),
                (channels, connections) = read() => {
                    let news = &channels[&channel("news")];
                    let messages = news.retained.messages;
                    assert_eq!((messages % 50, messages as usize), (0, news.history.len()));
                    assert!(connections.iter().all(|connection| connection.channels.len() == 1));
                }
            }
        }
        drop(commit);
        db.adopt(draft);
    }
}

async fn the_last_batch_is_found_and_an_unknown_one_is_not(db: &mut Db) {
    db.channel("news", history_size(10));
    let draft = db.draft();
    assert!(!db.store().settle(draft.batch.id).await.unwrap(), "not committed yet");
    db.store().commit(&draft.batch).await.unwrap();
    assert!(db.store().settle(draft.batch.id).await.unwrap());
    assert!(!db.store().settle(uuid(1)).await.unwrap());
    assert!(db.store().settle(draft.batch.id).await.unwrap(), "asking changes nothing");
    let id = draft.batch.id;
    db.adopt(draft);
    db.crash().await;
    assert!(db.store().settle(id).await.unwrap());
    // Without events, too.
    let empty = db.draft();
    db.store().commit(&empty.batch).await.unwrap();
    assert!(db.store().settle(empty.batch.id).await.unwrap());
    db.adopt(empty);
}

async fn a_refused_batch_leaves_nothing_behind(db: &mut Db) {
    db.channel("news", history_size(10)).users(&["ann"]).commit().await;
    db.posts("news", 1..=1).post(private(2, &["ann"], "{}")).commit().await;
    let mut draft = db.trim_channel("news", 0, 9).channel("chat", history_size(10)).users(&["bob"]).draft();
    let (position, once) = (Some(Position(2)), message("chat", 3, "{}").into());
    draft.batch.events.push(Event::Posted { position, message: once, inboxes: vec![] });
    let error = db.store().commit(&draft.batch).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "the position is taken: {error:?}");
    db.check_all("after a refused batch").await;
    db.posts("news", 3..=3).commit().await;
    assert!(!db.store().settle(draft.batch.id).await.unwrap());
    // The same where there is nothing but messages.
    let mut draft = db.posts("news", 4..=5).draft();
    let again = message("news", 6, "{}").into();
    draft.batch.events.push(Event::Posted { position, message: again, inboxes: vec![] });
    let error = db.store().commit(&draft.batch).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "the position is taken: {error:?}");
    db.check_all("after refused messages").await;
    db.posts("news", 4..=5).commit().await;
    db.check_all("after messages that were not").await;
}

/// The journal gives a commit up after a while and settles it. Whatever that answers must stay
/// true, also if the engine is in the middle of the commit: the end of one is what this aims at.
async fn a_commit_that_was_given_up_is_settled_for_good(db: &mut Db) {
    db.channel("news", history_size(0)).commit().await;
    let megabyte = format!(r#"{{"text":"{}"}}"#, "x".repeat(1 << 20));
    let start = Instant::now();
    db.post(message("news", 1, &megabyte)).commit().await;
    let (mut patience, step) = (start.elapsed(), start.elapsed() / 12);
    for number in 2..=26 {
        let draft = db.post(message("news", number, &megabyte)).draft();
        let commit = tokio::time::timeout(patience, db.store().commit(&draft.batch)).await;
        let is_kept = match commit {
            Ok(outcome) => {
                outcome.unwrap();
                patience = patience.saturating_sub(step);
                true
            }
            Err(_) => {
                patience += step;
                db.store().settle(draft.batch.id).await.unwrap()
            }
        };
        if is_kept {
            db.adopt(draft);
        }
        let next = db.channel("news", history_size(0)).draft();
        let outcome = db.store().commit(&next.batch).await;
        assert!(outcome.is_ok(), "settled as kept: {is_kept}, but then {outcome:?}");
        db.adopt(next);
    }
}

// ---- Names ----

const HOSTILE: [&str; 12] = [
    "'; DROP TABLE log; --",
    "\"quoted\" and 'quoted' and `quoted`",
    "back\\slash \\u0041 \\\" \\",
    "{\"a\": [1, null]}",
    "[\"news\"]",
    "null",
    "1",
    "%_?*$1",
    "tab\t line\n \r \u{1} \u{7f} \u{85} \u{2028} \u{feff}",
    "😀 👩\u{200d}👩\u{200d}👧 \u{10ffff} \u{ffff} \u{fffe}",
    " ",
    "https://example.org/a?b=c&d=%20#e",
];

async fn hostile_names_come_back(db: &mut Db) {
    let longest_channel = "😀".repeat(256);
    let longest_user = "😀".repeat(512);
    let names = HOSTILE.iter().copied().zip(HOSTILE).chain([(longest_channel.as_str(), longest_user.as_str())]);
    for (number, (channel_name, user_name)) in names.clone().enumerate() {
        let number = number as u128 * 10;
        db.channel(channel_name, history_size(10)).user(user_name, "{}", &[channel_name]).connect(number, user_name);
        db.subscribe(number, channel_name);
        db.post(Message {
            sender: user(user_name),
            audience: but(&[user_name]),
            ..message(channel_name, number, "{}")
        });
        db.post(private(number + 1, &[user_name], "{}")).post(private(number + 2, &[user_name, "nobody"], "{}"));
    }
    db.commit().await;
    for (number, (channel_name, user_name)) in names.enumerate() {
        let number = number as u128 * 10;
        db.edit(edit(channel_name, number, "{}")).edit(edit(PRIVATE, number + 1, "{}")).delete(PRIVATE, number + 2);
        db.channel(channel_name, history_size(11)).user(user_name, r#"{"a":1}"#, &[]).unsubscribe(number, channel_name);
        db.post(private(number + 3, &[user_name], "{}"));
    }
    db.commit().await;
    for name in HOSTILE {
        db.trim_channel(name, 0, 9).trim_inbox(name, 0, 9);
    }
    db.commit().await;
}

async fn names_that_differ_in_anything_are_different(db: &mut Db) {
    let alike = ["news", "News", "NEWS", "news ", " news", "é", "e\u{301}", "É", "ß", "ss", "ı", "i", "1", "1.0", "01"];
    for (number, name) in alike.into_iter().enumerate() {
        db.channel(name, history_size(10)).users(&[name]).connect(number as u128, name);
        db.posts(name, [1]).post(private(2 + number as u128, &[name], "{}"));
    }
    db.commit().await;
    for name in alike {
        let channels = db.store().channels(&HashSet::from([channel(name)])).await.unwrap();
        let found =
            channels.iter().map(|(name, channel)| (name.as_str(), channel.retained.messages)).collect::<Vec<_>>();
        assert_eq!(found, [(name, 1)]);
        let users = db.store().users(&HashSet::from([user(name)])).await.unwrap();
        let found = users.iter().map(|(name, user)| (name.as_str(), user.retained.messages)).collect::<Vec<_>>();
        assert_eq!(found, [(name, 1)]);
    }
}

// ---- Pages of history ----

/// The positions of a page, and whether there are more.
async fn page(db: &Db, place: &Place, change: impl FnOnce(&mut HistoryQuery<'_>)) -> Option<(Vec<u64>, bool)> {
    let (through, at) = (db.world.head, db.world.now());
    let mut query = HistoryQuery { place, after: None, before: None, through, at, limit: 50, max_bytes: 1 << 20 };
    change(&mut query);
    let page = db.store().history(&query).await.unwrap()?;
    Some((page.messages.iter().map(|message| message.position.0).collect(), page.has_more))
}

async fn a_page_of_history_is_bounded_in_bytes(db: &mut Db) {
    db.channel("news", history_size(10)).users(&["ann", "bob"]).commit().await;
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(400_000));
    for number in 1..=6 {
        db.post(message("news", number, &large));
    }
    for number in 7..=9 {
        db.post(private(number, &["ann"], &large));
    }
    db.commit().await;
    let (news, ann) = (Place::Channel(channel("news")), Place::Inbox(user("ann")));
    assert_eq!(page(db, &news, |_| {}).await, Some((vec![5, 6], true)));
    assert_eq!(page(db, &news, |query| query.after = Some(Position(0))).await, Some((vec![1, 2], true)));
    assert_eq!(page(db, &news, |query| query.before = Some(Position(3))).await, Some((vec![1, 2], false)));
    assert_eq!(page(db, &news, |query| query.max_bytes = 1).await, Some((vec![6], true)), "one always comes");
    assert_eq!(page(db, &news, |query| query.max_bytes = u64::MAX).await, Some(((1..=6).collect(), false)));
    assert_eq!(page(db, &ann, |_| {}).await, Some((vec![8, 9], true)));
    assert_eq!(page(db, &ann, |query| query.after = Some(Position(0))).await, Some((vec![7, 8], true)));
    assert_eq!(page(db, &Place::Inbox(user("bob")), |_| {}).await, Some((vec![], false)));
    assert_eq!(page(db, &Place::Inbox(user("news")), |_| {}).await, None);
    assert_eq!(page(db, &Place::Channel(channel("ann")), |_| {}).await, None);
}

async fn a_page_of_history_ends_where_it_is_told_to(db: &mut Db) {
    db.channel("news", history_size(2)).channel("chat", history_size(2)).users(&["ann"]).commit().await;
    for number in 1..=5 {
        db.posts("news", [number]).posts("chat", [number + 10]).post(private(number + 20, &["ann"], "{}"));
    }
    db.commit().await;
    db.edit(edit("news", 2, r#"{"n":2}"#)).delete("news", 4).commit().await;
    let news = Place::Channel(channel("news"));
    // They stand at 1, 4, 7, 13: more than the history of the channel shows.
    assert_eq!(page(db, &news, |_| {}).await, Some((vec![1, 4, 7, 13], false)));
    assert_eq!(page(db, &news, |query| query.limit = 3).await, Some((vec![4, 7, 13], true)));
    assert_eq!(page(db, &news, |query| query.through = Position(12)).await, Some((vec![1, 4, 7], false)));
    let between = |query: &mut HistoryQuery<'_>| {
        (query.after, query.before, query.limit) = (Some(Position(1)), Some(Position(13)), 1);
    };
    assert_eq!(page(db, &news, between).await, Some((vec![4], true)));
    let nothing = |query: &mut HistoryQuery<'_>| (query.after, query.before) = (Some(Position(7)), Some(Position(7)));
    assert_eq!(page(db, &news, nothing).await, Some((vec![], false)));
    assert_eq!(page(db, &news, |query| query.before = Some(Position(0))).await, Some((vec![], false)));
    let all = |query: &mut HistoryQuery<'_>| (query.through, query.after) = (Position(i64::MAX as u64), query.before);
    assert_eq!(page(db, &news, all).await, Some((vec![1, 4, 7, 13], false)));
}

async fn a_page_of_history_leaves_out_what_is_past_its_time(db: &mut Db) {
    let brief = ChannelSettings { history_ttl: Some(3), ..history_size(100) };
    db.channel("news", brief).channel("chat", history_size(100)).commit().await;
    for batch in 2..=6 {
        db.posts("news", [batch]).posts("chat", [batch + 10]).commit().await;
    }
    let news = Place::Channel(channel("news"));
    // The batches' moments are 2 to 6: at 6 what was committed at 3 is past its time.
    let at = |batch| move |query: &mut HistoryQuery<'_>| query.at = clock(batch);
    assert_eq!(page(db, &news, at(6)).await, Some((vec![5, 7, 9], false)));
    assert_eq!(page(db, &news, at(4)).await, Some((vec![1, 3, 5, 7, 9], false)));
    assert_eq!(page(db, &news, at(100)).await, Some((vec![], false)));
    let first = |query: &mut HistoryQuery<'_>| (query.at, query.after, query.limit) = (clock(6), Some(Position(0)), 1);
    assert_eq!(page(db, &news, first).await, Some((vec![5], true)));
    assert_eq!(page(db, &Place::Channel(channel("chat")), at(100)).await, Some((vec![2, 4, 6, 8, 10], false)));
}

// ---- What the trait does not tell ----

/// All rows, of whatever table, that hold a text.
async fn rows_with(db: &Db, text: &str) -> Vec<String> {
    db.engine().everything().await.into_iter().filter(|row| row.contains(text)).collect()
}

/// The log's entries: position and kind.
async fn log(db: &Db) -> Vec<String> {
    let sql =
        "SELECT position || CASE kind WHEN 0 THEN ' message' WHEN 1 THEN ' edit of ' || about ELSE ' deletion' END
               FROM log ORDER BY position";
    db.engine().rows(sql).await
}

/// The log's deletions: position, what each is about, and who may see it.
async fn deletions(db: &Db) -> Vec<String> {
    let sql = "SELECT position || ' of ' || coalesce(CAST(about AS TEXT), 'nothing')
                   || ' for ' || coalesce(audience, 'everyone')
               FROM log WHERE kind = 2 ORDER BY position";
    db.engine().rows(sql).await
}

/// Floors of the channel "news".
async fn floors(db: &Db) -> Vec<String> {
    let sql = r#"SELECT users.name || ' ' || floor || CASE WHEN "left" IS NULL THEN '' ELSE ' left' END
                 FROM memberships JOIN users ON users.id = memberships."user"
                 JOIN channels ON channels.id = memberships.channel WHERE channels.name = 'news' ORDER BY users.name"#;
    db.engine().rows(sql).await
}

/// How far retention went, of each channel or user.
async fn trimmed(db: &Db, table: &str) -> Vec<String> {
    db.engine().rows(&format!("SELECT name || ' ' || trimmed FROM {table} ORDER BY name")).await
}
