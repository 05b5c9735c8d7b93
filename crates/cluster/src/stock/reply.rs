//! The replies of the functions: read, or the trouble that they tell of.

use std::{str::FromStr, sync::Arc, time::Duration};

use flashsale_core::{
    Error,
    clock::Timestamp,
    ids::{Epoch, Place, SaleId, Unit},
    product::Product,
    sale::{Sale, Window},
};
use redis::{RedisError, Value};
use tracing::debug;

use super::{Holding, place};

/// A gate that is closed for this long, by Redis' clock, belongs to somebody who died.
const ABANDONED_MS: u64 = 2_000;
/// And so it was left.
pub(crate) const LEFT_CLOSED: &str = "the gate of a sale was left closed";

/// Why Redis did not do what it was asked to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// The sale's gate is closed: it is being changed right now, or somebody died over it.
    Closed,
    /// Redis does not know the sale.
    Missing,
    /// Redis has lost its memory, or part of it: somebody has to recover.
    Forgotten(&'static str),
    /// No reply, or one that makes no sense.
    Away(String),
}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        match error.code() {
            // Somebody has written over a key of ours.
            Some("WRONGTYPE") => Self::Forgotten("a key holds something else"),
            _ => Self::Away(error.to_string()),
        }
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        let (reason, seconds) = match trouble {
            Trouble::Closed => ("The sale is being changed right now".to_owned(), 1),
            Trouble::Missing | Trouble::Forgotten(_) => {
                ("The stock is being rebuilt from the records".to_owned(), 1)
            }
            Trouble::Away(why) => {
                debug!(why, "Redis is away");
                ("Redis is away".to_owned(), 2)
            }
        };
        Self::Unavailable { reason, retry_after: Duration::from_secs(seconds) }
    }
}

/// The answer to one attempt of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Reserved(Holding),
    Held(Holding),
    SoldOut,
    NotActive,
}

/// What a call decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Decided {
    pub(crate) generation: u32,
    pub(crate) epoch: Epoch,
    pub(crate) now: Timestamp,
    /// The place that rejections of this call rest on.
    pub(crate) changed: Place,
    pub(crate) no: i32,
    /// The outbox entry of the reservations, where there are any.
    pub(crate) entry: Option<String>,
    pub(crate) answers: Vec<Answer>,
}

/// Everything about a sale but its purchasers.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) generation: u32,
    pub(crate) now: Timestamp,
    pub(crate) changed: Place,
    pub(crate) no: i32,
    pub(crate) sale: Sale,
    pub(crate) available: u32,
    pub(crate) confirmed: u32,
    pub(crate) next: Unit,
    pub(crate) place: Place,
    pub(crate) closed: bool,
}

pub(crate) fn state_of(sale: &SaleId, reply: &Reply) -> Result<State, Trouble> {
    let generation = reply.number(1)?;
    let window =
        Window::new(Timestamp::from_millis(reply.number(9)?), Timestamp::from_millis(reply.number(10)?))
            .map_err(|error| Trouble::Away(error.to_string()))?;
    let state = State {
        generation,
        now: Timestamp::from_millis(reply.number(3)?),
        changed: reply.place(generation, 4)?,
        no: reply.number(5)?,
        available: reply.number(6)?,
        confirmed: reply.number(7)?,
        sale: Sale {
            id: sale.clone(),
            name: reply.text(15)?.to_owned(),
            total_stock: reply.number(8)?,
            window,
            epoch: Epoch(reply.number(2)?),
            paused: reply.text(11)? == "1",
            product: product_of(reply.text(16)?)?,
        },
        next: Unit(reply.number(12)?),
        place: reply.place(generation, 13)?,
        closed: !reply.text(14)?.is_empty(),
    };
    // The function looks at this, too. Whoever subtracts relies on it.
    if state.available > state.sale.total_stock {
        return Err(Trouble::Forgotten("more units are free than there are"));
    }
    Ok(state)
}

/// What pages show of a sale. A hash that some other program has cut short has none.
fn product_of(text: &str) -> Result<Arc<Product>, Trouble> {
    let product = serde_json::from_str(text);
    product.map(Arc::new).map_err(|error| Trouble::Away(format!("{text:?} is no product: {error}")))
}

fn answer_of(text: &str) -> Result<Answer, Trouble> {
    match text.as_bytes().first() {
        Some(b'S') => Ok(Answer::SoldOut),
        Some(b'N') => Ok(Answer::NotActive),
        Some(b'A') => text[1..].parse().map(Answer::Held),
        Some(b'R') => text.parse().map(Answer::Reserved),
        _ => Err(Trouble::Away(format!("{text:?} is no answer"))),
    }
}

/// A function's reply.
pub(crate) struct Reply(Vec<Value>);

impl Reply {
    /// The reply of these values, or the trouble that they tell of.
    pub(crate) fn of(values: Vec<Value>) -> Result<Self, Trouble> {
        let reply = Reply(values);
        match reply.text(0)? {
            "ok" => Ok(reply),
            "closed" if reply.number(1).is_ok_and(|closed_for: u64| closed_for >= ABANDONED_MS) => {
                Err(Trouble::Forgotten(LEFT_CLOSED))
            }
            "closed" => Err(Trouble::Closed),
            "superseded" => Err(Trouble::Forgotten("somebody else has rebuilt the stock meanwhile")),
            "missing" => Err(Trouble::Missing),
            "unarmed" => Err(Trouble::Forgotten("the server was restarted or replaced")),
            "inconsistent" => {
                Err(Trouble::Forgotten("keys of the sale are missing or contradict each other"))
            }
            other => Err(Trouble::Away(format!("{other:?} is no answer"))),
        }
    }

    /// What a call decided.
    pub(crate) fn decided(&self) -> Result<Decided, Trouble> {
        let generation = self.number(1)?;
        let answers =
            self.array(7)?.iter().map(|answer| answer_of(as_text(answer)?)).collect::<Result<_, _>>()?;
        Ok(Decided {
            generation,
            epoch: Epoch(self.number(2)?),
            now: Timestamp::from_millis(self.number(3)?),
            changed: self.place(generation, 4)?,
            no: self.number(5)?,
            entry: Some(self.text(6)?.to_owned()).filter(|entry| !entry.is_empty()),
            answers,
        })
    }

    /// The generation, and what a user holds.
    pub(crate) fn held(&self) -> Result<(u32, Option<Holding>), Trouble> {
        let held = match self.text(3)? {
            "" => None,
            holding => Some(holding.parse()?),
        };
        Ok((self.number(1)?, held))
    }

    /// The generation, and all sales in the order in which they were made.
    pub(crate) fn listed(&self) -> Result<(u32, Vec<(SaleId, i32)>), Trouble> {
        let mut sales = Vec::new();
        for pair in self.array(2)?.chunks_exact(2) {
            let (id, no) = (as_text(&pair[0])?, as_text(&pair[1])?);
            if let (Ok(id), Ok(no)) = (id.parse(), no.parse()) {
                sales.push((id, no));
            }
        }
        sales.sort_by_key(|(_, no)| *no);
        Ok((self.number(1)?, sales))
    }

    fn at(&self, index: usize) -> Result<&Value, Trouble> {
        self.0.get(index).ok_or_else(|| Trouble::Away("a reply is too short".to_owned()))
    }

    pub(super) fn text(&self, index: usize) -> Result<&str, Trouble> {
        as_text(self.at(index)?)
    }

    fn number<T: FromStr>(&self, index: usize) -> Result<T, Trouble> {
        let text = self.text(index)?;
        text.parse().map_err(|_| Trouble::Away(format!("{text:?} is no number")))
    }

    /// A count within a generation, as a place. One that reached into the bits of the generation would name another.
    fn place(&self, generation: u32, index: usize) -> Result<Place, Trouble> {
        Ok(place(generation, self.number::<u32>(index)?.into()))
    }

    fn array(&self, index: usize) -> Result<&[Value], Trouble> {
        match self.at(index)? {
            Value::Array(values) => Ok(values),
            other => Err(Trouble::Away(format!("{other:?} is no list"))),
        }
    }
}

fn as_text(value: &Value) -> Result<&str, Trouble> {
    let text = match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text.as_str()),
        _ => None,
    };
    text.ok_or_else(|| Trouble::Away(format!("{value:?} is no text")))
}

/// Whether the text stands anywhere in a reply.
pub(super) fn holds(value: &Value, wanted: &str) -> bool {
    match value {
        Value::BulkString(bytes) => bytes == wanted.as_bytes(),
        Value::Array(values) | Value::Set(values) => values.iter().any(|value| holds(value, wanted)),
        Value::Map(pairs) => pairs.iter().any(|(key, value)| holds(key, wanted) || holds(value, wanted)),
        _ => false,
    }
}

/// All texts of a reply, one a line.
pub(super) fn gather_text(value: &Value, into: &mut String) {
    match value {
        Value::Array(values) | Value::Set(values) => values.iter().for_each(|value| gather_text(value, into)),
        Value::Map(pairs) => pairs.iter().for_each(|(key, value)| {
            gather_text(key, into);
            gather_text(value, into);
        }),
        other => {
            if let Ok(text) = as_text(other) {
                into.push_str(text);
                into.push('\n');
            }
        }
    }
}
