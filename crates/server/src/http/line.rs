//! The line of a connection, and whether there is somebody at its other end.
//!
//! Whoever has sent his request may close his half of the line and wait: he is answered. Whoever watches an event stream
//! and closes it is gone, and his place is free at once.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_io_timeout::TimeoutStream;

/// A line whose reader may take nothing for a while only.
pub(super) struct Line {
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    /// Whether what is sent is an event stream.
    is_watched: Arc<AtomicBool>,
}

impl Line {
    /// A line on which nothing may be taken for so long, with the word whether it is an event stream that is sent.
    pub(super) fn new(stream: TcpStream, write: Duration, is_watched: Arc<AtomicBool>) -> Self {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(write));
        Self { stream: Box::pin(stream), is_watched }
    }

    /// Whether the other end is closed. If not, whoever asks is woken when it is.
    fn is_left(&self, context: &mut Context<'_>) -> bool {
        let mut byte = [0];
        match self.stream.get_ref().poll_peek(context, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(bytes)) => bytes == 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(context, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // Called whenever all there is has been sent: the moment to see whether anybody still watches.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_watched.load(Ordering::Relaxed) && self.is_left(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        self.stream.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(context)
    }
}
