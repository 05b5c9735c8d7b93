//! Accepts connections and serves HTTP/1.1 on them, each within its bounds.
//!
//! A connection that sends no complete header in time is told 408 and closed; one that is over the bound of
//! connections is told 503; one that does not read what it is sent is cut off; one that is closed by the half is
//! answered. On shutdown, what comes
//! within a moment and what is under way is answered, and idle connections are closed.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use http::{HeaderValue, Request, Response, header};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tower::ServiceExt;
use tracing::warn;

use super::line::Line;

/// The bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most connections at once; further ones are told 503.
    pub connections: usize,
    /// How long a connection may take to send a request's header, or stay idle between two requests.
    pub header: Duration,
    /// How long a connection may take nothing of what it is sent.
    pub write: Duration,
    /// How long requests under way may take to end on shutdown.
    pub drain: Duration,
}

/// Connections that wait to be accepted; the operating system may hold fewer.
const BACKLOG: u32 = 4_096;
/// The longest header of a request that comes piece by piece, in bytes; the buffer may grow by half beyond it.
const HEADER_BYTES: usize = 32 * 1024;
/// How long after the word to stop connections are still accepted, and served their next request, so that what is sent
/// before anybody can know of it is answered. Each of these answers closes its connection.
const GRACE: Duration = Duration::from_millis(100);
/// How the paths of all event streams end, and no others.
const EVENTS: &str = "/events";
/// The most connections over the bound that are told so at once; more are just closed.
const TURNED_AWAY_MAX: usize = 256;

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 177\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"Too many connections\",\
    \"statusCode\":503,\"message\":\"Too many connections\",\"error\":\"Service Unavailable\"}";
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\n\
    connection: close\r\ncontent-length: 179\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Request Timeout\",\"status\":408,\"detail\":\"The request took too long\",\
    \"statusCode\":408,\"message\":\"The request took too long\",\"error\":\"Request Timeout\"}";

/// Binds to `address` with a long backlog, so that a crowd at the start of a sale is not refused.
///
/// # Errors
/// When the address cannot be had.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What answers the requests of a listener.
pub trait Answer: Clone + Send + Unpin + 'static {
    /// Answers a request.
    fn answer(&self, request: Request<Incoming>) -> Answering;
}

/// An answer under way. Boxed so that the connection can be taken apart after a time-out, which needs `Unpin`.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Answer for Router {
    fn answer(&self, request: Request<Incoming>) -> Answering {
        Box::pin(self.clone().oneshot(request.map(Body::new)))
    }
}

/// Serves `site` on `listener` until `shutdown` ends, then lets requests under way end.
pub async fn serve(
    listener: TcpListener,
    site: impl Answer,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    let (stop, stopped) = watch::channel(false);
    let closing = Arc::new(AtomicBool::new(false));
    let mut shutdown = pin!(async {
        shutdown.await;
        closing.store(true, Ordering::Release);
        sleep(GRACE).await;
    });
    loop {
        let (stream, peer) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = &mut shutdown => break,
        };
        match permits.clone().try_acquire_owned() {
            Ok(permit) => {
                let visit = Visit {
                    site: site.clone(),
                    peer: Peer(peer.ip()),
                    is_watched: Arc::default(),
                    closing: closing.clone(),
                };
                tokio::spawn(connection(stream, visit, limits, stopped.clone(), permit));
            }
            Err(_) => {
                if let Ok(permit) = turned_away.clone().try_acquire_owned() {
                    tokio::spawn(turn_away(stream, permit));
                }
            }
        }
    }
    drop(listener);
    // Nobody listens when all connections are gone already.
    let _ = stop.send(true);
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    if timeout(limits.drain, permits.acquire_many(all)).await.is_err() {
        warn!("some requests had not ended in time; they are cut off");
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // Out of file handles, most likely: connections that end will free some.
            Err(error) if error.kind() != io::ErrorKind::ConnectionAborted => {
                warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
            }
            Err(_) => {}
        }
    }
}

async fn connection(
    stream: TcpStream,
    visit: Visit<impl Answer>,
    limits: Limits,
    mut stopped: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    // A reply must not wait for more to come; where that cannot be set, it is only slower.
    let _ = stream.set_nodelay(true);
    let line = Line::new(stream, limits.write, visit.is_watched.clone());
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(HEADER_BYTES)
        .half_close(true)
        .serve_connection(TokioIo::new(line), visit);
    let mut stopping = pin!(stopped.wait_for(|stopped| *stopped));
    let mut told = false;
    let ended = poll_fn(|context| {
        let polled = connection.poll_without_shutdown(context);
        if polled.is_ready() || told || stopping.as_mut().poll(context).is_pending() {
            return polled;
        }
        told = true;
        Pin::new(&mut connection).graceful_shutdown();
        connection.poll_without_shutdown(context)
    })
    .await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    if ended.is_err_and(|error| error.is_timeout()) && !parts.read_buf.is_empty() {
        // Half a request came; an idle connection is closed without a word.
        let _ = stream.write_all(TOO_SLOW).await;
    }
    let _ = stream.shutdown().await;
}

/// Says that there are too many connections, once something is asked: a client that has not asked does not take a reply for
/// one. And reads what the client still sends for a moment, so that the reply is not lost in a reset.
async fn turn_away(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let goodbye = async {
        stream.peek(&mut [0]).await?;
        stream.write_all(TOO_MANY).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = timeout(Duration::from_secs(1), goodbye).await;
}

/// Whose connection a request came on; each request carries it as an extension. Behind a proxy, the proxy's.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The site as the service of a connection.
struct Visit<S> {
    site: S,
    peer: Peer,
    /// Whether what was asked for is an event stream.
    is_watched: Arc<AtomicBool>,
    /// Whether the server stops, and so each answer is a connection's last.
    closing: Arc<AtomicBool>,
}

impl<S: Answer> Service<Request<Incoming>> for Visit<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<Incoming>) -> Answering {
        self.is_watched.store(request.uri().path().ends_with(EVENTS), Ordering::Relaxed);
        request.extensions_mut().insert(self.peer);
        let answering = self.site.answer(request);
        if self.closing.load(Ordering::Acquire) { last(answering) } else { answering }
    }
}

/// An answer after which its connection is closed.
fn last(answering: Answering) -> Answering {
    Box::pin(async {
        let mut response = answering.await?;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        Ok(response)
    })
}
