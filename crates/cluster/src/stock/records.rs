//! What Redis keeps of a purchase, as text: its place, what a user holds, and entries of the outbox.

use std::str::FromStr;

use flashsale_core::{
    clock::Timestamp,
    ids::{Epoch, OrderId, Place, Unit},
    order::{OrderStatus, Purchase},
};

use super::Trouble;

/// A place is the generation above these bits, and a count within it below.
const COUNT_BITS: u32 = 32;

/// The place `count` of a generation.
pub(crate) fn place(generation: u32, count: u64) -> Place {
    Place((u64::from(generation) << COUNT_BITS) | count)
}

/// The generation that a place names.
pub(crate) fn generation_of(place: Place) -> u32 {
    u32::try_from(place.0 >> COUNT_BITS).unwrap_or(u32::MAX)
}

/// A place's count within its generation.
pub(crate) fn count_of(place: Place) -> u64 {
    place.0 & ((1 << COUNT_BITS) - 1)
}

/// What a user holds, as Redis keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Holding {
    pub(crate) confirmed: bool,
    pub(crate) unit: Unit,
    pub(crate) place: Place,
    /// When it was reserved.
    pub(crate) at: Timestamp,
    pub(crate) order_id: OrderId,
}

impl Holding {
    pub(crate) fn purchase(&self) -> Purchase {
        let status = if self.confirmed { OrderStatus::Confirmed } else { OrderStatus::Reserved };
        Purchase { order_id: self.order_id, unit: self.unit, status }
    }

    pub(crate) fn written(&self) -> String {
        let state = if self.confirmed { 'C' } else { 'R' };
        format!("{state}{}:{}:{}:{}", self.unit, self.place, self.at.as_millis(), self.order_id)
    }
}

impl FromStr for Holding {
    type Err = Trouble;

    fn from_str(text: &str) -> Result<Self, Trouble> {
        let read = || {
            let confirmed = match text.as_bytes().first()? {
                b'C' => true,
                b'R' => false,
                _ => return None,
            };
            let mut parts = text[1..].splitn(4, ':');
            let unit = Unit(parts.next()?.parse().ok()?);
            let place = Place(parts.next()?.parse().ok()?);
            let at = Timestamp::from_millis(parts.next()?.parse().ok()?);
            let order_id = parts.next()?.parse().ok()?;
            Some(Self { confirmed, unit, place, at, order_id })
        };
        read().ok_or_else(|| Trouble::Away(format!("{text:?} is no holding")))
    }
}

/// An entry of the outbox: what one call reserved of one sale.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) generation: u32,
    pub(crate) epoch: Epoch,
    pub(crate) at: Timestamp,
    /// The first reservation's count; each further one has the next.
    pub(crate) first: u64,
    /// Unit, order and user of each.
    pub(crate) rows: Vec<(Unit, OrderId, String)>,
}

/// Entries of the outbox, as far as they can be read, and the last one's name.
#[derive(Default)]
pub(crate) struct Entries {
    pub(crate) rows: Vec<Entry>,
    pub(crate) last: Option<String>,
}

impl Entry {
    pub(crate) fn read(row: &redis::streams::StreamId) -> Option<Self> {
        let text = |name: &str| row.get::<String>(name);
        let lines = text("r")?;
        let rows = lines.lines().map(|line| {
            let mut parts = line.splitn(3, ' ');
            let unit = Unit(parts.next()?.parse().ok()?);
            Some((unit, parts.next()?.parse().ok()?, parts.next()?.to_owned()))
        });
        Some(Self {
            id: row.id.clone(),
            generation: text("g")?.parse().ok()?,
            epoch: Epoch(text("e")?.parse().ok()?),
            at: Timestamp::from_millis(text("t")?.parse().ok()?),
            first: text("p")?.parse::<u32>().ok()?.into(),
            rows: rows.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_holding_is_read_as_it_was_written() {
        let (at, order_id) = (Timestamp::from_millis(1_771_815_600_000), OrderId(Uuid::nil()));
        let held = Holding { confirmed: true, unit: Unit(7), place: place(1, 1), at, order_id };
        assert_eq!(held.written().parse::<Holding>(), Ok(held));
        assert!("X7:1:0".parse::<Holding>().is_err());
    }

    #[test]
    fn a_place_is_its_generation_and_its_count() {
        assert!(place(1, u64::from(u32::MAX)) < place(2, 0));
        assert_eq!(count_of(place(7, 42)), 42);
    }
}
