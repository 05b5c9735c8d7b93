//! The names of things: sales, users, orders, units, epochs, and places in a sale's sequence.
//!
//! Text that comes from outside becomes one of these types at the edge, once, and is valid from then on.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Invalid;

/// The longest sale id, in characters.
pub const SALE_ID_MAX: usize = 64;
/// The longest user id, in bytes.
pub const USER_ID_MAX: usize = 255;

macro_rules! text_id {
    ($name:ident) => {
        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &self.0)
            }
        }

        // Lets maps keyed by the id be asked with text that was not made into one.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }
    };
}

/// The name of a sale: 1 to 64 characters of `[A-Za-z0-9_-]`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SaleId(Arc<str>);
text_id!(SaleId);

impl FromStr for SaleId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fits = (1..=SALE_ID_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(Invalid::new("saleId", "must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"))
        }
    }
}

/// Who buys: non-empty text of at most 255 bytes without control characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserId(Arc<str>);
text_id!(UserId);

impl FromStr for UserId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let complaint = if text.is_empty() {
            "must not be empty"
        } else if text.len() > USER_ID_MAX {
            "must be at most 255 bytes long"
        } else if text.chars().any(char::is_control) {
            "must not contain control characters"
        } else {
            return Ok(Self(text.into()));
        };
        Err(Invalid::new("userId", complaint))
    }
}

/// The name of an order: a UUID, version 7 where we make it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(pub Uuid);

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for OrderId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        text.parse().map(Self).map_err(|_| Invalid::new("orderId", "must be a UUID"))
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The number of the unit that a reservation holds: 1 to the sale's total stock.
    Unit(u32)
}
number! {
    /// The life of a sale between two resets. The first is 1.
    Epoch(u32)
}
number! {
    /// A place in a sale's one sequence of decisions and changes. The first is 1; 0 means "before all".
    Place(u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sale_ids_are_plain_words() {
        for good in ["a", "sale_1", "A-b_9", &"x".repeat(64)] {
            assert_eq!(good.parse::<SaleId>().unwrap().as_str(), good);
        }
        for bad in ["", " ", "a b", "sale/1", "säle", "a\n", "a:b", "{a}", &"x".repeat(65)] {
            assert!(bad.parse::<SaleId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn user_ids_are_any_text_without_control_characters() {
        for good in ["user123", "Zoë", "用户", "a b", "🛒", &"x".repeat(255)] {
            assert_eq!(good.parse::<UserId>().unwrap().as_str(), good);
        }
        for bad in ["", "a\0b", "a\nb", "\u{7f}", "\u{85}", &"x".repeat(256), &"é".repeat(128)] {
            assert!(bad.parse::<UserId>().is_err(), "{bad:?}");
        }
    }
}
