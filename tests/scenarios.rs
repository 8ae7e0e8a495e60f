//! The rules of the product, one small story each, told to the domain alone in the language of
//! `support/script.rs`. What is expected is all that the listeners are shown, in order; `#3` is a
//! position in the log.

#[path = "support/script.rs"]
mod script;

use std::time::Duration;

use channelstream::domain::listen::Departure;
use channelstream::domain::names::ListenerId;
use expect_test::expect;

use script::server::Server;
use script::step::{parse, request};
use script::text::connection;
use script::{check, many, run};

// ---- State ----

#[test]
fn a_state_change_is_answered_with_what_really_changed() {
    check(
        "
        ann connects a1 with mood=1 x=2
        ? ann sets mood=1 x=3 y='new'
        ",
        expect!["answer: changed x=3 y='new'; {mood=1 x=3 y='new'}"],
    );
}

#[test]
fn an_unknown_key_set_to_null_is_no_change_and_stores_nothing() {
    check(
        "
        ann connects a1
        ? ann sets mood=null
        ",
        expect!["answer: {}"],
    );
}

#[test]
fn a_known_key_set_to_null_stores_null() {
    check(
        "
        ann connects a1 with mood=1
        ? ann sets mood=null
        ? ann sets mood=null
        ",
        expect![[r#"
            answer: changed mood=null; {mood=null}
            answer: {mood=null}
        "#]],
    );
}

#[test]
fn one_and_one_point_zero_and_true_are_three_values() {
    check(
        "
        ann connects a1 with n=1
        ? ann sets n=1
        ? ann sets n=1.0
        ? ann sets n=true
        ",
        expect![[r#"
            answer: {n=1}
            answer: changed n=1.0; {n=1.0}
            answer: changed n=true; {n=true}
        "#]],
    );
}

#[test]
fn keys_are_never_removed_and_stay_in_their_order() {
    check(
        "
        ann connects a1 with b=1 a=2
        ? ann sets b=null c=3 a=4
        ",
        expect!["answer: changed b=null c=3 a=4; {b=null a=4 c=3}"],
    );
}

#[test]
fn a_state_change_is_shown_in_all_channels_of_the_user_that_ask_for_it() {
    check(
        "
        ann connects a1 to news, sport, talk public mood configured state
        bob connects b1 to talk, sport, news configured state
        configure sport
        b1 listens
        ann sets mood='ok'
        ",
        expect![[r#"
            b1 <- news: state of ann mood='ok' {mood='ok'}
            b1 <- talk: state of ann mood='ok' {mood='ok'}
        "#]],
    );
}

#[test]
fn a_state_change_is_shown_to_the_user_itself_and_once_a_channel() {
    check(
        "
        ann connects a1 to news public mood configured state
        ann connects a2 to news public mood
        a1 listens
        a2 listens
        ann sets mood=1
        ",
        expect!["a1, a2 <- news: state of ann mood=1 {mood=1}"],
    );
}

#[test]
fn a_state_change_shows_public_keys_only() {
    check(
        "
        ann connects a1 to news with a=1 public mood, a configured state
        bob connects b1 to news
        b1 listens
        ann sets mood=1 secret=2
        ",
        expect!["b1 <- news: state of ann mood=1 {a=1 mood=1}"],
    );
}

#[test]
fn a_change_of_private_keys_alone_is_not_shown() {
    check(
        "
        ann connects a1 to news public mood configured state
        a1 listens
        ? ann sets secret=2
        ",
        expect!["answer: changed secret=2; {secret=2}; public mood"],
    );
}

#[test]
fn public_keys_are_in_effect_before_the_change_is_shown() {
    check(
        "
        ann connects a1 to news public mood configured state
        a1 listens
        ? ann sets mood=1 secret=2 public secret
        ? ann sets mood=3 secret=2
        ",
        expect![[r#"
            a1 <- news: state of ann secret=2 {secret=2}
            answer: changed mood=1 secret=2; {mood=1 secret=2}; public secret
            answer: changed mood=3; {mood=3 secret=2}; public secret
        "#]],
    );
}

#[test]
fn new_public_keys_alone_are_no_change_of_state() {
    check(
        "
        ann connects a1 to news with mood=1 configured state
        a1 listens
        ? ann sets public mood
        ",
        expect!["answer: {mood=1}; public mood"],
    );
}

#[test]
fn public_keys_stay_unless_they_are_named_and_may_be_cleared() {
    check(
        "
        ann connects a1 with mood=1 public mood
        ? ann sets mood=2
        ? ann sets public nothing
        ",
        expect![[r#"
            answer: changed mood=2; {mood=2}; public mood
            answer: {mood=2}
        "#]],
    );
}

#[test]
fn a_key_without_value_may_be_public() {
    check(
        "
        ann connects a1 to news public mood configured presence
        bob connects b1 to news
        b1 listens
        ann connects a2
        ? ann sets public mood, other
        ",
        expect!["answer: {}; public mood, other"],
    );
}

#[test]
fn the_state_of_an_unknown_user_cannot_be_set() {
    check(
        "
        ? ann sets mood=1
        ",
        expect!["refused: UnknownUser"],
    );
}

// ---- Connecting ----

#[test]
fn connecting_creates_user_and_connection_and_channels() {
    check(
        "
        ? ann connects a1 to news, sport with mood=1 public mood
        ",
        expect![
            "answer: a1 is ann {mood=1}; public mood; in news, sport; news 1c 1u of ann; sport 1c 1u of ann; users ann{mood=1}; head 0"
        ],
    );
}

#[test]
fn the_answer_names_the_channels_sorted_with_repetitions_while_membership_counts_once() {
    check(
        "
        ? ann connects a1 to sport, news, sport
        ",
        expect![
            "answer: a1 is ann {}; in news, sport, sport; news 1c 1u of ann; sport 1c 1u of ann; users ann; head 0"
        ],
    );
}

#[test]
fn fresh_state_is_for_users_that_are_unknown() {
    check(
        "
        ? ann connects a1 fresh k=1, j=2 with k=3
        ? ann connects a2 fresh k=4, l=5
        ",
        expect![[r#"
            answer: a1 is ann {k=3 j=2}; head 0
            answer: a2 is ann {k=3 j=2}; head 0
        "#]],
    );
}

#[test]
fn fresh_state_stores_no_null() {
    check(
        "
        ? ann connects a1 fresh k=null, j=2
        ",
        expect!["answer: a1 is ann {j=2}; head 0"],
    );
}

#[test]
fn state_is_merged_with_every_connect_and_nobody_is_told() {
    check(
        "
        ann connects a1 to news with mood=1 public mood configured state
        a1 listens
        ? ann connects a2 with mood=2 x=3 public mood
        ",
        expect!["answer: a2 is ann {mood=2 x=3}; public mood; head 0"],
    );
}

#[test]
fn public_keys_are_replaced_with_every_connect() {
    check(
        "
        ann connects a1 with mood=1 public mood
        ? ann connects a2
        ",
        expect!["answer: a2 is ann {mood=1}; head 0"],
    );
}

#[test]
fn settings_in_a_connect_are_for_channels_that_it_creates() {
    check(
        "
        ann connects a1 to news configured history=2
        bob connects b1 to news, sport configured presence history=3
        show settings news
        show settings sport
        ",
        expect![[r#"
            news: history size=2 replay=100
            sport: presence history size=3 replay=100
        "#]],
    );
}

#[test]
fn the_answer_covers_the_channels_asked_for_and_not_older_ones() {
    check(
        "
        ann connects a1 to news
        ? ann connects a1 to sport
        ",
        expect!["answer: a1 is ann {}; in sport; sport 1c 1u of ann; users ann; head 0"],
    );
}

#[test]
fn a_known_id_of_the_same_user_is_the_same_connection_with_more_channels() {
    check(
        "
        ann connects a1 to news
        ? ann connects a1 to news, sport
        a1 listens
        post to news 'once'
        post to sport 'here'
        show news
        ",
        expect![[r#"
            answer: a1 is ann {}; in news, sport; news 1c 1u of ann; sport 1c 1u of ann; users ann; head 0
            a1 <- news: message 'once'
            a1 <- sport: message 'here'
            news 1c 1u of ann; users ann
        "#]],
    );
}

#[test]
fn a_known_id_of_another_user_is_refused_and_nothing_of_the_request_happens() {
    check(
        "
        ann connects a1 to news
        bob connects a1 to sport with mood=1
        show sport
        show @bob
        show news
        ",
        expect![[r#"
            refused: ForeignConnection
            no sport
            no bob
            news 1c 1u of ann; users ann
        "#]],
    );
}

#[test]
fn users_in_answers_come_with_their_full_state() {
    check(
        "
        ann connects a1 to news with mood=1 secret=2 public mood
        ? bob connects b1 to news
        ",
        expect!["answer: b1 is bob {}; in news; news 2c 2u of ann, bob; users ann{mood=1 secret=2}, bob; head 0"],
    );
}

#[test]
fn a_connect_tells_the_head_of_the_log() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one'; to news 'two'
        ? bob connects b1 to sport
        ",
        expect!["answer: b1 is bob {}; in sport; sport 1c 1u of bob; users bob; head 2"],
    );
}

// ---- Subscribing ----

#[test]
fn subscribing_answers_with_real_changes_and_covers_all_memberships() {
    check(
        "
        ann connects a1 to news
        ? a1 subscribes to talk, news, sport, talk
        ",
        expect![
            "answer: added sport, talk; in news, sport, talk; news 1c 1u of ann; sport 1c 1u of ann; talk 1c 1u of ann; users ann"
        ],
    );
}

#[test]
fn subscribing_creates_channels_with_their_settings() {
    check(
        "
        ann connects a1
        a1 subscribes to news configured history=3 presence
        show settings news
        ",
        expect!["news: presence history size=3 replay=100"],
    );
}

#[test]
fn unsubscribing_answers_with_real_changes_only() {
    check(
        "
        ann connects a1 to news, sport, talk
        ? a1 unsubscribes from talk, nowhere, news
        ",
        expect!["answer: removed news, talk; in sport; sport 1c 1u of ann; users ann"],
    );
}

#[test]
fn unsubscribing_what_is_no_member_announces_nothing() {
    check(
        "
        ann connects a1 to news configured presence
        bob connects b1 to sport
        a1 listens
        ? b1 unsubscribes from news
        ",
        expect!["answer: in sport; sport 1c 1u of bob; users bob"],
    );
}

#[test]
fn an_unknown_connection_can_neither_subscribe_nor_unsubscribe() {
    check(
        "
        ? a1 subscribes to news
        ? a1 unsubscribes from news
        show news
        ",
        expect![[r#"
            refused: UnknownConnection
            refused: UnknownConnection
            no news
        "#]],
    );
}

#[test]
fn a_member_gets_messages_from_its_subscription_to_its_end() {
    check(
        "
        ann connects a1
        a1 listens
        post to news 'too early'
        a1 subscribes to news
        post to news 'in time'
        a1 unsubscribes from news
        post to news 'too late'
        ",
        expect!["a1 <- news: message 'in time'"],
    );
}

// ---- Posting ----

#[test]
fn a_message_goes_to_every_connection_of_every_member_and_the_sender_is_not_special() {
    check(
        "
        ann connects a1 to news
        ann connects a2 to news
        bob connects b1 to news
        eve connects e1 to sport
        a1 listens
        a2 listens
        b1 listens
        e1 listens
        post to news 'hi' by ann
        ",
        expect!["a1, a2, b1 <- news: message 'hi' by ann"],
    );
}

#[test]
fn excluded_users_do_not_get_it() {
    check(
        "
        ann connects a1 to news
        bob connects b1 to news, sport
        a1 listens
        b1 listens
        post to news 'hi' except ann
        ",
        expect!["b1 <- news: message 'hi'"],
    );
}

#[test]
fn named_users_alone_get_it() {
    check(
        "
        ann connects a1 to news
        bob connects b1 to news
        a1 listens
        b1 listens
        post to news 'hi' only ann
        ",
        expect!["a1 <- news: message 'hi'"],
    );
}

#[test]
fn exclusion_beats_naming() {
    check(
        "
        ann connects a1 to news
        bob connects b1 to news
        a1 listens
        b1 listens
        post to news 'hi' only ann, bob except ann
        ",
        expect!["b1 <- news: message 'hi'"],
    );
}

#[test]
fn named_users_who_are_no_members_get_nothing_in_a_channel() {
    check(
        "
        ann connects a1 to news
        bob connects b1 to sport
        a1 listens
        b1 listens
        post to news 'hi' only bob
        ",
        expect![],
    );
}

#[test]
fn a_message_to_an_unknown_channel_reaches_nobody_and_creates_nothing() {
    check(
        "
        ann connects a1
        a1 listens
        ? post to news 'hi'
        show news
        ",
        expect![[r#"
            answer: 'hi'
            no news
        "#]],
    );
}

#[test]
fn a_message_without_target_is_dropped_from_the_answer() {
    check(
        "
        ? post 'nowhere'; to news 'hi' as m1
        show totals
        ",
        expect![[r#"
            answer: m1 'hi'
            posted 1, delivered 0
        "#]],
    );
}

#[test]
fn a_private_message_goes_to_every_connection_of_each_user_named_whatever_their_channels() {
    check(
        "
        ann connects a1 to news
        ann connects a2
        bob connects b1 to sport
        eve connects e1 to news
        a1 listens
        a2 listens
        b1 listens
        e1 listens
        post to @ann @bob 'psst'
        ",
        expect!["a1, a2, b1 <- private: message 'psst' #1"],
    );
}

#[test]
fn a_private_message_comes_in_one_copy_and_exclusion_wins() {
    check(
        "
        ann connects a1
        bob connects b1
        a1 listens
        b1 listens
        post to @ann @bob @ann 'psst' except bob
        ",
        expect!["a1 <- private: message 'psst' #1"],
    );
}

#[test]
fn users_who_are_not_known_are_passed_over_in_private_messages() {
    check(
        "
        ann connects a1
        a1 listens
        ? post to @nobody @ann 'psst' as m1; to @nobody 'psst' as m2
        ",
        expect![[r#"
            a1 <- private: message m1 'psst' #1
            answer: m1 'psst' #1, m2 'psst'
        "#]],
    );
}

#[test]
fn messages_of_one_request_arrive_in_its_order() {
    check(
        "
        ann connects a1 to news, sport configured history
        a1 listens
        post to news 'one'; to sport 'two'; to @ann 'three'; to news 'four' unlogged
        ",
        expect![[r#"
            a1 <- news: message 'one' #1
            a1 <- sport: message 'two' #2
            a1 <- private: message 'three' #3
            a1 <- news: message 'four'
        "#]],
    );
}

#[test]
fn messages_of_one_batch_arrive_in_the_order_of_the_requests() {
    check(
        "
        ann connects a1 to news, sport configured history
        a1 listens
        post to news 'one'
        & post to sport 'two' unlogged
        & post to news 'three'
        ",
        expect![[r#"
            a1 <- news: message 'one' #1
            a1 <- sport: message 'two'
            a1 <- news: message 'three' #2
        "#]],
    );
}

#[test]
fn a_message_may_lack_a_body_and_its_sender_need_not_be_known() {
    check(
        "
        ann connects a1 to news
        a1 listens
        post to news by eve
        ",
        expect!["a1 <- news: message by eve"],
    );
}

#[test]
fn who_is_in_a_channel_twice_gets_a_message_on_both_connections_and_once_on_each() {
    check(
        "
        ann connects a1 to news, sport
        ann connects a2 to news
        a1 listens
        a2 listens
        post to news 'hi' only ann, ann
        ",
        expect!["a1, a2 <- news: message 'hi'"],
    );
}

// ---- History ----

#[test]
fn history_holds_the_newest_messages_in_their_order() {
    check(
        "
        ann connects a1 to news configured history=2
        post to news 'one'
        post to news 'two'; to news 'three'
        show news
        ",
        expect!["news 1c 1u of ann: 'two' #2, 'three' #3; users ann"],
    );
}

#[test]
fn only_channels_that_store_history_have_one() {
    check(
        "
        ann connects a1 to news
        post to news 'one'
        show news
        ",
        expect!["news 1c 1u of ann; users ann"],
    );
}

#[test]
fn messages_that_must_not_be_stored_are_not() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one' unlogged
        show news
        ",
        expect!["news 1c 1u of ann; users ann"],
    );
}

#[test]
fn presence_and_state_and_edits_and_deletions_are_not_in_the_history() {
    check(
        "
        ann connects a1 to news public mood configured history presence state
        post to news 'one' as m1; to news 'two' as m2
        bob connects b1 to news
        ann sets mood=1
        edit m1 in news 'won'
        delete m2 in news
        show news
        ",
        expect!["news 2c 2u of ann, bob: m1 'won' edited #1~3; users ann{mood=1}, bob"],
    );
}

#[test]
fn a_history_of_size_zero_stores_nothing() {
    check(
        "
        ann connects a1 to news configured history=0
        a1 listens
        post to news 'one'
        show news
        ",
        expect![[r#"
            a1 <- news: message 'one'
            news 1c 1u of ann; users ann
        "#]],
    );
}

#[test]
fn a_smaller_size_cuts_at_once() {
    check(
        "
        ann connects a1 to news configured history=3
        post to news 'one'; to news 'two'; to news 'three'
        configure news history=1
        show news
        ",
        expect!["news 1c 1u of ann: 'three' #3; users ann"],
    );
}

#[test]
fn a_larger_size_shows_retained_messages_again() {
    check(
        "
        ann connects a1 to news configured history=1
        post to news 'one'; to news 'two'; to news 'three'
        configure news history=2
        show news
        ",
        expect!["news 1c 1u of ann: 'two' #2, 'three' #3; users ann"],
    );
}

#[test]
fn a_size_of_zero_hides_the_history_and_growing_brings_it_back() {
    check(
        "
        ann connects a1 to news configured history=2
        post to news 'one'; to news 'two'
        configure news history=0
        show news
        configure news history=2
        show news
        ",
        expect![[r#"
            news 1c 1u of ann; users ann
            news 1c 1u of ann: 'one' #1, 'two' #2; users ann
        "#]],
    );
}

#[test]
fn turning_history_off_keeps_what_it_holds() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one'
        configure news
        post to news 'two'
        show news
        ",
        expect!["news 1c 1u of ann: 'one' #1; users ann"],
    );
}

#[test]
fn users_see_in_answers_only_messages_that_were_meant_for_them() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'all'; to news 'for ann' only ann; to news 'not for ann' except ann; to news 'hers' only ann, bob except bob
        show news for ann
        show news for bob
        ? bob connects b1 to news
        ? b1 subscribes to sport
        ? b1 unsubscribes from sport
        ",
        expect![[r#"
            news 1c 1u of ann: 'all' #1, 'for ann' #2, 'hers' #4; users ann
            news 1c 1u of ann: 'all' #1, 'not for ann' #3; users ann
            answer: b1 is bob {}; in news; news 2c 2u of ann, bob: 'all' #1, 'not for ann' #3; users ann, bob; head 4
            answer: added sport; in news, sport; news 2c 2u of ann, bob: 'all' #1, 'not for ann' #3; sport 1c 1u of bob; users ann, bob
            answer: removed sport; in news; news 2c 2u of ann, bob: 'all' #1, 'not for ann' #3; users ann, bob
        "#]],
    );
}

#[test]
fn back_ends_see_the_whole_history() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'for ann' only ann; to news 'not for ann' except ann
        show news
        ",
        expect!["news 1c 1u of ann: 'for ann' #1, 'not for ann' #2; users ann"],
    );
}

#[test]
fn history_is_left_out_where_nobody_asks_for_it() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one'
        show news without history
        ",
        expect!["news 1c 1u of ann; users ann"],
    );
}

#[test]
fn after_a_deletion_an_older_retained_message_comes_back() {
    check(
        "
        ann connects a1 to news configured history=2
        post to news 'one'; to news 'two'; to news 'three' as m3
        delete m3 in news
        show news
        ",
        expect!["news 1c 1u of ann: 'one' #1, 'two' #2; users ann"],
    );
}

#[test]
fn a_message_leaves_the_history_when_its_time_is_over() {
    check(
        "
        ann connects a1 to news configured history ttl=60
        a1 listens
        post to news 'one'
        30 seconds pass
        post to news 'two'
        29 seconds pass
        show news
        1 seconds pass
        show news
        ",
        expect![[r#"
            a1 <- news: message 'one' #1
            a1 <- news: message 'two' #2
            news 1c 1u of ann: 'one' #1, 'two' #2; users ann
            news 1c 1u of ann: 'two' #2; users ann
        "#]],
    );
}

// ---- Views ----

#[test]
fn channels_are_shown_in_the_order_asked_for_without_unknown_and_repeated_ones() {
    check(
        "
        ann connects a1 to news, sport
        show sport, nowhere, news, sport
        ",
        expect!["sport 1c 1u of ann; news 1c 1u of ann; users ann"],
    );
}

#[test]
fn users_in_several_channels_are_listed_once() {
    check(
        "
        ann connects a1 to news, sport with mood=1
        bob connects b1 to sport
        show news, sport
        ",
        expect!["news 1c 1u of ann; sport 2c 2u of ann, bob; users ann{mood=1}, bob"],
    );
}

#[test]
fn excluded_channels_are_left_out_with_their_users() {
    check(
        "
        ann connects a1 to news
        bob connects b1 to sport, news
        eve connects e1 to sport
        show news, sport without @sport
        ",
        expect!["news 2c 2u of ann, bob; users ann, bob"],
    );
}

#[test]
fn totals_are_real_where_users_are_left_out() {
    check(
        "
        ann connects a1 to news
        ann connects a2 to news
        bob connects b1 to news
        show news without users
        ",
        expect!["news 3c 2u"],
    );
}

#[test]
fn users_are_sorted() {
    check(
        "
        eve connects e1 to news
        bob connects b1 to news
        Eve connects E1 to news
        ann connects a1 to news
        show news
        ",
        expect!["news 4c 4u of Eve, ann, bob, eve; users Eve, ann, bob, eve"],
    );
}

// ---- Editing ----

#[test]
fn an_edit_replaces_what_it_names_and_leaves_the_rest() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one' as m1 by ann; to news 'two' as m2; to news 'three' as m3
        edit m1 in news 'won'; m2 in news by eve; m3 in news dated 1999
        show news
        ",
        expect![[r#"
            a1 <- news: message m1 'one' by ann #1
            a1 <- news: message m2 'two' #2
            a1 <- news: message m3 'three' #3
            a1 <- news: edit m1 'won' #4
            a1 <- news: edit m2 by eve #5
            a1 <- news: edit m3 dated 1999 #6
            news 1c 1u of ann: m1 'won' by ann edited #1~4, m2 'two' by eve edited #2~5, m3 'three' dated 1999 edited #3~6; users ann
        "#]],
    );
}

#[test]
fn an_edit_without_content_only_marks_the_message() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one' as m1
        edit m1 in news
        show news
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            a1 <- news: edit m1 #2
            news 1c 1u of ann: m1 'one' edited #1~2; users ann
        "#]],
    );
}

#[test]
fn an_edit_without_target_is_echoed_and_does_nothing() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one' as m1
        ? edit m1 'won'
        show news
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            answer: m1
            news 1c 1u of ann: m1 'one' #1; users ann
        "#]],
    );
}

#[test]
fn an_edit_looks_in_its_channel_only() {
    check(
        "
        ann connects a1 to news, sport configured history
        a1 listens
        post to news 'one' as m1
        ? edit m1 in sport 'won'
        ? edit m1 in @ann 'won'
        show news
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            a1 <- sport: edit m1 'won'
            answer: m1
            a1 <- private: edit m1 'won'
            answer: m1
            news 1c 1u of ann: m1 'one' #1; users ann
        "#]],
    );
}

#[test]
fn an_edit_of_an_unknown_message_is_announced_and_not_logged() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        ? edit m1 in news 'won'
        ? edit m1 in @ann 'won'
        show head
        ",
        expect![[r#"
            a1 <- news: edit m1 'won'
            answer: m1
            a1 <- private: edit m1 'won'
            answer: m1
            head 0
        "#]],
    );
}

#[test]
fn an_edit_in_an_unknown_channel_reaches_nobody() {
    check(
        "
        ann connects a1
        a1 listens
        ? edit m1 in news 'won'
        show news
        ",
        expect![[r#"
            answer: m1
            no news
        "#]],
    );
}

#[test]
fn an_edit_goes_to_the_audience_of_the_message_whatever_it_names() {
    check(
        "
        ann connects a1 to news configured history
        bob connects b1 to news
        eve connects e1 to news
        a1 listens
        b1 listens
        e1 listens
        post to news 'one' as m1 only ann, bob
        edit m1 in news 'two'
        edit m1 in news 'three' only eve
        edit m1 in news 'four' except ann
        show news for bob
        show news for eve
        ",
        expect![[r#"
            a1, b1 <- news: message m1 'one' #1
            a1, b1 <- news: edit m1 'two' #2
            a1, b1 <- news: edit m1 'three' #3
            a1, b1 <- news: edit m1 'four' #4
            news 3c 3u of ann, bob, eve: m1 'four' edited #1~4; users ann, bob, eve
            news 3c 3u of ann, bob, eve; users ann, bob, eve
        "#]],
    );
}

#[test]
fn an_edit_goes_to_the_audience_of_a_message_that_is_only_among_the_recent_frames() {
    check(
        "
        ann connects a1 to news
        bob connects b1 to news
        a1 listens
        b1 listens
        post to news 'one' as m1 only ann
        edit m1 in news 'two'
        ",
        expect![[r#"
            a1 <- news: message m1 'one'
            a1 <- news: edit m1 'two'
        "#]],
    );
}

#[test]
fn an_edit_of_a_private_message_goes_to_its_audience() {
    check(
        "
        ann connects a1
        bob connects b1
        eve connects e1
        a1 listens
        b1 listens
        e1 listens
        post to @ann @bob 'one' as m1 except bob; to @ann @bob 'two' as m2
        edit m1 in @eve 'three'; m2 in @eve @ann 'four'
        ",
        expect![[r#"
            a1 <- private: message m1 'one' #1
            a1, b1 <- private: message m2 'two' #2
            a1 <- private: edit m1 'three' #3
            a1, b1 <- private: edit m2 'four' #4
        "#]],
    );
}

#[test]
fn an_edit_of_an_unlogged_private_message_goes_to_its_audience() {
    check(
        "
        ann connects a1
        bob connects b1
        eve connects e1
        a1 listens
        b1 listens
        e1 listens
        post to @ann @bob 'one' as m1 unlogged
        edit m1 in @ann @eve 'two'
        ",
        expect![[r#"
            a1, b1 <- private: message m1 'one'
            a1, b1 <- private: edit m1 'two'
        "#]],
    );
}

#[test]
fn edits_of_one_message_in_one_request_build_on_each_other() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one' as m1
        edit m1 in news 'two'; m1 in news by eve
        show news
        ",
        expect!["news 1c 1u of ann: m1 'two' by eve edited #1~3; users ann"],
    );
}

#[test]
fn edits_of_one_unlogged_message_in_one_request_build_on_each_other() {
    check(
        "
        ann connects a1 to news
        post to news 'one' as m1
        edit m1 in news 'two'; m1 in news by eve
        a1 listens
        ",
        expect![[r#"
            a1 <- catchup news: message m1 'two' by eve edited
            a1 <- catchup news: edit m1 'two'
            a1 <- catchup news: edit m1 by eve
        "#]],
    );
}

#[test]
fn an_edit_that_follows_in_the_same_batch_waits_for_the_message() {
    check(
        "
        ann connects a1 to news configured history
        bob connects b1 to news
        a1 listens
        b1 listens
        post to news 'one' as m1 only ann
        & edit m1 in news 'two'
        & edit m1 in news 'three'
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            (next batch)
            a1 <- news: edit m1 'two' #2
            (next batch)
            a1 <- news: edit m1 'three' #3
        "#]],
    );
}

#[test]
fn an_edit_that_follows_in_the_same_batch_waits_for_a_message_that_is_not_stored() {
    check(
        "
        ann connects a1 to news, sport configured history
        bob connects b1 to news
        a1 listens
        b1 listens
        post to sport 'zero'
        & post to news 'one' as m1 only ann unlogged
        & edit m1 in news 'two'
        ",
        expect![[r#"
            a1 <- sport: message 'zero' #1
            a1 <- news: message m1 'one'
            (next batch)
            a1 <- news: edit m1 'two'
        "#]],
    );
}

#[test]
fn an_edit_of_a_message_older_than_the_history_finds_it_in_the_log() {
    check(
        "
        ann connects a1 to news configured history=1
        a1 listens
        post to news 'one' as m1 only ann; to news 'two'
        edit m1 in news 'won'
        configure news history=2
        show news
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            a1 <- news: message 'two' #2
            a1 <- news: edit m1 'won' #3
            news 1c 1u of ann: m1 'won' edited #1~3, 'two' #2; users ann
        "#]],
    );
}

#[test]
fn an_edit_of_a_deleted_message_is_announced_as_unknown() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one' as m1
        delete m1 in news
        ? edit m1 in news 'won'
        show news
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            a1 <- news: delete m1 #2
            a1 <- news: edit m1 'won'
            answer: m1
            news 1c 1u of ann; users ann
        "#]],
    );
}

#[test]
fn an_edit_in_the_batch_that_drops_its_message_from_the_log_comes_before_that() {
    check(
        &format!(
            "
        ann connects a1 to news configured history=1 replay=0
        post to news 'one' as m1
        {}
        ? edit m1 in news 'won'
            ",
            many(17, "news")
        ),
        expect!["answer: m1 #19"],
    );
}

// ---- Deleting ----

#[test]
fn a_deleted_message_leaves_the_history_and_is_announced() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one' as m1; to news 'two'
        ? delete m1 in news
        show news
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            a1 <- news: message 'two' #2
            a1 <- news: delete m1 #3
            answer: m1 #3
            news 1c 1u of ann: 'two' #2; users ann
        "#]],
    );
}

#[test]
fn a_deletion_without_target_does_nothing() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one' as m1
        ? delete m1
        show news
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            answer: m1
            news 1c 1u of ann: m1 'one' #1; users ann
        "#]],
    );
}

#[test]
fn a_deletion_of_an_unknown_message_is_announced_and_logged_where_history_is_stored() {
    check(
        "
        ann connects a1 to news configured history
        a1 subscribes to sport
        a1 listens
        ? delete m1 in news; m1 in sport; m1 in @ann; m1 in nowhere
        ",
        expect![[r#"
            a1 <- news: delete m1 #1
            a1 <- sport: delete m1
            a1 <- private: delete m1
            answer: m1 #1, m1, m1, m1
        "#]],
    );
}

#[test]
fn a_deletion_of_a_logged_message_is_logged_though_history_was_turned_off() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one' as m1
        configure news
        ? delete m1 in news
        show news
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            a1 <- news: delete m1 #2
            answer: m1 #2
            news 1c 1u of ann; users ann
        "#]],
    );
}

#[test]
fn a_deletion_goes_to_the_audience_of_the_message_whatever_it_names() {
    check(
        "
        ann connects a1 to news configured history
        bob connects b1 to news
        a1 listens
        b1 listens
        post to news 'one' as m1 only ann; to news 'two' as m2 except bob unlogged
        delete m1 in news only bob; m2 in news
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            a1 <- news: message m2 'two'
            a1 <- news: delete m1 #2
            a1 <- news: delete m2 #3
        "#]],
    );
}

#[test]
fn a_deletion_of_a_private_message_goes_to_its_audience() {
    check(
        "
        ann connects a1
        bob connects b1
        eve connects e1
        a1 listens
        b1 listens
        e1 listens
        post to @ann @bob 'one' as m1
        ? delete m1 in @eve
        ",
        expect![[r#"
            a1, b1 <- private: message m1 'one' #1
            a1, b1 <- private: delete m1 #2
            answer: m1 #2
        "#]],
    );
}

#[test]
fn deleting_again_is_announced_again() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one' as m1
        ? delete m1 in news; m1 in news
        ? delete m1 in news
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            a1 <- news: delete m1 #2
            a1 <- news: delete m1 #3
            answer: m1 #2, m1 #3
            a1 <- news: delete m1 #4
            answer: m1 #4
        "#]],
    );
}

#[test]
fn a_deletion_takes_back_an_edited_message() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one' as m1
        edit m1 in news 'two'
        delete m1 in news
        show news
        ",
        expect!["news 1c 1u of ann; users ann"],
    );
}

#[test]
fn a_deletion_that_follows_in_the_same_batch_waits_for_the_message() {
    check(
        "
        ann connects a1 to news configured history
        bob connects b1 to news
        a1 listens
        b1 listens
        post to news 'one' as m1 only ann
        & delete m1 in news
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            (next batch)
            a1 <- news: delete m1 #2
        "#]],
    );
}

// ---- Settings ----

#[test]
fn stock_settings_that_are_not_named_go_back_to_their_defaults_and_ours_stay() {
    check(
        "
        configure news presence lists state history=3 replay=7 ttl=60 frames=off
        show settings news
        configure news history
        show settings news
        ",
        expect![[r#"
            news: presence lists state history size=3 replay=7 ttl=60 frames=off
            news: history size=10 replay=7 ttl=60
        "#]],
    );
}

#[test]
fn a_channel_without_settings_is_created_or_stays_as_it_is() {
    check(
        "
        create news
        show settings news
        configure news presence
        create news
        show settings news
        ",
        expect![[r#"
            news: size=10 replay=100
            news: presence size=10 replay=100
        "#]],
    );
}

#[test]
fn sizes_beyond_the_limit_are_cut() {
    check(
        "
        configure news history=2000000 replay=3000000
        show settings news
        ",
        expect!["news: history size=100000 replay=100000"],
    );
}

#[test]
fn configuring_shows_nothing_to_listeners_and_answers_without_users() {
    check(
        "
        ann connects a1 to news
        a1 listens
        ? configure news presence history
        ",
        expect!["answer: news 1c 1u"],
    );
}

#[test]
fn a_channel_that_forgets_frames_drops_those_it_has() {
    check(
        "
        ann connects a1 to news
        post to news 'one'
        configure news frames=off
        post to news 'two'
        configure news
        post to news 'three'
        a1 listens
        ",
        expect!["a1 <- catchup news: message 'three'"],
    );
}

#[test]
fn settings_outlive_a_restart() {
    check(
        "
        configure news presence lists state history=3 replay=7 ttl=60 frames=off
        restart
        create news
        show settings news
        ",
        expect!["news: presence lists state history size=3 replay=7 ttl=60 frames=off"],
    );
}

// ---- Catching up ----

#[test]
fn a_new_connection_catches_up_from_its_connect() {
    check(
        "
        ann connects a0 to news
        post to news 'before'
        ann connects a1 to news
        post to news 'after'
        a1 listens
        ",
        expect!["a1 <- catchup news: message 'after'"],
    );
}

#[test]
fn catching_up_goes_channel_by_channel_in_name_order_and_then_through_private_messages() {
    check(
        "
        ann connects a1 to sport, News, news
        post to @ann 'one'; to sport 'two'; to news 'three'; to News 'four'; to sport 'five'
        a1 listens
        ",
        expect![[r#"
            a1 <- catchup News: message 'four'
            a1 <- catchup news: message 'three'
            a1 <- catchup sport: message 'two'
            a1 <- catchup sport: message 'five'
            a1 <- catchup private: message 'one' #1
        "#]],
    );
}

#[test]
fn a_channel_that_keeps_no_frames_catches_nobody_up() {
    check(
        "
        ann connects a1 to news configured frames=off history
        post to news 'one'
        a1 listens
        ",
        expect![],
    );
}

#[test]
fn catching_up_honours_the_audience() {
    check(
        "
        ann connects a1 to news
        bob connects b1 to news
        post to news 'not ann' except ann; to news 'only ann' only ann; to @bob 'bob'
        a1 listens
        b1 listens
        ",
        expect![[r#"
            a1 <- catchup news: message 'only ann'
            b1 <- catchup news: message 'not ann'
            b1 <- catchup private: message 'bob' #1
        "#]],
    );
}

#[test]
fn catching_up_shows_presence_of_others_and_never_ones_own() {
    check(
        "
        ann connects a1 to news configured presence
        bob connects b1 to news
        a1 listens
        b1 listens
        ",
        expect!["a1 <- catchup news: joined bob"],
    );
}

#[test]
fn a_channel_that_was_joined_later_is_caught_up_and_one_that_was_left_is_not() {
    check(
        "
        ann connects a1 to news
        post to news 'one'; to sport 'no such channel'
        create sport
        post to sport 'two'
        a1 subscribes to sport
        a1 unsubscribes from news
        a1 listens
        ",
        expect!["a1 <- catchup sport: message 'two'"],
    );
}

#[test]
fn an_edited_message_is_caught_up_as_it_is_now_and_its_edit_follows() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one' as m1; to news 'two' as m2 unlogged
        edit m1 in news 'won'; m2 in news 'too'
        a1 listens
        ",
        expect![[r#"
            a1 <- catchup news: message m1 'won' edited #1
            a1 <- catchup news: message m2 'too' edited
            a1 <- catchup news: edit m1 'won' #2
            a1 <- catchup news: edit m2 'too'
        "#]],
    );
}

#[test]
fn a_deleted_message_is_not_caught_up_and_its_deletion_follows() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one' as m1; to news 'two' as m2 unlogged; to @ann 'three' as m3
        delete m1 in news; m2 in news; m3 in @ann
        a1 listens
        ",
        expect![[r#"
            a1 <- catchup news: delete m1 #3
            a1 <- catchup news: delete m2 #4
            a1 <- catchup private: delete m3 #5
        "#]],
    );
}

#[test]
fn a_deleted_body_is_never_sent_again() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one' as m1
        edit m1 in news 'a secret'
        delete m1 in news
        a1 listens
        ",
        expect!["a1 <- catchup news: delete m1 #3"],
    );
}

#[test]
fn who_comes_back_gets_what_it_was_not_sent() {
    check(
        "
        ann connects a1 to news
        a1 listens
        post to news 'one'
        a1 drops
        post to news 'two'
        a1 listens
        post to news 'three'
        a1 drops
        a1 listens
        ",
        expect![[r#"
            a1 <- news: message 'one'
            a1 <- catchup news: message 'two'
            a1 <- news: message 'three'
        "#]],
    );
}

#[test]
fn who_comes_back_within_a_second_is_sent_nothing_twice() {
    check(
        "
        ann connects a1 to news
        a1 listens
        post to news 'one'
        a1 closes
        a1 listens
        ",
        expect!["a1 <- news: message 'one'"],
    );
}

#[test]
fn what_was_not_written_is_sent_again() {
    check(
        "
        ann connects a1 to news
        a1 listens
        post to news 'one'
        a1 stalls
        post to news 'two'
        a1 drops
        a1 listens
        ",
        expect![[r#"
            a1 <- news: message 'one'
            a1 <- catchup news: message 'two'
        "#]],
    );
}

#[test]
fn a_socket_that_is_lost_before_it_was_caught_up_loses_nothing() {
    check(
        "
        ann connects a1 to news
        post to news 'one'
        a1 flickers
        a1 listens
        ",
        expect!["a1 <- catchup news: message 'one'"],
    );
}

#[test]
fn a_second_socket_takes_over_and_is_sent_nothing_twice() {
    check(
        "
        ann connects a1 to news
        a1 listens
        post to news 'one'
        a1 listens
        post to news 'two'
        ",
        expect![[r#"
            a1 <- news: message 'one'
            a1 <- news: message 'two'
        "#]],
    );
}

#[test]
fn connections_of_one_user_catch_up_each_for_itself() {
    check(
        "
        ann connects a1 to news
        ann connects a2 to news
        a1 listens
        post to news 'one'
        a2 listens
        a1 drops
        a1 listens
        ",
        expect![[r#"
            a1 <- news: message 'one'
            a2 <- catchup news: message 'one'
        "#]],
    );
}

#[test]
fn catching_up_is_not_disturbed_by_a_connect_with_the_same_id() {
    check(
        "
        ann connects a1 to news
        post to news 'one'
        ann connects a1 to news
        a1 listens
        ",
        expect!["a1 <- catchup news: message 'one'"],
    );
}

// ---- Presence ----

#[test]
fn a_user_joins_with_its_first_connection_and_parts_with_its_last() {
    check(
        "
        bob connects b1 to news configured presence
        b1 listens
        ann connects a1 to news
        ann connects a2
        a2 subscribes to news
        a1 unsubscribes from news
        a2 unsubscribes from news
        ",
        expect![[r#"
            b1 <- news: joined ann
            b1 <- news: parted ann
        "#]],
    );
}

#[test]
fn presence_is_not_shown_to_any_connection_of_the_user_itself() {
    check(
        "
        ann connects a1 to news configured presence
        ann connects a2 to sport
        a1 listens
        a2 listens
        bob connects b1 to news
        b1 listens
        a2 subscribes to news
        a1 unsubscribes from news
        a2 unsubscribes from news
        ",
        expect![[r#"
            a1 <- news: joined bob
            b1 <- news: parted ann
        "#]],
    );
}

#[test]
fn presence_is_for_channels_that_ask_for_it() {
    check(
        "
        bob connects b1 to news
        b1 listens
        ann connects a1 to news
        configure news presence
        a1 unsubscribes from news
        ",
        expect!["b1 <- news: parted ann"],
    );
}

#[test]
fn who_joins_is_shown_with_its_public_state() {
    check(
        "
        bob connects b1 to news configured presence
        b1 listens
        ann connects a1 to news with mood=1 secret=2 public mood
        a1 unsubscribes from news
        ",
        expect![[r#"
            b1 <- news: joined ann{mood=1}
            b1 <- news: parted ann
        "#]],
    );
}

#[test]
fn all_members_are_listed_with_their_public_state_where_the_channel_asks_for_it() {
    check(
        "
        bob connects b1 to news with mood='sad' secret=1 public mood configured presence lists
        b1 listens
        eve connects e1 to news
        ann connects a1 to news with mood=1 public mood
        a1 unsubscribes from news
        ",
        expect![[r#"
            b1 <- news: joined eve among bob{mood='sad'}, eve
            b1 <- news: joined ann{mood=1} among ann{mood=1}, bob{mood='sad'}, eve
            b1 <- news: parted ann among bob{mood='sad'}, eve
        "#]],
    );
}

#[test]
fn subscribing_again_is_not_joining() {
    check(
        "
        bob connects b1 to news configured presence
        b1 listens
        ann connects a1 to news
        a1 subscribes to news
        ann connects a1 to news
        ",
        expect!["b1 <- news: joined ann"],
    );
}

#[test]
fn who_subscribes_and_unsubscribes_in_one_batch_joins_and_parts() {
    check(
        "
        bob connects b1 to news configured presence
        b1 listens
        ann connects a1
        a1 subscribes to news
        & a1 unsubscribes from news
        ",
        expect![[r#"
            b1 <- news: joined ann
            (next batch)
            b1 <- news: parted ann
        "#]],
    );
}

#[test]
fn a_connection_that_ends_parts_from_all_its_channels() {
    check(
        "
        bob connects b1 to sport, news, talk configured presence
        b1 listens
        ann connects a1 to talk, news, sport
        16 seconds pass
        ",
        expect![[r#"
            b1 <- talk: joined ann
            b1 <- news: joined ann
            b1 <- sport: joined ann
            b1 <- news: parted ann
            b1 <- sport: parted ann
            b1 <- talk: parted ann
        "#]],
    );
}

#[test]
fn a_user_with_another_connection_does_not_part() {
    check(
        "
        bob connects b1 to news configured presence
        b1 listens
        ann connects a1 to news
        ann connects a2 to news
        a2 listens
        16 seconds pass
        show news
        ",
        expect![[r#"
            b1 <- news: joined ann
            news 2c 2u of ann, bob; users ann, bob
        "#]],
    );
}

// ---- Lifetimes ----

#[test]
fn a_connection_that_nobody_listens_to_ends_after_its_grace() {
    check(
        "
        ann connects a1 to news
        14 seconds pass
        show news
        1 seconds pass
        show news
        a1 listens
        ",
        expect![[r#"
            news 1c 1u of ann; users ann
            news 0c 0u
            a1 <- unknown
        "#]],
    );
}

#[test]
fn a_connection_lives_while_somebody_listens() {
    check(
        "
        ann connects a1 to news
        14 seconds pass
        a1 listens
        100 seconds pass
        post to news 'hi'
        ",
        expect!["a1 <- news: message 'hi'"],
    );
}

#[test]
fn a_lost_socket_may_come_back_during_the_grace() {
    check(
        "
        ann connects a1 to news
        a1 listens
        a1 drops
        14 seconds pass
        a1 listens
        100 seconds pass
        a1 drops
        15 seconds pass
        a1 listens
        ",
        expect!["a1 <- unknown"],
    );
}

#[test]
fn a_socket_that_its_client_closed_ends_its_connection_at_the_next_sweep() {
    check(
        "
        ann connects a1 to news
        bob connects b1 to news
        configure news presence
        b1 listens
        a1 listens
        a1 closes
        show news
        1 seconds pass
        a1 listens
        ",
        expect![[r#"
            news 2c 2u of ann, bob; users ann, bob
            b1 <- news: parted ann
            a1 <- unknown
        "#]],
    );
}

#[test]
fn a_connection_whose_client_closed_the_socket_may_be_reopened_until_the_sweep() {
    check(
        "
        ann connects a1 to news
        a1 listens
        a1 closes
        a1 listens
        100 seconds pass
        post to news 'hi'
        ",
        expect!["a1 <- news: message 'hi'"],
    );
}

#[test]
fn a_dismissed_connection_ends_at_the_next_sweep_and_its_socket_with_it() {
    check(
        "
        ann connects a1 to news
        a1 listens
        a1 is dismissed
        post to news 'still here'
        1 seconds pass
        post to news 'gone'
        a1 listens
        ",
        expect![[r#"
            a1 <- news: message 'still here'
            a1 <- dismissed
            a1 <- unknown
        "#]],
    );
}

#[test]
fn a_dismissed_connection_ends_though_somebody_listens_on_it_anew() {
    check(
        "
        ann connects a1 to news
        a1 listens
        a1 is dismissed
        a1 drops
        a1 listens
        1 seconds pass
        ",
        expect!["a1 <- dismissed"],
    );
}

#[test]
fn a_connect_with_a_known_id_renews_its_grace() {
    check(
        "
        ann connects a1 to news
        14 seconds pass
        ann connects a1
        14 seconds pass
        a1 listens
        ",
        expect![],
    );
}

#[test]
fn a_connect_with_a_known_id_takes_back_that_the_client_closed_it() {
    check(
        "
        ann connects a1 to news
        a1 listens
        a1 closes
        ann connects a1
        1 seconds pass
        a1 listens
        post to news 'hi'
        ",
        expect!["a1 <- news: message 'hi'"],
    );
}

#[test]
fn a_connect_with_a_known_id_takes_back_that_the_client_dismissed_it() {
    check(
        "
        ann connects a1 to news
        a1 listens
        a1 is dismissed
        ann connects a1
        100 seconds pass
        post to news 'hi'
        ",
        expect!["a1 <- news: message 'hi'"],
    );
}

#[test]
fn all_connections_whose_time_is_over_end_in_one_sweep() {
    check(
        "
        bob connects b1 to news configured presence
        b1 listens
        ann connects a1 to news
        ann connects a2 to news
        ann connects a3 to news
        eve connects e1 to news
        eve connects e2 to news
        15 seconds pass
        show news
        ",
        expect![[r#"
            b1 <- news: joined ann
            b1 <- news: joined eve
            b1 <- news: parted ann
            b1 <- news: parted eve
            news 1c 1u of bob; users bob
        "#]],
    );
}

#[test]
fn connections_without_channels_end_as_well() {
    check(
        "
        ann connects a1
        15 seconds pass
        a1 listens
        ",
        expect!["a1 <- unknown"],
    );
}

#[test]
fn a_channel_outlives_its_members() {
    check(
        "
        ann connects a1 to news configured history presence
        post to news 'hi'
        200 seconds pass
        create news
        show news
        show settings news
        ",
        expect![[r#"
            news 0c 0u: 'hi' #1
            news: presence history size=10 replay=100
        "#]],
    );
}

#[test]
fn a_user_outlives_its_connections_with_its_state() {
    check(
        "
        ann connects a1 with mood=1 public mood
        200 seconds pass
        ? ann connects a2 public mood
        ",
        expect!["answer: a2 is ann {mood=1}; public mood; head 0"],
    );
}

#[test]
fn a_channel_that_left_memory_is_the_same_when_it_comes_back() {
    check(
        "
        ann connects a1 to news configured history=2 replay=3
        post to news 'one' as m1; to news 'two' as m2; to news 'three' as m3; to news 'four' as m4
        edit m3 in news 'tree'
        200 seconds pass
        show news
        ? bob connects b1 to news
        ? post to news 'again' as m1
        ? delete m4 in news
        show news
        ",
        expect![[r#"
            no news
            answer: b1 is bob {}; in news; news 1c 1u of bob: m3 'tree' edited #3~5, m4 'four' #4; users bob; head 5
            answer: m1 'one' #1 duplicate
            answer: m4 #6
            news 1c 1u of bob: m2 'two' #2, m3 'tree' edited #3~5; users bob
        "#]],
    );
}

#[test]
fn a_user_that_left_memory_is_still_known_to_private_messages() {
    check(
        "
        ann connects a1
        200 seconds pass
        ? post to @ann 'psst' as m1
        ",
        expect!["answer: m1 'psst' #1"],
    );
}

#[test]
fn a_message_to_a_user_who_is_forgotten_in_the_same_batch_waits_until_it_is_gone() {
    check(
        "
        ann connects a1
        bob connects b1
        post to @ann 'one' as m1
        100 seconds pass
        forget ann idle 50
        & ? edit m1 in @bob 'won'
        & ? post to @ann 'two' as m1
        ",
        expect![[r#"
            (next batch)
            answer: m1
            (next batch)
            answer: m1 'two'
        "#]],
    );
}

#[test]
fn a_deletion_of_what_a_user_who_is_forgotten_in_the_same_batch_held_waits_until_it_is_gone() {
    check(
        "
        ann connects a1
        bob connects b1
        post to @ann 'one' as m1
        100 seconds pass
        forget ann idle 50
        & ? delete m1 in @bob
        ",
        expect![[r#"
            (next batch)
            answer: m1
        "#]],
    );
}

#[test]
fn an_idle_user_is_forgotten_with_its_state() {
    check(
        "
        ann connects a1 with mood=1 public mood
        bob connects b1
        100 seconds pass
        bob sets mood=2
        post to @ann 'psst' as m1
        forget ann, bob idle 50
        show @ann
        show @bob
        ? ann sets mood=1
        ? post to @ann 'psst' as m1
        ? ann connects a2
        ",
        expect![[r#"
            no ann
            bob: {mood=2}
            refused: UnknownUser
            answer: m1 'psst'
            answer: a2 is ann {}; head 1
        "#]],
    );
}

#[test]
fn a_user_is_not_forgotten_while_it_is_connected() {
    check(
        "
        ann connects a1 with mood=1
        a1 listens
        100 seconds pass
        forget ann idle 50
        show @ann
        ",
        expect!["ann: {mood=1}"],
    );
}

#[test]
fn a_user_that_was_connected_lately_is_not_forgotten() {
    check(
        "
        ann connects a1 with mood=1
        a1 listens
        100 seconds pass
        a1 closes
        10 seconds pass
        forget ann idle 50
        show @ann
        ",
        expect!["ann: {mood=1}"],
    );
}

#[test]
fn a_restart_is_no_parting_and_no_joining() {
    check(
        "
        bob connects b1 to news configured presence
        ann connects a1 to news
        a1 listens
        b1 listens
        restart
        show news
        b1 listens
        14 seconds pass
        a1 listens
        100 seconds pass
        show news
        ",
        expect![[r#"
            b1 <- catchup news: joined ann
            news 2c 2u of ann, bob; users ann, bob
            news 2c 2u of ann, bob; users ann, bob
        "#]],
    );
}

#[test]
fn a_connection_that_does_not_come_back_after_a_restart_ends_after_its_grace() {
    check(
        "
        bob connects b1 to news configured presence
        ann connects a1 to news
        10 seconds pass
        restart
        b1 listens
        14 seconds pass
        show news
        1 seconds pass
        ",
        expect![[r#"
            news 2c 2u of ann, bob; users ann, bob
            b1 <- news: parted ann
        "#]],
    );
}

#[test]
fn a_restart_keeps_state_and_memberships_and_history() {
    check(
        "
        ann connects a1 to news, sport with mood=1 secret=2 public mood configured history
        post to news 'one' as m1; to @ann 'psst'
        restart
        a1 listens
        ? post to news 'two'; to news 'one' as m1
        ? ann connects a1 to news public mood
        ",
        expect![[r#"
            a1 <- news: message 'two' #3
            answer: 'two' #3, m1 'one' #1 duplicate
            answer: a1 is ann {mood=1 secret=2}; public mood; in news; news 1c 1u of ann: m1 'one' #1, 'two' #3; users ann{mood=1 secret=2}; head 3
        "#]],
    );
}

#[test]
fn a_connection_that_ended_is_unknown_after_a_restart() {
    check(
        "
        ann connects a1 to news
        15 seconds pass
        restart
        a1 listens
        ",
        expect!["a1 <- unknown"],
    );
}

// ---- The log ----

#[test]
fn messages_of_channels_with_history_and_private_messages_are_logged() {
    check(
        "
        ann connects a1 to news, talk configured history
        a1 subscribes to sport
        configure talk history=0
        ? post to news 'logged' as m1; to sport 'not' as m2; to news 'not' as m3 unlogged; to talk 'not' as m4; to @ann 'logged' as m5; to @ann 'not' as m6 unlogged; to @nobody 'not' as m7; to nowhere 'not' as m8
        ",
        expect!["answer: m1 'logged' #1, m2 'not', m3 'not', m4 'not', m5 'logged' #2, m6 'not', m7 'not', m8 'not'"],
    );
}

#[test]
fn positions_rise_by_one_over_all_channels_and_batches() {
    check(
        "
        ann connects a1 to news, sport configured history
        a1 listens
        post to news 'one'; to sport 'two'
        post to @ann 'three'
        & post to news 'four'; to news 'not' unlogged; to sport 'five'
        edit x1 in news 'unknown'
        post to news 'six'
        show head
        ",
        expect![[r#"
            a1 <- news: message 'one' #1
            a1 <- sport: message 'two' #2
            a1 <- private: message 'three' #3
            a1 <- news: message 'four' #4
            a1 <- news: message 'not'
            a1 <- sport: message 'five' #5
            a1 <- news: edit x1 'unknown'
            a1 <- news: message 'six' #6
            head 6
        "#]],
    );
}

#[test]
fn a_private_message_to_several_users_is_one_event() {
    check(
        "
        ann connects a1
        bob connects b1
        a1 listens
        b1 listens
        post to @ann @bob 'psst'
        post to @bob 'psst'
        ",
        expect![[r#"
            a1, b1 <- private: message 'psst' #1
            b1 <- private: message 'psst' #2
        "#]],
    );
}

#[test]
fn edits_and_deletions_have_positions_of_their_own() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one' as m1; to @ann 'two' as m2
        edit m1 in news 'won'; m2 in @ann 'too'
        edit m1 in news 'wan'
        delete m1 in news; m2 in @ann
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            a1 <- private: message m2 'two' #2
            a1 <- news: edit m1 'won' #3
            a1 <- private: edit m2 'too' #4
            a1 <- news: edit m1 'wan' #5
            a1 <- news: delete m1 #6
            a1 <- private: delete m2 #7
        "#]],
    );
}

#[test]
fn edits_and_deletions_of_what_is_not_logged_have_none() {
    check(
        "
        ann connects a1 to news
        a1 listens
        post to news 'one' as m1; to @ann 'two' as m2 unlogged
        edit m1 in news 'won'; m2 in @ann 'too'
        delete m1 in news; m2 in @ann
        ",
        expect![[r#"
            a1 <- news: message m1 'one'
            a1 <- private: message m2 'two'
            a1 <- news: edit m1 'won'
            a1 <- private: edit m2 'too'
            a1 <- news: delete m1
            a1 <- private: delete m2
        "#]],
    );
}

#[test]
fn presence_and_state_have_no_position() {
    check(
        "
        ann connects a1 to news public mood configured presence state history
        a1 listens
        bob connects b1 to news
        ann sets mood=1
        show head
        ",
        expect![[r#"
            a1 <- news: joined bob
            a1 <- news: state of ann mood=1 {mood=1}
            head 0
        "#]],
    );
}

#[test]
fn the_log_goes_on_after_a_restart() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one'
        restart
        a1 listens
        post to news 'two'
        ",
        expect![[r#"
            a1 <- news: message 'one' #1
            a1 <- news: message 'two' #2
        "#]],
    );
}

#[test]
fn a_refused_request_leaves_no_hole_in_the_positions() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one'
        & bob connects a1
        & post to news 'two'
        ",
        expect![[r#"
            a1 <- news: message 'one' #1
            a1 <- news: message 'two' #2
            refused: ForeignConnection
        "#]],
    );
}

#[test]
fn a_request_that_waits_for_the_next_batch_leaves_no_hole_in_the_positions() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one' as m1
        & post to news 'two' as m2; to news 'three' as m1
        & post to news 'four'
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            (next batch)
            a1 <- news: message m2 'two' #2
            a1 <- news: message 'four' #3
        "#]],
    );
}

// ---- Floors ----

#[test]
fn a_floor_is_the_head_when_the_user_was_first_subscribed() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one'; to news 'two'
        bob connects b1 to news
        post to news 'three'
        & bob connects b2 to sport
        & post to @ann 'four'
        ann connects a2 to sport
        show floors @ann
        show floors @bob
        ",
        expect![[r#"
            floors of ann: news after #0, sport after #4
            floors of bob: news after #2, sport after #3
        "#]],
    );
}

#[test]
fn repeating_a_subscription_never_raises_a_floor() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one'
        a1 subscribes to news
        ann connects a1 to news
        ann connects a2 to news
        a1 unsubscribes from news
        show floors @ann
        ",
        expect!["floors of ann: news after #0"],
    );
}

#[test]
fn a_floor_outlives_the_last_connection_for_the_resume_window() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one'
        74 seconds pass
        show floors @ann
        ann connects a2 to news
        show floors @ann
        ",
        expect![[r#"
            floors of ann: news after #0 (left)
            floors of ann: news after #0
        "#]],
    );
}

#[test]
fn a_floor_ends_when_the_user_was_away_for_the_resume_window() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one'
        a1 listens
        a1 closes
        61 seconds pass
        expire floors
        ann connects a2
        show floors @ann
        a2 subscribes to news
        show floors @ann
        ",
        expect![[r#"
            a1 <- catchup news: message 'one' #1
            no floors of ann
            floors of ann: news after #1
        "#]],
    );
}

#[test]
fn a_floor_ends_with_the_resume_window_whether_it_was_swept_or_not() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one'
        a1 listens
        a1 closes
        1 seconds pass
        ann connects a2
        a2 listens
        59 seconds pass
        show floors @ann
        1 seconds pass
        show floors @ann
        a2 subscribes to news
        show floors @ann
        ",
        expect![[r#"
            a1 <- catchup news: message 'one' #1
            floors of ann: news after #0 (left)
            no floors of ann
            floors of ann: news after #1
        "#]],
    );
}

#[test]
fn a_floor_ends_when_the_application_unsubscribes_the_last_connection() {
    check(
        "
        ann connects a1 to news, sport configured history
        ann connects a2 to news
        post to news 'one'
        a1 unsubscribes from news, sport
        show floors @ann
        a2 unsubscribes from news
        show floors @ann
        a2 subscribes to news
        show floors @ann
        ",
        expect![[r#"
            floors of ann: news after #0
            no floors of ann
            floors of ann: news after #1
        "#]],
    );
}

#[test]
fn floors_outlive_a_restart() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one'
        ann connects a1 to sport
        restart
        show floors @ann
        ",
        expect!["floors of ann: news after #0, sport after #1"],
    );
}

#[test]
fn a_forgotten_user_has_no_floors() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one'
        40 seconds pass
        forget ann idle 20
        ann connects a2 to news
        show floors @ann
        ",
        expect!["floors of ann: news after #1"],
    );
}

#[test]
fn a_channel_that_was_forgotten_and_is_there_again_has_new_floors() {
    check(
        "
        ann connects a1 to news, sport configured history
        post to news 'one'
        delete channel news
        show floors @ann
        a1 subscribes to news configured history
        show floors @ann
        delete channel news
        delete channel sport
        show floors @ann
        ",
        expect![[r#"
            floors of ann: sport after #0
            floors of ann: news after #1, sport after #0
            no floors of ann
        "#]],
    );
}

// ---- Duplicates ----

#[test]
fn a_uuid_that_is_logged_adds_nothing_and_is_answered_with_what_is_stored() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one' as m1
        ? post to news 'again' as m1 by eve
        show news
        show totals
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            answer: m1 'one' #1 duplicate
            news 1c 1u of ann: m1 'one' #1; users ann
            posted 1, delivered 1
        "#]],
    );
}

#[test]
fn the_stored_message_is_answered_as_it_is_now() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one' as m1
        edit m1 in news 'won'
        ? post to news 'again' as m1
        ",
        expect!["answer: m1 'won' edited #1 duplicate"],
    );
}

#[test]
fn a_uuid_twice_in_one_list_is_one_message() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        ? post to news 'one' as m1; to news 'two' as m1
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            answer: m1 'one' #1, m1 'one' #1 duplicate
        "#]],
    );
}

#[test]
fn a_uuid_twice_in_one_batch_is_one_message() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        ? post to news 'one' as m1
        & ? post to news 'two' as m1
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            answer: m1 'one' #1
            (next batch)
            answer: m1 'one' #1 duplicate
        "#]],
    );
}

#[test]
fn a_uuid_in_another_channel_or_in_private_is_another_message() {
    check(
        "
        ann connects a1 to news, sport configured history
        a1 listens
        ? post to news 'one' as m1; to sport 'two' as m1; to @ann 'three' as m1
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            a1 <- sport: message m1 'two' #2
            a1 <- private: message m1 'three' #3
            answer: m1 'one' #1, m1 'two' #2, m1 'three' #3
        "#]],
    );
}

#[test]
fn a_private_uuid_is_a_duplicate_whoever_it_is_for() {
    check(
        "
        ann connects a1
        bob connects b1
        a1 listens
        b1 listens
        ? post to @ann 'one' as m1
        ? post to @bob 'two' as m1
        ",
        expect![[r#"
            a1 <- private: message m1 'one' #1
            answer: m1 'one' #1
            answer: m1 'one' #1 duplicate
        "#]],
    );
}

#[test]
fn a_uuid_that_was_deleted_is_answered_with_the_position_of_the_deletion() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one' as m1
        delete m1 in news
        ? post to news 'again' as m1
        ? delete m2 in news
        ? post to news 'two' as m2
        show news
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            a1 <- news: delete m1 #2
            answer: m1 'again' #2 duplicate
            a1 <- news: delete m2 #3
            answer: m2 #3
            answer: m2 'two' #3 duplicate
            news 1c 1u of ann; users ann
        "#]],
    );
}

#[test]
fn a_uuid_that_is_older_than_the_history_is_still_a_duplicate() {
    check(
        "
        ann connects a1 to news configured history=1
        post to news 'one' as m1; to news 'two'
        ? post to news 'again' as m1
        ",
        expect!["answer: m1 'one' #1 duplicate"],
    );
}

#[test]
fn who_posts_does_not_wait_for_the_log_to_be_trimmed() {
    check(
        &format!(
            "
        ann connects a1 to news configured history=1 replay=0
        {}
        ? post to news 'next' as m1
            ",
            many(18, "news")
        ),
        expect!["answer: m1 'next' #19"],
    );
}

#[test]
fn a_uuid_that_the_log_dropped_is_new() {
    check(
        &format!(
            "
        ann connects a1 to news configured history=1 replay=0
        post to news 'one' as m1
        {}
        post to news 'so that it goes'
        ? post to news 'again' as m1
            ",
            many(17, "news")
        ),
        expect!["answer: m1 'again' #20"],
    );
}

#[test]
fn a_deletion_that_the_log_dropped_makes_its_uuid_new() {
    check(
        "
        ann connects a1 to news configured history=1 replay=0
        delete m1 in news
        delete x1 in news; x2 in news; x3 in news; x4 in news; x5 in news; x6 in news; x7 in news; x8 in news; x9 in news; x10 in news; x11 in news; x12 in news; x13 in news; x14 in news; x15 in news; x16 in news; x17 in news
        delete x18 in news
        ? post to news 'new' as m1
        ",
        expect!["answer: m1 'new' #20"],
    );
}

#[test]
fn a_private_uuid_that_the_log_dropped_is_new() {
    check(
        &format!(
            "
        ann connects a1
        post to @ann 'one' as m1
        {}
        post to @ann 'so that it goes'
        ? post to @ann 'again' as m1
            ",
            many(75, "@ann")
        ),
        expect!["answer: m1 'again' #78"],
    );
}

#[test]
fn a_uuid_that_outlived_its_time_is_new() {
    check(
        "
        ann connects a1 to news configured history ttl=60
        a1 listens
        post to news 'one' as m1
        60 seconds pass
        ? post to news 'again' as m1
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            a1 <- news: message m1 'again' #2
            answer: m1 'again' #2
        "#]],
    );
}

#[test]
fn a_message_that_outlived_its_time_is_unknown_to_edits() {
    check(
        "
        ann connects a1 to news configured history ttl=60
        post to news 'one' as m1
        60 seconds pass
        ? edit m1 in news 'won'
        ",
        expect!["answer: m1"],
    );
}

#[test]
fn a_deletion_of_a_message_that_outlived_its_time_is_logged_like_any_other() {
    check(
        "
        ann connects a1 to news configured history ttl=60
        post to news 'one' as m1
        60 seconds pass
        ? delete m1 in news
        ? post to news 'again' as m1
        ",
        expect![[r#"
            answer: m1 #2
            answer: m1 'again' #2 duplicate
        "#]],
    );
}

#[test]
fn a_message_that_is_said_again_after_its_time_is_in_the_log_once() {
    check(
        "
        ann connects a1 to news configured history ttl=60
        post to news 'one' as m1
        60 seconds pass
        post to news 'again' as m1
        configure news history ttl=none
        ? bob connects b1 to news
        restart
        ? bob connects b1 to news
        ",
        expect![[r#"
            answer: b1 is bob {}; in news; news 1c 1u of bob: m1 'again' #2; users bob; head 2
            answer: b1 is bob {}; in news; news 1c 1u of bob: m1 'again' #2; users bob; head 2
        "#]],
    );
}

#[test]
fn what_is_past_its_time_leaves_the_log() {
    check(
        "
        ann connects a1 to news configured history ttl=60
        post to news 'one' as m1; to news 'two' as m2
        edit m1 in news 'won'
        delete m2 in news
        60 seconds pass
        expire messages
        configure news history ttl=none
        show news
        ? post to news 'again' as m1; to news 'again' as m2
        ",
        expect![[r#"
            news 0c 0u
            answer: m1 'again' #5, m2 'again' #6
        "#]],
    );
}

#[test]
fn messages_past_their_time_are_not_caught_up() {
    check(
        "
        ann connects a1 to news configured history presence ttl=10
        post to news 'one'
        bob connects b1 to news
        5 seconds pass
        post to news 'two'
        5 seconds pass
        a1 listens
        ",
        expect![[r#"
            a1 <- catchup news: joined bob
            a1 <- catchup news: message 'two' #2
        "#]],
    );
}

#[test]
fn without_uuid_every_message_is_new() {
    check(
        "
        ann connects a1 to news configured history
        ? post to news 'one'; to news 'one'
        ",
        expect!["answer: 'one' #1, 'one' #2"],
    );
}

#[test]
fn a_duplicate_is_known_after_a_restart() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one' as m1; to @ann 'two' as m2
        delete m1 in news
        restart
        ? post to news 'again' as m1; to @ann 'again' as m2
        ",
        expect!["answer: m1 'again' #3 duplicate, m2 'two' #2 duplicate"],
    );
}

#[test]
fn what_is_not_logged_has_no_duplicates() {
    check(
        "
        ann connects a1 to news
        a1 listens
        ? post to news 'one' as m1; to news 'two' as m1
        ",
        expect![[r#"
            a1 <- news: message m1 'one'
            a1 <- news: message m1 'two'
            answer: m1 'one', m1 'two'
        "#]],
    );
}

#[test]
fn a_logged_uuid_is_a_duplicate_though_it_must_not_be_stored_this_time() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one' as m1
        ? post to news 'again' as m1 unlogged
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            answer: m1 'one' #1 duplicate
        "#]],
    );
}

#[test]
fn a_logged_uuid_is_a_duplicate_though_history_was_turned_off() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one' as m1
        configure news
        ? post to news 'again' as m1
        ",
        expect![[r#"
            a1 <- news: message m1 'one' #1
            answer: m1 'one' #1 duplicate
        "#]],
    );
}

// ---- Batches ----

#[test]
fn a_message_is_shown_to_those_who_subscribed_before_it_in_the_same_batch() {
    check(
        "
        ann connects a1 to news
        bob connects b1
        a1 listens
        b1 listens
        post to news 'one'
        & b1 subscribes to news
        & post to news 'two'
        & a1 unsubscribes from news
        & post to news 'three'
        ",
        expect![[r#"
            a1 <- news: message 'one'
            a1, b1 <- news: message 'two'
            b1 <- news: message 'three'
        "#]],
    );
}

#[test]
fn a_message_to_a_user_who_connects_in_the_same_batch_reaches_it() {
    check(
        "
        bob connects b1
        & post to @bob 'psst' as m1
        b1 listens
        ",
        expect![[r#"
            (next batch)
            b1 <- catchup private: message m1 'psst' #1
        "#]],
    );
}

#[test]
fn a_message_is_logged_where_the_channel_was_created_in_the_same_batch() {
    check(
        "
        ann connects a1 to news configured history
        & post to news 'one'
        show news
        ",
        expect![[r#"
            (next batch)
            news 1c 1u of ann: 'one' #1; users ann
        "#]],
    );
}

#[test]
fn messages_after_the_end_of_a_connection_in_the_same_batch_do_not_reach_it() {
    check(
        "
        ann connects a1 to news
        bob connects b1 to news configured presence
        configure news presence
        b1 listens
        a1 listens
        a1 is dismissed
        sweep
        & post to news 'one'
        ",
        expect![[r#"
            b1 <- news: parted ann
            a1 <- dismissed
            b1 <- news: message 'one'
        "#]],
    );
}

// ---- While a batch is being written ----

#[test]
fn a_listener_that_comes_meanwhile_is_shown_the_batch_once() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one'
        ~ a1 listens
        ",
        expect!["a1 <- news: message 'one' #1"],
    );
}

#[test]
fn a_listener_that_goes_meanwhile_catches_the_batch_up() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one'
        ~ a1 drops
        a1 listens
        ",
        expect!["a1 <- catchup news: message 'one' #1"],
    );
}

#[test]
fn a_connection_whose_time_was_over_ends_though_somebody_listens_meanwhile() {
    check(
        "
        ann connects a1 to news
        15 seconds later
        sweep
        ~ a1 listens
        ",
        expect!["a1 <- over"],
    );
}

#[test]
fn a_user_that_is_dismissed_meanwhile_is_still_shown_the_batch() {
    check(
        "
        ann connects a1 to news configured history
        a1 listens
        post to news 'one'
        & post to news 'two'
        ~ a1 is dismissed
        ",
        expect![[r#"
            a1 <- news: message 'one' #1
            a1 <- news: message 'two' #2
        "#]],
    );
}

// ---- Totals ----

#[test]
fn totals_count_messages_with_a_target_and_connections_they_went_to() {
    check(
        "
        ann connects a1 to news
        ann connects a2 to news
        bob connects b1 to news
        a1 listens
        post to news 'three'; to news 'one' except ann; to news 'two' only ann; to @ann 'two'; to nowhere 'none'; 'none'
        show totals
        ",
        expect![[r#"
            a1 <- news: message 'three'
            a1 <- news: message 'two'
            a1 <- private: message 'two' #1
            posted 5, delivered 8
        "#]],
    );
}

#[test]
fn edits_and_deletions_and_duplicates_are_no_messages() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one' as m1
        edit m1 in news 'won'
        post to news 'one' as m1
        delete m1 in news
        show totals
        ",
        expect!["posted 1, delivered 1"],
    );
}

/// Who and what there is before the two requests of the tests below.
const GROUND: &str = "
    ann connects a1 to news configured history
    bob connects b1 to sport
    post to news 'one' as m1; to @ann 'two' as m2
    post to sport 'three' as m3
    100 seconds pass
    ann connects a2 to news
    bob connects b2
";

const NONE: [[&str; 2]; 0] = [];

/// Whether two requests are decided together, after what there is and what else happened.
fn share_a_batch(before: &str, [first, second]: &[&str; 2]) -> bool {
    let printed = run(&format!("{GROUND}\n{before}\n{first}\n& {second}"));
    !printed.contains(&"(next batch)".to_owned())
}

#[test]
fn what_depends_on_another_request_waits_for_the_next_batch() {
    let pairs = [
        ["configure news", "post to news 'x'"],
        ["post to news 'x'", "configure news"],
        ["configure news", "edit m1 in news 'x'"],
        ["delete m1 in news", "configure news"],
        ["configure talk history", "post to talk 'x'"],
        ["configure news presence", "b2 subscribes to news"],
        ["a2 unsubscribes from news", "configure news presence"],
        ["b2 subscribes to talk", "post to talk 'x'"],
        ["post to talk 'x'", "b2 subscribes to talk"],
        ["eve connects e1 to talk", "bob connects b3 to talk"],
        ["eve connects e1", "e1 subscribes to news"],
        ["eve connects e1", "eve sets mood=1"],
        ["eve connects e1", "eve connects e2"],
        ["eve connects e1", "eve connects e1"],
        ["eve connects e1", "post to @eve 'x'"],
        ["ann sets mood=1", "ann connects a3"],
        ["ann sets mood=1", "ann sets mood=2"],
        ["ann connects a3 with mood=1", "ann connects a4"],
        ["ann sets mood=1", "post to @ann 'x'"],
        ["a2 subscribes to sport", "a2 unsubscribes from sport"],
        ["a2 unsubscribes from news", "ann connects a2 to news"],
        ["post to news 'x' as m4", "post to news 'y' as m4"],
        ["post to news 'x' as m4", "edit m4 in news 'y'"],
        ["post to news 'x' as m4 unlogged", "edit m4 in news 'y'"],
        ["edit m1 in news 'x'", "edit m1 in news 'y'"],
        ["edit m1 in news 'x'", "delete m1 in news"],
        ["delete m1 in news", "post to news 'x' as m1"],
        ["edit m2 in @ann 'x'", "ann sets mood=1"],
    ];
    assert_eq!(pairs.into_iter().filter(|pair| share_a_batch("", pair)).collect::<Vec<_>>(), NONE);
}

#[test]
fn what_depends_on_the_end_of_a_connection_waits_for_the_next_batch() {
    let pairs = [
        ["sweep", "a2 subscribes to sport"],
        ["a2 unsubscribes from news", "sweep"],
        ["sweep", "ann connects a2"],
        ["ann connects a2", "sweep"],
    ];
    assert_eq!(pairs.into_iter().filter(|pair| share_a_batch("a2 is dismissed", pair)).collect::<Vec<_>>(), NONE);
}

#[test]
fn what_has_nothing_to_do_with_each_other_shares_a_batch() {
    let pairs = [
        ["configure talk", "post to news 'x'"],
        ["post to news 'x'", "post to news 'y'"],
        ["post to news 'x' as m4", "post to news 'y' as m5"],
        ["post to news 'x'", "edit m1 in news 'y'"],
        ["post to @ann 'x'", "post to @ann, @bob 'y'"],
        ["b2 subscribes to news", "post to news 'x'"],
        ["b2 subscribes to news", "eve connects e1 to news"],
        ["ann connects a3 to news", "ann connects a4 to news"],
        ["post to news 'x'", "a2 unsubscribes from news"],
        ["sweep", "ann connects a3 to news"],
        ["ann sets mood=1", "bob sets mood=1"],
        ["edit m1 in news 'x'", "edit m2 in @ann 'y'"],
    ];
    assert_eq!(pairs.into_iter().filter(|pair| !share_a_batch("", pair)).collect::<Vec<_>>(), NONE);
}

// ---- Batches and what comes of them ----

#[test]
fn a_message_posted_in_the_batch_of_a_deletion_does_not_keep_older_ones_away() {
    let printed = run("
        ann connects a1 to news configured history=2
        post to news 'one' as m1; to news 'two' as m2
        post to news 'three'
        & delete m2 in news
        show news
    ");
    assert_eq!(printed.last().unwrap(), "news 1c 1u of ann: m1 'one' #1, 'three' #3; users ann");
}

#[test]
fn an_answer_in_the_batch_of_a_deletion_shows_the_history_from_before_it_or_after_it() {
    let printed = run("
        ann connects a1 to news configured history=1
        post to news 'one' as m1; to news 'two' as m2
        delete m2 in news
        & ? a1 subscribes to sport
    ");
    let answer = printed.last().unwrap();
    assert!(answer.contains("of ann: m1 'one' #1;") || answer.contains("of ann: m2 'two' #2;"), "{answer}");
}

#[test]
fn a_floor_that_ended_is_not_there_again_after_a_restart() {
    let another_comes = run("
        ann connects a1 to news configured history
        post to news 'one'
        a1 unsubscribes from news
        & ann connects a2 to news
        restart
        show floors @ann
    ");
    assert_eq!(another_comes.last().unwrap(), "floors of ann: news after #1");
    let another_ends = run("
        ann connects a1 to news configured history
        ann connects a2 to news
        a1 is dismissed
        sweep
        & a2 unsubscribes from news
        restart
        show floors @ann
    ");
    assert_eq!(another_ends.last().unwrap(), "no floors of ann");
}

#[test]
fn connections_that_come_together_get_one_floor() {
    let printed = run("
        ann connects a1 to news configured history
        post to news 'one'
        80 seconds pass
        ann connects a2 to news
        & post to news 'two'
        & ann connects a3 to news
        show floors @ann
    ");
    assert_eq!(printed.last().unwrap(), "floors of ann: news after #1");
}

#[test]
fn the_application_sets_the_floors_of_the_channels_it_names() {
    check(
        "
        ann connects a1 to news, sport configured history
        post to news 'one'; to sport 'two'; to news 'three'
        bob connects b1 to news, sport
        show floors @bob
        bob connects b2 to news, talk since #1
        show floors @bob
        bob connects b1 to news since #2
        show floors @bob
        bob connects b1 to news since earliest
        restart
        show floors @bob
        ",
        expect![[r#"
            floors of bob: news after #3, sport after #3
            floors of bob: news after #1, sport after #3, talk after #1
            floors of bob: news after #2, sport after #3, talk after #1
            floors of bob: news after #0, sport after #3, talk after #1
        "#]],
    );
}

#[test]
fn a_time_sets_the_floor_after_what_was_committed_by_then() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one'
        10 seconds pass
        post to news 'two'; to news 'three'
        ann connects a1 to news since 9s
        show floors @ann
        10 seconds pass
        ann connects a1 to news since 10s
        show floors @ann
        post to news 'four'
        & ann connects a1 to news since 900s
        & post to news 'five'
        show floors @ann
        ",
        expect![[r#"
            floors of ann: news after #1
            floors of ann: news after #3
            floors of ann: news after #4
        "#]],
    );
}

#[test]
fn a_floor_is_not_set_after_a_cursor_that_nobody_gave_out() {
    check(
        "
        ann connects a1 to news configured history
        post to news 'one'
        ann connects a1 to news since #2
        & ann connects a1 to news since elsewhere
        bob connects b1 to talk since #2
        show floors @ann
        show @bob
        ",
        expect![[r#"
            refused: UnknownCursor
            refused: UnknownCursor
            refused: UnknownCursor
            floors of ann: news after #0
            no bob
        "#]],
    );
}

/// Memory goes through a batch event by event, a store kind by kind.
#[test]
fn a_floor_that_was_set_is_the_same_in_memory_and_store() {
    for (before, batch, expected) in [
        ("", "ann connects a2 to news since #1", "news after #1"),
        ("ann connects a1 to news", "ann connects a1 to news since #1", "news after #1"),
        ("ann connects a1 to news\n20 seconds pass", "ann connects a2 to news since #1", "news after #1"),
        ("ann connects a1 to news\n80 seconds pass", "ann connects a2 to news since #1", "news after #1"),
        ("", "ann connects a2 to news\n& ann connects a3 to news since #1", "news after #1"),
        ("", "ann connects a2 to news since #1\n& ann connects a3 to news", "news after #1"),
        ("", "ann connects a2 to news since #1\n& ann connects a3 to news since #2", "news after #2"),
        ("ann connects a1 to news", "a1 unsubscribes from news\n& ann connects a2 to news since #1", "news after #1"),
        ("", "ann connects a2 to news since #1\n& a2 unsubscribes from news", ""),
        (
            "",
            "ann connects a2 to news since #1\n& post to news 'four'\n& ann connects a2 to talk",
            "news after #1, talk after #4",
        ),
    ] {
        let story = format!(
            "eve connects e1 to news configured history
            post to news 'one'; to news 'two'; to news 'three'
            {before}
            {batch}"
        );
        let expected =
            if expected.is_empty() { "no floors of ann".to_owned() } else { format!("floors of ann: {expected}") };
        for restart in ["", "restart\n"] {
            let printed = run(&format!("{story}\n{restart}show floors @ann"));
            assert_eq!(printed.last(), Some(&expected), "{story}\n{restart}");
        }
    }
}

// ---- Forgetting by request ----

#[test]
fn a_user_that_is_deleted_is_gone_with_its_connections() {
    check(
        "
        ann connects a1 to news, sport with mood=1 configured presence history
        ann connects a2
        bob connects b1 to news, sport
        a1 listens
        a2 listens
        b1 listens
        post to @ann 'private' as m1
        ? delete user ann
        show @ann
        a1 listens
        ? delete user ann
        delete user nobody
        show news
        ann connects a3 to news
        show @ann
        show floors @ann
        a3 listens
        ",
        expect![[r#"
            a1 <- catchup news: joined bob
            a1 <- catchup sport: joined bob
            a1, a2 <- private: message m1 'private' #1
            b1 <- news: parted ann
            b1 <- sport: parted ann
            a1 <- over
            a2 <- over
            answer: gone
            no ann
            a1 <- unknown
            answer: unknown
            news 1c 1u of bob; users bob
            b1 <- news: joined ann
            ann: {}
            floors of ann: news after #1
        "#]],
    );
}

#[test]
fn a_channel_that_is_deleted_is_gone_and_its_members_stay() {
    check(
        "
        ann connects a1 to news, sport configured presence history
        ann connects a2 to news
        bob connects b1 to news, sport
        eve connects e1 to news
        a1 listens
        a2 listens
        b1 listens
        post to news 'one' as m1
        ? delete channel news
        ? delete channel news
        show news
        post to news 'to nobody'; to sport 'two'
        show floors @ann
        a2 subscribes to news
        show settings news
        show news
        show floors @ann
        edit m1 in news 'what was it'
        ",
        expect![[r#"
            a1 <- catchup news: joined bob
            a1 <- catchup news: joined eve
            a1 <- catchup sport: joined bob
            a2 <- catchup news: joined bob
            a2 <- catchup news: joined eve
            b1 <- catchup news: joined eve
            a1, a2, b1 <- news: message m1 'one' #1
            b1 <- news: parted ann
            a1, a2 <- news: parted bob
            a1, a2, b1 <- news: parted eve
            answer: gone
            answer: unknown
            no news
            a1, b1 <- sport: message 'two' #2
            floors of ann: sport after #0
            news: size=10 replay=100
            news 1c 1u of ann; users ann
            floors of ann: news after #2, sport after #0
            a2 <- news: edit m1 'what was it'
        "#]],
    );
}

#[test]
fn a_deleted_channel_tells_nobody_that_did_not_ask_for_it_and_nothing_in_a_crowd() {
    let members = |count: u32, settings: &str| {
        let joins = (0..count).map(|n| format!("u{n} connects c{n} to news configured {settings}"));
        let story =
            [joins.collect::<Vec<_>>(), vec!["c0 listens".to_owned(), "delete channel news".to_owned()]].concat();
        run(&story.join("\n")).into_iter().filter(|line| line.contains("parted")).count()
    };
    assert_eq!((members(3, ""), members(3, "presence"), members(3, "presence lists")), (0, 2, 2));
    assert_eq!((members(500, "presence"), members(501, "presence")), (499, 0));
}

#[test]
fn what_depends_on_a_deletion_waits_for_it() {
    check(
        "
        ann connects a1 to news, sport configured history presence
        bob connects b1 to news
        a1 listens
        post to news 'one'
        & delete channel news
        & post to news 'two'
        & bob connects b2 to news
        ann connects a1 to news
        & delete user bob
        & post to @bob 'three'
        & bob connects b3
        show news
        show @bob
        show head
        ",
        expect![[r#"
            a1 <- catchup news: joined bob
            a1 <- news: message 'one' #1
            (next batch)
            a1 <- news: parted bob
            (next batch)
            (next batch)
            (next batch)
            (next batch)
            news 1c 1u of ann; users ann
            bob: {}
            head 1
        "#]],
    );
}

#[test]
fn a_deletion_is_the_same_after_a_restart() {
    let story = "
        ann connects a1 to news, sport configured history presence
        bob connects b1 to news
        ann connects a2 to news since earliest
        post to news 'one'; to sport 'two'; to @bob 'three'; to @ann, @bob 'four'
        delete channel news
        delete user bob
        post to sport 'five'
        bob connects b2 to news configured history
        post to news 'six'";
    let shows = "
        show news, sport
        show @bob
        show floors @ann
        show floors @bob
        show head";
    assert_eq!(run(&format!("{story}{shows}")), run(&format!("{story}\nrestart{shows}")));
}

// ---- Limits ----

#[test]
fn a_channel_keeps_its_last_hundred_frames() {
    let lines = run(&format!("ann connects a1 to news\n{}\na1 listens", many(101, "news")));
    assert_eq!(lines.len(), 100);
    assert_eq!(lines[0], "a1 <- catchup news: message '2'");
    assert_eq!(lines[99], "a1 <- catchup news: message '101'");
}

#[test]
fn an_inbox_keeps_its_last_fifty_frames() {
    let lines = run(&format!("ann connects a1\n{}\na1 listens", many(51, "@ann")));
    assert_eq!(lines.len(), 50);
    assert_eq!(lines[0], "a1 <- catchup private: message '2' #2");
    assert_eq!(lines[49], "a1 <- catchup private: message '51' #51");
}

#[test]
fn a_state_that_is_too_large_is_refused_and_nothing_of_the_request_happens() {
    let keys = |from: u32, to: u32| (from..to).map(|key| format!("k{key}=1 ")).collect::<String>();
    let scenario = format!(
        "ann connects a1 to news with {}
         ann connects a2 to news, sport with {} public k0
         ann sets {}
         bob connects b1 to sport fresh {}
         show news without users
         show sport
         show @bob",
        keys(0, 9_999),
        keys(9_999, 10_001),
        keys(9_999, 10_001),
        keys(0, 10_001),
    );
    let refused = "refused: StateTooLarge";
    assert_eq!(run(&scenario), [refused, refused, refused, "news 1c 1u", "no sport", "no bob"]);
}

#[test]
fn a_connection_may_be_opened_so_often_a_second() {
    let mut server = Server::new();
    server.batch(&mut [request("ann connects a1")].into(), |_| {});
    let opens = |server: &mut Server| server.router.may_attach(connection("a1"), 2, server.moment());
    assert_eq!([opens(&mut server), opens(&mut server), opens(&mut server)], [true, true, false]);
    server.now += Duration::from_millis(999);
    assert!(!opens(&mut server));
    server.now += Duration::from_millis(1);
    assert!(opens(&mut server));
    let moment = server.moment();
    assert!(server.router.may_attach(connection("a2"), 0, moment), "an unknown one is told otherwise");
}

#[test]
fn a_socket_that_was_replaced_ends_nothing() {
    let mut server = Server::new();
    server.batch(&mut [request("ann connects a1 to news")].into(), |_| {});
    server.take(&parse("a1 listens"));
    let (replaced, tick, moment) = (ListenerId(99), server.router.tick(), server.moment());
    server.router.detach(connection("a1"), replaced, tick, Departure::Closed, moment);
    server.take(&parse("100 seconds pass"));
    server.batch(&mut [request("post to news 'hi'")].into(), |_| {});
    assert_eq!(server.shown, [(vec![connection("a1")], "news: message 'hi'".to_owned())]);
}

const MAX_CHANNELS: usize = 10_000;

#[test]
fn a_connection_has_so_many_channels_and_no_more() {
    let channels = |from: usize, to: usize| (from..to).map(|number| format!("c{number} ")).collect::<String>();
    let scenario = format!(
        "ann connects a1 to {}
         a1 subscribes to {}
         a1 subscribes to c0, {}
         ann connects a1 to more
         show more
         bob connects b1 to {}
         show @bob",
        channels(0, MAX_CHANNELS - 1),
        channels(MAX_CHANNELS - 1, MAX_CHANNELS + 1),
        channels(MAX_CHANNELS - 1, MAX_CHANNELS),
        channels(0, MAX_CHANNELS + 1),
    );
    let refused = "refused: TooManyChannels";
    assert_eq!(run(&scenario), [refused, refused, "no more", refused, "no bob"]);
}

#[test]
fn recent_frames_are_bounded_in_bytes_but_for_the_newest() {
    let large = |bytes: usize| format!("post to news '{}'", "x".repeat(bytes));
    let scenario = |bytes: usize| format!("ann connects a1 to news\n{}\n{}\na1 listens", large(bytes), large(bytes));
    assert_eq!(run(&scenario(100 << 10)).len(), 2);
    assert_eq!(run(&scenario(200 << 10)).len(), 1);
    assert_eq!(run(&scenario(300 << 10)).len(), 1);
}
