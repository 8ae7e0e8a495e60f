//! Signs requests to Channelstream and makes the main calls, with the crates hmac, sha1, base64, reqwest, serde_json,
//! tokio, uuid and anyhow.

use std::env;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use uuid::Uuid;

/// Makes the text that proves who asks. It is good for 60 seconds: make one for each request.
fn sign(secret: &str) -> anyhow::Result<String> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let leading_zero_bytes = seconds.leading_zeros() as usize / 8;
    let signed = format!("channelstream.{}", BASE64URL.encode(&seconds.to_be_bytes()[leading_zero_bytes..]));
    let key = Sha1::digest(format!("itsdangerous.Signersigner{secret}"));
    let mac = Hmac::<Sha1>::new_from_slice(&key)?.chain_update(&signed).finalize();
    Ok(format!("{signed}.{}", BASE64URL.encode(mac.into_bytes())))
}

/// Asks one server.
struct Channelstream {
    client: reqwest::Client,
    url: String,
    secret: String,
}

impl Channelstream {
    fn from_environment() -> anyhow::Result<Self> {
        Ok(Self {
            client: reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?,
            url: env::var("CHANNELSTREAM_URL").unwrap_or_else(|_| "http://127.0.0.1:8000".into()),
            secret: env::var("CHANNELSTREAM_SECRET").unwrap_or_else(|_| "secret".into()),
        })
    }

    /// Sends a signed request, prints the answer and gives it back; anything but a 200 is an error.
    async fn ask(&self, method: Method, path: &str, body: Value) -> anyhow::Result<Value> {
        let request = self.client.request(method.clone(), format!("{}{path}", self.url));
        let request = request.header("x-channelstream-secret", sign(&self.secret)?).json(&body);
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status == 200, "{method} {path}: {status} {text}");
        println!("{text}");
        Ok(serde_json::from_str(&text)?)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let push = Channelstream::from_environment()?;

    // Let Ann in. Her browser is given conn_id, and listens with it.
    let ann =
        json!({"username": "ann", "channels": ["orders"], "channel_configs": {"orders": {"store_history": true}}});
    let connected = push.ask(Method::POST, "/connect", ann).await?;
    let more = json!({"conn_id": connected["conn_id"], "channels": ["news"]});
    push.ask(Method::POST, "/subscribe", more).await?;
    let state = json!({"user": "ann", "user_state": {"language": "en"}, "state_public_keys": ["language"]});
    push.ask(Method::POST, "/user_state", state).await?;

    // Uuids of our own: a post whose answer got lost may be repeated, and is not stored twice.
    let (packed, mistake) = (Uuid::new_v4(), Uuid::new_v4());
    let messages = json!([
        {"channel": "orders", "user": "shop", "uuid": packed, "message": {"text": "Your order is packed"}},
        {"channel": "orders", "user": "shop", "uuid": mistake, "message": {"text": "Your order is lost"}},
    ]);
    push.ask(Method::POST, "/message", messages).await?;
    let edit = json!([{"channel": "orders", "uuid": packed, "message": {"text": "Your order is on its way 📦"}}]);
    push.ask(Method::PATCH, "/message", edit).await?;
    push.ask(Method::DELETE, "/message", json!([{"channel": "orders", "uuid": mistake}])).await?;

    push.ask(Method::POST, "/info", json!({"info": {"channels": ["orders"]}})).await?;
    push.ask(Method::POST, "/history", json!({"channel": "orders", "limit": 10})).await?;
    Ok(())
}
