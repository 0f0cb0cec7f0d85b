//! Attempts of which each has a head start before the next begins beside it, as RFC 8305 has it for the addresses of a host: one that
//! stands still, and refuses nothing, holds up nobody.

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// How long an attempt has before the next one begins beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// What the first attempt that succeeds has to show; the others are dropped. Without any attempt `failure` is what is told.
///
/// # Errors
/// What the attempt that failed last says.
pub async fn first_of<T, E, F: Future<Output = Result<T, E>>>(
    attempts: impl IntoIterator<Item = F, IntoIter: ExactSizeIterator>,
    mut failure: E,
) -> Result<T, E> {
    let mut waiting = attempts.into_iter();
    let mut begun = FuturesUnordered::new();
    loop {
        begun.extend(waiting.next());
        let ended = if waiting.len() == 0 {
            begun.next().await
        } else {
            match timeout(HEAD_START, begun.next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        };
        match ended {
            Some(Ok(success)) => return Ok(success),
            Some(Err(error)) => failure = error,
            None => return Err(failure),
        }
    }
}

/// A connection to one of the addresses of a host.
///
/// # Errors
/// When the name is not known, or no address takes a connection.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<_> = lookup_host((host, port)).await?.collect();
    first_of(addresses.into_iter().map(TcpStream::connect), no_address()).await
}

/// What is told of a name without addresses.
pub fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the host has no address")
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use tokio::time::{Instant, sleep};

    use super::*;

    type Attempt = BoxFuture<'static, Result<u8, &'static str>>;

    async fn outcome(attempts: Vec<Attempt>) -> (Result<u8, &'static str>, Duration) {
        let begun = Instant::now();
        (first_of(attempts, "there is none").await, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stands_still_holds_up_nobody() {
        let attempts = vec![pending().boxed(), pending().boxed(), ready(Ok(3)).boxed()];
        assert_eq!(outcome(attempts).await, (Ok(3), 2 * HEAD_START));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_begins_at_once_when_one_fails_and_the_last_failure_is_told() {
        let attempts = vec![ready(Err("refused")).boxed(), ready(Ok(2)).boxed()];
        assert_eq!(outcome(attempts).await, (Ok(2), Duration::ZERO));
        let attempts = vec![ready(Err("refused")).boxed(), ready(Err("a standby")).boxed()];
        assert_eq!(outcome(attempts).await, (Err("a standby"), Duration::ZERO));
        assert_eq!(outcome(Vec::new()).await, (Err("there is none"), Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_one_may_still_be_the_first() {
        let slow = async {
            sleep(HEAD_START + HEAD_START / 2).await; // it takes so long to answer
            Ok(1)
        };
        let attempts = vec![slow.boxed(), pending().boxed(), pending().boxed()];
        assert_eq!(outcome(attempts).await, (Ok(1), HEAD_START + HEAD_START / 2));
    }
}
