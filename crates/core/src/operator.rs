//! What is on record of operators: who came to the console's door, and whether they were let in.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::{clock::Timestamp, error::Invalid};

/// What somebody did at the door.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OperatorEvent {
    /// Came in with the admin token.
    SignedIn,
    /// Came with a token that is none.
    SignInRefused,
    /// Went out.
    SignedOut,
    /// Tried too often. On record once for a while, however often it was tried.
    LockedOut,
}

impl OperatorEvent {
    const ALL: [Self; 4] = [Self::SignedIn, Self::SignInRefused, Self::SignedOut, Self::LockedOut];

    /// Its name in the store and in the console.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SignedIn => "SIGNED_IN",
            Self::SignInRefused => "SIGN_IN_REFUSED",
            Self::SignedOut => "SIGNED_OUT",
            Self::LockedOut => "LOCKED_OUT",
        }
    }
}

impl fmt::Display for OperatorEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OperatorEvent {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|event| event.as_str() == text)
            .ok_or_else(|| Invalid::new("event", "must be an event of the operator log"))
    }
}

/// An event, to be put on record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OperatorEntry {
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: OperatorEvent,
    /// Whose connection it was: behind a proxy, the proxy's.
    pub address: IpAddr,
}

/// An event on record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OperatorRecord {
    /// Unique, and rising with every record.
    pub id: i64,
    /// The event.
    pub entry: OperatorEntry,
}
