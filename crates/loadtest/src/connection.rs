//! One keep-alive HTTP/1.1 connection to the server, opened again when it is gone.
//!
//! The task that asks also drives hyper's connection, instead of a task beside it: an exchange then costs no wake-up
//! between tasks, and the server under test, which shares the machine, keeps the cores.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{TrySendError, http1};
use hyper::header::{HOST, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::target::Target;

/// The longest reply that is read, in bytes.
const LONGEST_REPLY: usize = 64 * 1024;
/// The longest that a connection may have been idle to be used again. Servers close idle ones, ours after 10 s, and a
/// request that crosses the closing is lost.
const LONGEST_IDLE: Duration = Duration::from_secs(2);
/// The system's number for "this process has too many files open", on all kinds of Unix.
const EMFILE: i32 = 24;

/// A reply that has begun, and when its request was sent.
type Begun = (Response<Incoming>, Instant);
type Driver = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

/// Why a request has no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The trouble is ours: a connection is a file.
    #[error("this machine lets the load generator open no more files")]
    OutOfFiles,
    #[error("connection lost: {}", with_cause(.0))]
    Lost(#[source] hyper::Error),
    #[error("no reply within {0:?}")]
    TimedOut(Duration),
    #[error("reply longer than 64 KiB")]
    TooLong,
}

/// A complete reply. The body lies in the link's buffer.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: StatusCode,
    /// Whether it has a `Retry-After` header that says when.
    pub(crate) retry_after: bool,
    /// Taken just before the request was sent (the last time, if it was sent twice).
    pub(crate) sent: Instant,
    /// Taken as soon as the last byte of the body was there.
    pub(crate) completed: Instant,
    pub(crate) body: &'a [u8],
}

/// A place for one connection.
pub(crate) struct Link {
    target: Arc<Target>,
    open: Option<Open>,
    /// The last reply's body; reused.
    body: Vec<u8>,
}

struct Open {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` once it has ended. It must then be dropped: only that fails the requests it will not send.
    driver: Option<Pin<Box<Driver>>>,
    /// Why it has ended, if that was an error.
    end: Option<hyper::Error>,
    /// When it was opened, or the last reply on it was complete.
    used: Instant,
}

/// A reply but for its body.
struct Head {
    status: StatusCode,
    retry_after: bool,
    sent: Instant,
    completed: Instant,
}

impl Link {
    /// A link that connects when it is first needed.
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self { target, open: None, body: Vec::new() }
    }

    /// Connects now, so that the first request does not pay for it.
    pub(crate) async fn connect(&mut self) -> Result<(), Unanswered> {
        self.open = Some(Open::connect(&self.target).await?);
        Ok(())
    }

    /// Sends a request and reads the whole reply, within `timeout`. The request's uri is a path; the `Host` header
    /// is added. A connection that the server has closed meanwhile is opened again.
    pub(crate) async fn exchange(
        &mut self,
        mut request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Answer<'_>, Unanswered> {
        request.headers_mut().insert(HOST, self.target.host.clone());
        let outcome = tokio::time::timeout(timeout, self.attempt(request)).await;
        match outcome.unwrap_or(Err(Unanswered::TimedOut(timeout))) {
            Ok(Head { status, retry_after, sent, completed }) => {
                Ok(Answer { status, retry_after, sent, completed, body: &self.body })
            }
            Err(error) => {
                // Whatever still comes on it would be taken for the reply to the next request.
                self.open = None;
                Err(error)
            }
        }
    }

    async fn attempt(&mut self, request: Request<Full<Bytes>>) -> Result<Head, Unanswered> {
        self.ready().await?;
        self.deliver(request).await
    }

    /// Sends a request on the open connection, and once more on a fresh one if the old one was gone already.
    async fn deliver(&mut self, request: Request<Full<Bytes>>) -> Result<Head, Unanswered> {
        let lost = |error: TrySendError<_>| Unanswered::Lost(error.into_error());
        let (response, sent) = match self.send(request).await {
            Ok(begun) => begun,
            Err(mut error) => {
                // hyper hands a request back only when no byte of it was sent: to send it again is safe.
                let Some(unsent) = error.take_message() else { return Err(lost(error)) };
                self.open = None;
                self.ready().await?;
                self.send(unsent).await.map_err(lost)?
            }
        };
        self.read(response, sent).await
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Begun, TrySendError<Request<Full<Bytes>>>> {
        let open = self.open.as_mut().expect("made ready before");
        let sent = Instant::now();
        let sending = open.sender.try_send_request(request);
        drive(&mut open.driver, &mut open.end, sending).await.map(|response| (response, sent))
    }

    /// Sees to a connection that can take a request. Polling the old one shows whether the server has closed it.
    async fn ready(&mut self) -> Result<(), Unanswered> {
        let alive = match &mut self.open {
            Some(open) if open.used.elapsed() <= LONGEST_IDLE => open.ready().await.is_ok(),
            _ => false,
        };
        if !alive {
            // Closed first: at the limit of open files there is no room for both.
            self.open = None;
            self.connect().await?;
            self.open.as_mut().expect("just connected").ready().await.map_err(Unanswered::Lost)?;
        }
        Ok(())
    }

    async fn read(&mut self, response: Response<Incoming>, sent: Instant) -> Result<Head, Unanswered> {
        let open = self.open.as_mut().expect("a response came on it");
        let (head, mut body) = response.into_parts();
        self.body.clear();
        while !body.is_end_stream() {
            let Some(frame) = drive(&mut open.driver, &mut open.end, body.frame()).await else { break };
            if let Ok(data) = frame.map_err(Unanswered::Lost)?.into_data() {
                if self.body.len() + data.len() > LONGEST_REPLY {
                    return Err(Unanswered::TooLong);
                }
                self.body.extend_from_slice(&data);
            }
        }
        let retry_after = head.headers.get(RETRY_AFTER).is_some_and(says_when);
        let completed = Instant::now();
        open.used = completed;
        Ok(Head { status: head.status, retry_after, sent, completed })
    }
}

impl Open {
    async fn connect(target: &Target) -> Result<Self, Unanswered> {
        let stream = TcpStream::connect(target.address).await.map_err(unconnected)?;
        stream.set_nodelay(true).map_err(Unanswered::Connect)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(Unanswered::Lost)?;
        Ok(Self { sender, driver: Some(Box::pin(driver)), end: None, used: Instant::now() })
    }

    /// Waits until it can take a request.
    async fn ready(&mut self) -> hyper::Result<()> {
        let ready = drive(&mut self.driver, &mut self.end, self.sender.ready()).await;
        // hyper tells the sender only that it is closed; why, it tells the driver.
        ready.map_err(|closed| self.end.take().unwrap_or(closed))
    }
}

/// Waits for `future`, which waits for the connection, while driving the connection. Keeps why that ended in `end`.
async fn drive<F: Future>(
    driver: &mut Option<Pin<Box<Driver>>>,
    end: &mut Option<hyper::Error>,
    future: F,
) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        if let Some(running) = driver
            && let Poll::Ready(ended) = running.as_mut().poll(context)
        {
            *driver = None;
            *end = ended.err();
        }
        future.as_mut().poll(context)
    })
    .await
}

fn unconnected(error: io::Error) -> Unanswered {
    match error.raw_os_error() {
        Some(EMFILE) if cfg!(unix) => Unanswered::OutOfFiles,
        _ => Unanswered::Connect(error),
    }
}

/// Whether a `Retry-After` is a number of seconds, or at least has the shape of a date.
fn says_when(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    text.parse::<u32>().is_ok()
        || (text.len() == "Sun, 06 Nov 1994 08:49:37 GMT".len() && text.ends_with(" GMT"))
}

/// hyper names the kind of error; the system's words are in the cause.
fn with_cause(error: &hyper::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn listen() -> (TcpListener, Link) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        (listener, Link::new(Arc::new(Target { address, host: HeaderValue::from_static("shop") })))
    }

    fn request() -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = "/".parse().expect("a path");
        request
    }

    /// Accepts a connection, and answers what comes with `reply`.
    async fn serve(listener: &TcpListener, reply: &[u8]) {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.expect("a request") > 0);
        stream.write_all(reply).await.expect("a client");
    }

    #[tokio::test]
    async fn a_request_that_was_not_sent_is_sent_once_more_on_a_fresh_connection() {
        let (listener, mut link) = listen().await;
        link.ready().await.expect("a connection");
        let (closed, _) = listener.accept().await.expect("the connection");
        // The server closes between our look and our sending. That the end has arrived is certain once something
        // sent after it has.
        let mut witness = TcpStream::connect(link.target.address).await.expect("a connection");
        let (mut other, _) = listener.accept().await.expect("the witness");
        drop(closed);
        other.write_all(b"x").await.expect("the witness listens");
        witness.read_u8().await.expect("a byte");

        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        let server = tokio::spawn(async move { serve(&listener, reply).await });
        assert_eq!(link.deliver(request()).await.expect("a reply").status, StatusCode::OK);
        assert_eq!(link.body, b"{}");
        server.await.expect("it was asked again");
    }

    #[tokio::test]
    async fn a_connection_that_was_idle_is_not_used_again() {
        // At a low rate a connection was used again after just the 10 s at which the server closes it: its end and
        // the request crossed, and the run failed for it.
        let (listener, mut link) = listen().await;
        link.ready().await.expect("a connection");
        let (_idle, _) = listener.accept().await.expect("the connection");
        let open = link.open.as_mut().expect("it is open");
        open.used =
            open.used.checked_sub(LONGEST_IDLE + Duration::from_millis(1)).expect("the machine is up");

        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        let server = tokio::spawn(async move { serve(&listener, reply).await });
        let answer = link.exchange(request(), Duration::from_secs(10)).await;
        assert_eq!(answer.expect("a reply, on the second connection").status, StatusCode::OK);
        server.await.expect("it was asked");
    }

    #[tokio::test]
    async fn an_answer_before_the_request_is_called_what_it_is() {
        // A server at its bound of connections said so at once. "channel closed" was all that became of it.
        let (listener, mut link) = listen().await;
        let early = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await.expect("a client");
            stream
        };
        let (connected, _stream) = tokio::join!(link.connect(), early);
        connected.expect("a connection");
        let open = link.open.as_mut().expect("just connected");
        // Polls until the bytes are there.
        let ended = poll_fn(|context| open.driver.as_mut().expect("it runs").as_mut().poll(context)).await;
        (open.driver, open.end) = (None, ended.err());
        let error = open.ready().await.expect_err("it has ended").to_string();
        assert_eq!(error, "received unexpected message from connection");
    }

    #[tokio::test]
    async fn a_request_that_was_sent_is_never_sent_again() {
        let (listener, mut link) = listen().await;
        let timeout = Duration::from_secs(10);
        let (answer, ()) = tokio::join!(link.exchange(request(), timeout), serve(&listener, b""));
        let error = answer.expect_err("the server hung up").to_string();
        assert!(error.starts_with("connection lost: "), "{error}");
        let nobody = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(nobody.is_err(), "nobody connects again");
    }

    #[test]
    fn a_machine_without_files_to_open_is_not_held_against_the_server() {
        let error = |number| unconnected(io::Error::from_raw_os_error(number));
        assert!(matches!(error(EMFILE), Unanswered::OutOfFiles));
        assert!(matches!(error(111), Unanswered::Connect(_)));
    }

    #[tokio::test]
    async fn a_retry_after_says_when_or_does_not_count() {
        // "banana" counted.
        for (text, says) in [
            ("0", true),
            ("120", true),
            ("Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("", false),
            ("banana", false),
            ("-1", false),
            ("1.5", false),
            ("soon GMT", false),
        ] {
            let (listener, mut link) = listen().await;
            let reply = format!("HTTP/1.1 503 Busy\r\nRetry-After: {text}\r\nContent-Length: 0\r\n\r\n");
            let exchange = link.exchange(request(), Duration::from_secs(10));
            let (answer, ()) = tokio::join!(exchange, serve(&listener, reply.as_bytes()));
            assert_eq!(answer.expect("a reply").retry_after, says, "{text}");
        }
    }

    #[tokio::test]
    async fn a_reply_without_end_is_not_read_to_its_end() {
        let (listener, mut link) = listen().await;
        let reply = ["HTTP/1.1 200 OK\r\n\r\n".to_owned(), "x".repeat(LONGEST_REPLY + 1)].concat();
        let exchange = link.exchange(request(), Duration::from_secs(10));
        let (answer, ()) = tokio::join!(exchange, serve(&listener, reply.as_bytes()));
        assert!(matches!(answer, Err(Unanswered::TooLong)), "{answer:?}");
    }
}
