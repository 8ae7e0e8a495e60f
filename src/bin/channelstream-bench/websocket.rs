//! The least of a websocket client: opens one, and reads the heads of what a server sends.

use std::io::Write as _;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::http::{Head, Target};

/// More of a message that began with another frame.
pub const CONTINUATION: u8 = 0;
/// A text.
pub const TEXT: u8 = 1;
/// The end, with a code and a reason.
pub const CLOSE: u8 = 8;
/// The server asks whether we are there.
pub const PING: u8 = 9;
/// That we are: a whole frame without payload, masked as a client's have to be.
pub const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

/// A frame's payload cannot be longer than this.
const MAX_PAYLOAD: u64 = 1 << 40;

/// Opens the websocket of a connection, for a listener that goes on at a cursor if it has one; gives
/// its TCP connection, and what came after the handshake.
pub async fn open(target: &Target, connection: Uuid, since: Option<&str>) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let since = since.map(|cursor| format!("&since={cursor}")).unwrap_or_default();
    open_path(target, &format!("/ws?conn_id={connection}{since}")).await
}

/// Opens the websocket that is at a path; gives the same.
pub async fn open_path(target: &Target, path: &str) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let mut stream = target.open().await?;
    let mut request = Vec::new();
    write!(
        request,
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: Y2hhbm5lbHN0cmVhbS0xMg==\r\n\r\n",
        target.authority
    )?;
    stream.write_all(&request).await?;
    let mut received = Vec::with_capacity(1024);
    let head = loop {
        if let Some(head) = Head::parse(&received)? {
            break head;
        }
        if stream.read_buf(&mut received).await? == 0 {
            bail!("the server ended the connection during the handshake of a websocket");
        }
    };
    if head.status != 101 {
        bail!("a websocket was refused with {}", head.status);
    }
    Ok((stream, received.split_off(head.bytes)))
}

/// The head of a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// How long it is.
    pub bytes: usize,
    /// What kind of frame.
    pub opcode: u8,
    /// The length of what follows.
    pub payload: usize,
}

/// Reads the head of a frame as servers send them; none: it has not come as a whole.
pub fn frame_head(bytes: &[u8]) -> anyhow::Result<Option<FrameHead>> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    let (more, payload) = match second {
        0..=125 => (0, Some(u64::from(second))),
        126 => (2, rest.first_chunk().map(|bytes| u64::from(u16::from_be_bytes(*bytes)))),
        127 => (8, rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))),
        _ => bail!("the server masks its frames"),
    };
    let Some(payload) = payload else { return Ok(None) };
    if payload > MAX_PAYLOAD {
        bail!("a frame says that it is {payload} bytes long");
    }
    let payload = usize::try_from(payload).context("a frame is too long for this machine")?;
    Ok(Some(FrameHead { bytes: 2 + more, opcode: first & 15, payload }))
}

/// What the payload of a close frame says.
pub fn close_reason(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            format!("closed with {code} {:?}", String::from_utf8_lossy(reason))
        }
        _ => "closed without a code".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_all_lengths() {
        let head = |bytes: &[u8]| frame_head(bytes).unwrap().map(|head| (head.bytes, head.opcode, head.payload));
        assert_eq!(head(&[0x81, 2, b'[']), Some((2, TEXT, 2)));
        assert_eq!(head(&[0x81, 126, 1, 0]), Some((4, TEXT, 256)));
        assert_eq!(head(&[0x88, 127, 0, 0, 0, 0, 0, 1, 0, 0]), Some((10, CLOSE, 65_536)));
        for cut in [&[][..], &[0x81], &[0x81, 126, 1], &[0x81, 127, 0, 0, 0, 0, 0, 1, 0]] {
            assert_eq!(head(cut), None);
        }
        assert!(frame_head(&[0x81, 0x82]).is_err());
        assert!(frame_head(&[0x81, 127, 255, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn close_frames_say_why() {
        assert_eq!(close_reason(b"\x0f\xa8too slow"), "closed with 4008 \"too slow\"");
        assert_eq!(close_reason(b""), "closed without a code");
    }
}
