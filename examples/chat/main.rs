//! The back end of the chat: knows who its users are, which rooms there are and who may do what, and asks the push server
//! for all else. It keeps no messages: the memory of a room is the push server's history.

mod push;

use std::env;

use anyhow::Context;
use axum::extract::{FromRef, FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use axum_extra::extract::cookie::{Cookie, Key, SameSite, SignedCookieJar};
use reqwest::Method;
use rust_embed::RustEmbed;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};
use uuid::Uuid;

use crate::push::{Push, Refusal};

/// The rooms: name, what it is for, how many messages it remembers.
const ROOMS: [(&str, &str, u32); 3] = [
    ("lobby", "where everybody comes in", 200),
    ("kitchen", "about food", 200),
    ("goldfish", "remembers five messages", 5),
];
const COLOURS: [&str; 6] = ["rose", "amber", "green", "teal", "blue", "violet"];
/// Of which users see each other's values: the rest of a state would be for back ends only.
const PUBLIC_KEYS: [&str; 3] = ["colour", "status", "typing"];

const MAX_NAME: usize = 40;
const MAX_STATUS: usize = 60;
const MAX_TEXT: usize = 2000;

/// The files of `page/`.
#[derive(RustEmbed)]
#[folder = "examples/chat/page/"]
struct Page;

#[derive(Clone)]
struct App {
    push: Push,
    /// Signs the cookie that says who somebody is.
    key: Key,
}

impl FromRef<App> for Key {
    fn from_ref(app: &App) -> Self {
        app.key.clone()
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = env::var("CHANNELSTREAM_URL").unwrap_or_else(|_| "http://127.0.0.1:8000".into());
    let secret = env::var("CHANNELSTREAM_SECRET").unwrap_or_else(|_| "secret".into());
    let address = format!("127.0.0.1:{}", env::var("PORT").unwrap_or_else(|_| "5001".into()));
    // An application has a secret of its own for this; so have cookies outlived a restart here.
    let key = Key::from(&Sha512::digest(format!("cookies of the chat, {secret}")));
    let app = App { push: Push::new(url, &secret)?, key };
    let routes = Router::new()
        .route("/", get(page))
        .route("/page/{file}", get(asset))
        .route("/session", get(session).post(sign_in).delete(sign_out))
        .route("/connect", post(connect))
        .route("/subscribe", post(subscribe))
        .route("/unsubscribe", post(unsubscribe))
        .route("/state", post(change_state))
        .route("/message", post(say).patch(edit).delete(delete))
        .with_state(app);
    let listener =
        tokio::net::TcpListener::bind(&address).await.with_context(|| format!("cannot listen at {address}"))?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, routes).await?)
}

// ---- the page, and who somebody is ----

async fn page(State(app): State<App>) -> Response {
    let html = Page::get("index.html").expect("the page is embedded");
    let html = String::from_utf8_lossy(&html.data).replace("{{push_server}}", app.push.url());
    ([(header::CACHE_CONTROL, "no-store")], Html(html)).into_response()
}

async fn asset(Path(file): Path<String>) -> Response {
    let Some(found) = Page::get(&file) else { return StatusCode::NOT_FOUND.into_response() };
    let headers = [(header::CONTENT_TYPE, found.metadata.mimetype()), (header::CACHE_CONTROL, "no-cache")];
    (headers, found.data).into_response()
}

/// Who asks, by their cookie. A request of nobody is refused.
struct User(String);

impl FromRequestParts<App> for User {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let cookies = SignedCookieJar::from_headers(&parts.headers, app.key.clone());
        let cookie =
            cookies.get("user").ok_or_else(|| Refusal::new(StatusCode::UNAUTHORIZED, "Say who you are first."))?;
        Ok(Self(cookie.value().to_owned()))
    }
}

/// What the page has to know before it begins.
async fn session(User(user): User) -> Json<Value> {
    let rooms = ROOMS.map(|(name, about, _)| json!({"name": name, "about": about}));
    Json(json!({"user": user, "rooms": rooms, "colours": COLOURS, "max_text": MAX_TEXT}))
}

#[derive(Deserialize)]
struct SignIn {
    name: String,
}

/// An application has passwords, or something better; here everybody is who they say.
async fn sign_in(cookies: SignedCookieJar, Json(asked): Json<SignIn>) -> Result<SignedCookieJar, Refusal> {
    let name = text("name", &asked.name, 1, MAX_NAME)?;
    let cookie = Cookie::build(("user", name)).path("/").http_only(true).same_site(SameSite::Lax);
    Ok(cookies.add(cookie))
}

async fn sign_out(cookies: SignedCookieJar) -> SignedCookieJar {
    cookies.remove(Cookie::build("user").path("/"))
}

// ---- listening ----

#[derive(Deserialize)]
struct Connect {
    channels: Vec<String>,
}

/// Lets the user's page listen to some rooms. The page goes on from `cursor`, at which the histories end.
async fn connect(State(app): State<App>, User(user): User, Json(asked): Json<Connect>) -> Result<Json<Value>, Refusal> {
    let asked = json!({
        "channels": known(&asked.channels)?,
        "channel_configs": room_settings(),
        "info": {"return_public_state": true},
        // What somebody new begins with; and whoever opens a page is not typing yet.
        "fresh_user_state": {"colour": colour_for(&user), "status": ""},
        "user_state": {"typing": ""},
        "state_public_keys": PUBLIC_KEYS,
        "username": user,
    });
    let connected = app.push.ask(Method::POST, "/connect", asked).await?;
    Ok(Json(json!({
        "conn_id": connected["conn_id"],
        "cursor": connected["cursor"],
        "channels": connected["channels"],
        "rooms": rooms(&connected["channels_info"]),
    })))
}

/// What the page asks, for more rooms or fewer. Its connection id is known to nobody else.
#[derive(Deserialize)]
struct Subscription {
    conn_id: Uuid,
    channels: Vec<String>,
}

async fn subscribe(
    State(app): State<App>,
    User(_): User,
    Json(asked): Json<Subscription>,
) -> Result<Json<Value>, Refusal> {
    let asked = json!({
        "conn_id": asked.conn_id,
        "channels": known(&asked.channels)?,
        "channel_configs": room_settings(),
        "info": {"return_public_state": true},
    });
    let subscribed = app.push.ask(Method::POST, "/subscribe", asked).await?;
    Ok(Json(json!({"channels": subscribed["channels"], "rooms": rooms(&subscribed["channels_info"])})))
}

async fn unsubscribe(
    State(app): State<App>,
    User(_): User,
    Json(asked): Json<Subscription>,
) -> Result<Json<Value>, Refusal> {
    let asked = json!({"conn_id": asked.conn_id, "channels": known(&asked.channels)?});
    let unsubscribed = app.push.ask(Method::POST, "/unsubscribe", asked).await?;
    Ok(Json(json!({"channels": unsubscribed["channels"]})))
}

/// The settings of the rooms, for those that the push server does not know yet.
fn room_settings() -> Value {
    let settings = ROOMS.map(|(name, _, remembers)| {
        let settings = json!({
            "store_history": true, "history_size": remembers, "replay_size": remembers,
            "notify_presence": true, "notify_state": true,
        });
        (name.to_owned(), settings)
    });
    Value::Object(Map::from_iter(settings))
}

/// What a page begins with in each room: what was said there, and who is there.
fn rooms(info: &Value) -> Value {
    let states: Map<String, Value> =
        list(&info["users"]).map(|user| (string(&user["user"]).to_owned(), user["state"].clone())).collect();
    let room = |(name, room): (&String, &Value)| {
        let person = |user: &str| (user.to_owned(), json!(states.get(user)));
        let people: Map<_, _> = list(&room["users"]).map(string).map(person).collect();
        (name.clone(), json!({"history": room["history"], "people": people}))
    };
    Value::Object(info["channels"].as_object().into_iter().flatten().map(room).collect())
}

// ---- what users do ----

#[derive(Deserialize)]
struct ChangeState {
    update_state: NewState,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewState {
    colour: Option<String>,
    status: Option<String>,
    /// The room in which the user is writing something, or nothing.
    typing: Option<String>,
}

async fn change_state(
    State(app): State<App>,
    User(user): User,
    Json(asked): Json<ChangeState>,
) -> Result<Json<Value>, Refusal> {
    let mut state = Map::new();
    if let Some(colour) = asked.update_state.colour {
        let colour = COLOURS.into_iter().find(|known| **known == colour);
        state.insert("colour".into(), colour.ok_or_else(|| Refusal::wrong("There is no such colour."))?.into());
    }
    if let Some(status) = asked.update_state.status {
        state.insert("status".into(), text("status", &status, 0, MAX_STATUS)?.into());
    }
    if let Some(room) = asked.update_state.typing {
        state.insert("typing".into(), if room.is_empty() { room } else { known(&[room])?.remove(0) }.into());
    }
    app.push.ask(Method::POST, "/user_state", json!({"user": user, "user_state": state})).await?;
    Ok(Json(json!(state)))
}

#[derive(Deserialize)]
struct Message {
    /// Made by the page: if it never hears whether this was kept, it asks again, and nothing is said twice.
    uuid: Uuid,
    room: String,
    #[serde(default)]
    text: String,
}

async fn say(State(app): State<App>, User(user): User, Json(asked): Json<Message>) -> Result<Json<Value>, Refusal> {
    let room = known(&[asked.room])?;
    let text = text("message", &asked.text, 1, MAX_TEXT)?;
    let message = json!([{"uuid": asked.uuid, "channel": room[0], "user": user, "message": {"text": text}}]);
    Ok(Json(app.push.ask(Method::POST, "/message", message).await?))
}

async fn edit(State(app): State<App>, User(user): User, Json(asked): Json<Message>) -> Result<Json<Value>, Refusal> {
    let text = text("message", &asked.text, 1, MAX_TEXT)?;
    let room = only_the_author(&app, &user, &asked).await?;
    let message = json!([{"uuid": asked.uuid, "channel": room, "message": {"text": text}}]);
    Ok(Json(app.push.ask(Method::PATCH, "/message", message).await?))
}

async fn delete(State(app): State<App>, User(user): User, Json(asked): Json<Message>) -> Result<Json<Value>, Refusal> {
    let room = only_the_author(&app, &user, &asked).await?;
    let message = json!([{"uuid": asked.uuid, "channel": room}]);
    Ok(Json(app.push.ask(Method::DELETE, "/message", message).await?))
}

/// Refuses to change a message that somebody else said; gives its room. The push server would do whatever we ask: rights
/// are ours.
async fn only_the_author(app: &App, user: &str, asked: &Message) -> Result<String, Refusal> {
    let room = known(std::slice::from_ref(&asked.room))?.remove(0);
    let history = app.push.ask(Method::POST, "/history", json!({"channel": room, "limit": 1000})).await?;
    let uuid = asked.uuid.to_string();
    match list(&history["messages"]).find(|message| message["uuid"] == *uuid) {
        Some(message) if message["user"] == user => Ok(room),
        Some(_) => Err(Refusal::new(StatusCode::FORBIDDEN, "Somebody else said this.")),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, "This message is not there any more.")),
    }
}

// ---- what requests and answers hold ----

/// The same rooms, if all of them are ours.
fn known(rooms: &[String]) -> Result<Vec<String>, Refusal> {
    let is_known = |room: &String| ROOMS.iter().any(|(name, ..)| name == room);
    if rooms.iter().all(is_known) { Ok(rooms.to_vec()) } else { Err(Refusal::wrong("There is no such room.")) }
}

/// The text without blanks around it, if it is neither too short nor too long.
fn text(what: &str, text: &str, shortest: usize, longest: usize) -> Result<String, Refusal> {
    let text = text.trim();
    if (shortest..=longest).contains(&text.chars().count()) && !text.contains('\0') {
        Ok(text.to_owned())
    } else {
        Err(Refusal::wrong(format!("A {what} has {shortest} to {longest} characters.")))
    }
}

fn colour_for(name: &str) -> &'static str {
    COLOURS[name.bytes().map(usize::from).sum::<usize>() % COLOURS.len()]
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
