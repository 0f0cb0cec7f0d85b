//! PostgreSQL's messages on an in-memory connection.

use std::io;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Messages on a connection.
pub struct Wire {
    pub stream: DuplexStream,
    pub read: BytesMut,
    pub out: BytesMut,
}

impl Wire {
    /// Returns the next message, including the leading `tag` bytes but without its length.
    pub async fn frame(&mut self, tag: usize) -> io::Result<BytesMut> {
        loop {
            if self.read.len() >= tag + 4 {
                let length = tag + (&self.read[tag..]).get_u32() as usize;
                if self.read.len() >= length {
                    let mut frame = self.read.split_to(length);
                    let tag = frame.split_to(tag);
                    frame.advance(4);
                    let mut whole = tag;
                    whole.extend_from_slice(&frame);
                    return Ok(whole);
                }
            }
            self.more().await?;
        }
    }

    /// Reads available data.
    pub async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Adds a message to the output buffer.
    pub fn put(&mut self, tag: u8, body: &[u8]) {
        self.out.put_u8(tag);
        self.out.put_u32(u32::try_from(body.len() + 4).expect("short"));
        self.out.extend_from_slice(body);
    }

    /// Adds an error message.
    pub fn error(&mut self, severity: &str, code: &str) {
        self.put(b'E', format!("S{severity}\0V{severity}\0C{code}\0Msimulated\0\0").as_bytes());
    }

    /// Sends the output buffer.
    pub async fn flush(&mut self) -> io::Result<()> {
        let out = self.out.split();
        self.stream.write_all(&out).await
    }
}

/// Removes the leading zero-terminated text of a message.
pub fn text(message: &mut BytesMut) -> String {
    let end = message.iter().position(|byte| *byte == 0).expect("zero-terminated");
    let text = String::from_utf8_lossy(&message[..end]).into_owned();
    message.advance(end + 1);
    text
}
