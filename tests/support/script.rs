//! A tiny language for tests of the domain, and the ground they stand on: a router with a fake
//! store and a fake clock, driven as the journal drives it. No runtime, no socket, no database.
//!
//! One line is one step. Names are separated by blanks, commas or both; `@ann` stands for a user
//! where a channel could stand. A line that begins with `&` is in the same batch as the one before,
//! and one that begins with `~` happens while the store is busy with that batch; `?` before an
//! operation prints its answer.
//!
//! ```text
//! ann connects a1 to news, sport with mood=1 fresh x='y' public mood configured presence history=2
//! ann connects a1 to news since earliest      or since #3, a cursor; since 30s, a time after the world began
//! a1 subscribes to talk configured …          a1 unsubscribes from talk
//! ann sets mood=2 public mood                 `public nothing` clears the keys
//! configure news presence lists state history=2 size=3 replay=5 ttl=60 frames=off
//! create news
//! post to news 'hi' as m1 by bob only ann, bob except bob dated 1999 unlogged; to @ann, @bob 'psst'
//! edit m1 in news 'ho' by bob dated 1999 only ann; m2 in @ann 'psst'
//! delete m1 in news; m2 in @ann
//! a1 listens          opens its socket; one that it has already is closed by the server
//! a1 flickers         opens a socket that is lost before anything is written to it
//! a1 stalls           its socket takes no more, though nobody knows yet
//! a1 drops            its socket is lost          a1 closes      its client closes the socket
//! a1 is dismissed     by /disconnect
//! 16 seconds pass     with a sweep each second, where anything is due
//! 16 seconds later    without
//! sweep               right now
//! delete user ann              delete channel news
//! forget ann, bob idle 30      expire floors      expire messages
//! restart             of the server
//! show news, sport [for ann] [without users, history, @sport]
//! show settings news    show @ann    show floors @ann    show totals    show head
//! ```

#![allow(dead_code)] // each test file is a crate of its own and uses its part of this

#[path = "script/model.rs"]
pub mod model;
#[path = "script/server.rs"]
pub mod server;
#[path = "script/step.rs"]
pub mod step;
#[path = "script/store.rs"]
pub mod store;
#[path = "script/text.rs"]
pub mod text;

use std::collections::VecDeque;

use expect_test::Expect;

use server::Server;
use step::{Request, Step, parse, request};
use text::connection_name;

/// Plays a scenario and compares what it prints.
pub fn check(scenario: &str, expected: Expect) {
    let printed = run(scenario);
    let text = if printed.len() > 1 { printed.join("\n") + "\n" } else { printed.concat() };
    expected.assert_eq(&text);
}

/// Plays a scenario and gives the lines that it prints.
pub fn run(scenario: &str) -> Vec<String> {
    let mut server = Server::new();
    let mut printed = Vec::new();
    let lines: Vec<&str> = scenario.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for group in lines.chunk_by(|_, next| next.starts_with(['&', '~'])) {
        play(&mut server, group, &mut printed);
    }
    printed
}

/// A request that posts so many messages: '1', '2' …
pub fn many(count: u32, to: &str) -> String {
    format!("post {}", (1..=count).map(|number| format!("to {to} '{number}'")).collect::<Vec<_>>().join("; "))
}

fn play(server: &mut Server, group: &[&str], printed: &mut Vec<String>) {
    let step = parse(group[0]);
    if group.len() == 1 && !matches!(step, Step::Ask(_)) {
        match step {
            Step::Show(show) => printed.push(server.describe(&show)),
            step => server.take(&step),
        }
        return print_shown(server, printed);
    }
    let (meanwhile, lines): (Vec<&str>, Vec<&str>) = group.iter().partition(|line| line.starts_with('~'));
    let mut meanwhile: Vec<Step> = meanwhile.into_iter().map(parse).collect();
    let mut waiting: VecDeque<Request> = lines.iter().map(|line| request(line)).collect();
    let mut lines = lines.into_iter();
    while !waiting.is_empty() {
        let meanwhile = std::mem::take(&mut meanwhile);
        let answers = server.batch(&mut waiting, |server| meanwhile.iter().for_each(|step| server.take(step))).answers;
        print_shown(server, printed);
        for (answer, line) in answers.into_iter().zip(&mut lines) {
            match answer {
                Ok(answer) if line.contains('?') => printed.push(format!("answer: {answer}")),
                Ok(_) => {}
                Err(refusal) => printed.push(format!("refused: {refusal:?}")),
            }
        }
        if !waiting.is_empty() {
            printed.push("(next batch)".to_owned());
        }
    }
}

fn print_shown(server: &mut Server, printed: &mut Vec<String>) {
    for (ids, text) in std::mem::take(&mut server.shown) {
        let ids: Vec<String> = ids.into_iter().map(connection_name).collect();
        printed.push(format!("{} <- {text}", ids.join(", ")));
    }
}
