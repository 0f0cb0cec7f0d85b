//! Concurrent attempts that start one after the other, each with a head start, as RFC 8305 specifies for the addresses of a
//! host: one that does not respond does not block the others.

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Time between the starts of two attempts (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Returns the result of the first attempt that succeeds; the others are dropped. `failure` is the error if there are no
/// attempts.
///
/// # Errors
/// The error of the attempt that failed last.
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

/// Connects to one of the addresses of a host.
///
/// # Errors
/// If the name cannot be resolved, or no address accepts a connection.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<_> = lookup_host((host, port)).await?.collect();
    first_of(addresses.into_iter().map(TcpStream::connect), no_address()).await
}

/// The error for a name without addresses.
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
    async fn an_attempt_that_does_not_respond_does_not_block_the_others() {
        let attempts = vec![pending().boxed(), pending().boxed(), ready(Ok(3)).boxed()];
        assert_eq!(outcome(attempts).await, (Ok(3), 2 * HEAD_START));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_attempt_starts_at_once_if_one_fails_and_the_last_failure_is_returned() {
        let attempts = vec![ready(Err("refused")).boxed(), ready(Ok(2)).boxed()];
        assert_eq!(outcome(attempts).await, (Ok(2), Duration::ZERO));
        let attempts = vec![ready(Err("refused")).boxed(), ready(Err("a standby")).boxed()];
        assert_eq!(outcome(attempts).await, (Err("a standby"), Duration::ZERO));
        assert_eq!(outcome(Vec::new()).await, (Err("there is none"), Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_attempt_can_still_succeed_first() {
        let slow = async {
            sleep(HEAD_START + HEAD_START / 2).await; // the response time
            Ok(1)
        };
        let attempts = vec![slow.boxed(), pending().boxed(), pending().boxed()];
        assert_eq!(outcome(attempts).await, (Ok(1), HEAD_START + HEAD_START / 2));
    }
}
