//! One keep-alive connection of HTTP/1.1, reopened after it broke; it distinguishes answered, not sent, and answer lost.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::answer::Answer;

const CONNECT: Duration = Duration::from_secs(5);
/// Longer than any deadline of the stack, so that the stack and not this client ends a wait.
const ANSWER: Duration = Duration::from_secs(60);
const CHUNK_BYTES: usize = 4096;

pub enum Failure {
    /// No connection could be opened: the request was certainly not applied.
    NotSent,
    /// No complete answer was received: the request may or may not have been applied.
    Lost,
}

pub struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    received: Vec<u8>,
}

impl Connection {
    pub fn new(port: u16) -> Self {
        Connection { address: (Ipv4Addr::LOCALHOST, port).into(), stream: None, received: Vec::new() }
    }

    /// Sends a request, whose head is given without `Host`, `Content-Length` and the empty line at its end.
    pub fn request(&mut self, head: &str, body: &str) -> Result<Answer, Failure> {
        if self.stream.is_none() {
            self.stream = Some(self.open().map_err(|_| Failure::NotSent)?);
        }
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let message = format!("{head}Host: 127.0.0.1\r\n{length}\r\n{body}");
        let answer = self.exchange(message.as_bytes());
        if answer.as_ref().map_or(true, |answer| answer.closes) {
            self.stream = None;
        }
        answer.map_err(|_| Failure::Lost)
    }

    fn open(&mut self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, CONNECT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        self.received.clear();
        Ok(stream)
    }

    fn exchange(&mut self, message: &[u8]) -> io::Result<Answer> {
        self.stream.as_mut().expect("it was opened").write_all(message)?;
        let end = self.until(0, b"\r\n\r\n")?;
        let mut answer = Answer::parse(&self.received[..end]).ok_or(io::ErrorKind::InvalidData)?;
        let mut position = end;
        if answer.is_chunked {
            loop {
                let line = self.until(position, b"\r\n")?;
                let digits = std::str::from_utf8(&self.received[position..line - 2]).map_err(io::Error::other)?;
                let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
                self.at_least(line + size + 2)?;
                answer.body.extend_from_slice(&self.received[line..line + size]);
                position = line + size + 2;
                if size == 0 {
                    break;
                }
            }
        } else {
            self.at_least(end + answer.length)?;
            answer.body.extend_from_slice(&self.received[end..end + answer.length]);
            position = end + answer.length;
        }
        // Requests are sent one at a time, so bytes beyond the answer belong to none.
        if position != self.received.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.received.clear();
        Ok(answer)
    }

    /// The position after the first `mark` at or after `from`.
    fn until(&mut self, from: usize, mark: &[u8]) -> io::Result<usize> {
        loop {
            let found = self.received[from..].windows(mark.len()).position(|window| window == mark);
            if let Some(found) = found {
                return Ok(from + found + mark.len());
            }
            self.receive()?;
        }
    }

    fn at_least(&mut self, bytes: usize) -> io::Result<()> {
        while self.received.len() < bytes {
            self.receive()?;
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        let length = self.received.len();
        self.received.resize(length + CHUNK_BYTES, 0);
        let read = self.stream.as_mut().expect("it was opened").read(&mut self.received[length..]);
        self.received.truncate(length + *read.as_ref().unwrap_or(&0));
        if read? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}
