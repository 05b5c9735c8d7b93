//! One keep-alive HTTP/1.1 connection to the server, opened again when it is gone.
//!
//! The task that asks also drives hyper's connection, instead of a task beside it: an exchange then costs no wake-up
//! between tasks, and the server under test, which shares the machine, keeps the cores.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::target::Target;

/// The longest reply that is read, in bytes.
const LONGEST_REPLY: usize = 64 * 1024;

type Driver = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

/// Why a request has no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
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
    /// Whether it has a `Retry-After` header.
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
    driver: Pin<Box<Driver>>,
    /// The driver must not be polled again.
    ended: bool,
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

    async fn attempt(&mut self, mut request: Request<Full<Bytes>>) -> Result<Head, Unanswered> {
        let mut retried = false;
        loop {
            let open = self.ready().await?;
            let sent = Instant::now();
            let sending = open.sender.try_send_request(request);
            match drive(&mut open.driver, &mut open.ended, sending).await {
                Ok(response) => return self.read(response, sent).await,
                Err(mut error) => match error.take_message() {
                    // hyper hands a request back only when no byte of it was sent: to send it again is safe.
                    Some(unsent) if !retried => {
                        request = unsent;
                        retried = true;
                        self.open = None;
                    }
                    _ => return Err(Unanswered::Lost(error.into_error())),
                },
            }
        }
    }

    /// A connection that can take a request. Polling the old one first shows whether the server has closed it.
    async fn ready(&mut self) -> Result<&mut Open, Unanswered> {
        let alive = match &mut self.open {
            Some(open) => drive(&mut open.driver, &mut open.ended, open.sender.ready()).await.is_ok(),
            None => false,
        };
        if !alive {
            self.connect().await?;
            let open = self.open.as_mut().expect("just connected");
            drive(&mut open.driver, &mut open.ended, open.sender.ready()).await.map_err(Unanswered::Lost)?;
        }
        Ok(self.open.as_mut().expect("alive or just connected"))
    }

    async fn read(&mut self, response: Response<Incoming>, sent: Instant) -> Result<Head, Unanswered> {
        let open = self.open.as_mut().expect("a response came on it");
        let (head, mut body) = response.into_parts();
        self.body.clear();
        while !body.is_end_stream() {
            let Some(frame) = drive(&mut open.driver, &mut open.ended, body.frame()).await else { break };
            if let Ok(data) = frame.map_err(Unanswered::Lost)?.into_data() {
                if self.body.len() + data.len() > LONGEST_REPLY {
                    return Err(Unanswered::TooLong);
                }
                self.body.extend_from_slice(&data);
            }
        }
        let retry_after = head.headers.contains_key(RETRY_AFTER);
        Ok(Head { status: head.status, retry_after, sent, completed: Instant::now() })
    }
}

impl Open {
    async fn connect(target: &Target) -> Result<Self, Unanswered> {
        let stream = TcpStream::connect(target.address).await.map_err(Unanswered::Connect)?;
        stream.set_nodelay(true).map_err(Unanswered::Connect)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(Unanswered::Lost)?;
        Ok(Self { sender, driver: Box::pin(driver), ended: false })
    }
}

/// Waits for `future`, which waits for the connection, while driving the connection.
async fn drive<F: Future>(driver: &mut Pin<Box<Driver>>, ended: &mut bool, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        // Its own result tells nothing more: a connection that failed fails the future that waits for it.
        *ended = *ended || driver.as_mut().poll(context).is_ready();
        future.as_mut().poll(context)
    })
    .await
}

/// hyper names the kind of error; the system's words are in the cause.
fn with_cause(error: &hyper::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
