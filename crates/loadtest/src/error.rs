//! Why a load could not be applied at all.

use std::io;

/// Why [`run`](crate::run) gave no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option is out of range.
    #[error("{option}: {reason}")]
    Option {
        /// The field of [`Options`](crate::Options) or of [`Load`](crate::Load).
        option: &'static str,
        /// What is asked of it.
        reason: String,
    },
    /// The base url is not `http://host:port`.
    #[error("the url {url:?} {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it; completes the sentence.
        reason: String,
    },
    /// Nobody listens there, or the host is not known.
    #[error("cannot connect to {authority}: {source}. Is the server running?")]
    Connect {
        /// Host and port.
        authority: String,
        /// What the system said about the last address tried.
        source: io::Error,
    },
    /// The server answers, but has no sale of that id.
    #[error("the server has no sale {sale:?}")]
    NoSuchSale {
        /// As given.
        sale: String,
    },
    /// The server answered a GET with something that is not a reply of a flash sale server.
    #[error("unexpected reply to GET {path}: {reason}")]
    Unexpected {
        /// Path of the request.
        path: String,
        /// What came instead.
        reason: String,
    },
    /// The server did not answer a GET.
    #[error("no answer to GET {path}: {reason}")]
    Unanswered {
        /// Path of the request.
        path: String,
        /// What happened instead.
        reason: String,
    },
    /// It was told to stop before the load was on.
    #[error("interrupted before the load was on")]
    Interrupted,
    /// A task of the load generator itself died: a defect of ours, not of the server.
    #[error("the load generator failed: {0}")]
    Generator(#[from] tokio::task::JoinError),
}
