//! How the chat asks the push server: signed JSON over HTTP, and what becomes of a refusal.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use channelstream::signature::Signer;
use reqwest::Method;
use serde_json::{Value, json};

/// How long an answer may take: longer than the push server waits for its store.
const PATIENCE: Duration = Duration::from_secs(10);

/// The push server, as a back end sees it.
#[derive(Clone)]
pub struct Push {
    client: reqwest::Client,
    url: String,
    /// The text that it makes is a few lines in any language: see `docs/back-ends/`.
    signer: Signer,
}

impl Push {
    pub fn new(url: String, secret: &str) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
        Ok(Self { client, url, signer: Signer::new(secret) })
    }

    /// Where it is, for browsers as for us.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for something, as only a back end may. What is to be kept is kept once this is `Ok`.
    pub async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value, Refusal> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let request = self.client.request(method, format!("{}{path}", self.url));
        let request = request.header("x-channelstream-secret", self.signer.sign("chat", now)).json(&body);
        let response = request.send().await.map_err(Refusal::unknown)?;
        let status = response.status();
        let answer: Value = response.json().await.map_err(Refusal::unknown)?;
        if status.is_success() {
            return Ok(answer);
        }
        eprintln!("{path} is refused: {status} {answer}");
        Err(match status {
            // It has no use for what the page said, as for a connection id that has ended.
            StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY => Refusal::wrong("That does not exist."),
            _ => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "The push server does not take anything right now."),
        })
    }
}

/// Why a request is not granted: an answer with a sentence for the user.
pub struct Refusal {
    status: StatusCode,
    error: String,
}

impl Refusal {
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into() }
    }

    /// The request cannot be right, however often it is made.
    pub fn wrong(error: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error)
    }

    /// Nobody knows whether what was asked has happened: it has to be asked again.
    fn unknown(error: reqwest::Error) -> Self {
        eprintln!("the push server does not answer: {error}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "The push server does not answer.")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": self.error}))).into_response()
    }
}
