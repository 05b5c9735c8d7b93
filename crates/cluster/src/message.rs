//! The messages of the order queue: documented, versioned JSON that other systems may read (docs/messages.md).
//!
//! One message is what one call reserved of one sale, as one entry of the outbox.

use flashsale_core::{
    clock::Timestamp,
    ids::{Epoch, OrderId, Place, SaleId, Unit, UserId},
    order::Reservation,
};
use serde::{Deserialize, Serialize};

use crate::stock::{self, Entry};

/// The version that this program writes and reads.
pub(crate) const VERSION: u32 = 1;
/// The most reservations in a message: a worker that has begun one ends it, also when a recovery waits for that.
pub(crate) const RESERVATIONS_MAX: usize = 256;

/// What one call reserved of one sale.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message {
    pub(crate) version: u32,
    pub(crate) sale_id: SaleId,
    pub(crate) epoch: Epoch,
    pub(crate) generation: u32,
    /// The entry of the outbox that it was made from; empty where reservations are told once more.
    pub(crate) entry: String,
    pub(crate) reserved_at: Timestamp,
    pub(crate) reservations: Vec<Reserved>,
}

/// One reservation of a message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reserved {
    pub(crate) order_id: OrderId,
    pub(crate) user_id: UserId,
    pub(crate) unit: Unit,
    pub(crate) place: Place,
}

/// What tells how to read the rest.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Message {
    /// The message of an entry of a sale's outbox; `None` where it names a user or a place that none can be, or holds what is
    /// no message's to hold.
    pub(crate) fn of(sale: &SaleId, entry: Entry) -> Option<Self> {
        if !(1..=RESERVATIONS_MAX).contains(&entry.rows.len()) {
            return None;
        }
        let reserved = |(index, (unit, order_id, user)): (u64, (Unit, OrderId, String))| {
            let count = u32::try_from(entry.first + index).ok()?;
            let place = stock::place(entry.generation, count.into());
            Some(Reserved { order_id, user_id: user.parse().ok()?, unit, place })
        };
        Some(Self {
            version: VERSION,
            sale_id: sale.clone(),
            epoch: entry.epoch,
            generation: entry.generation,
            reserved_at: entry.at,
            reservations: (0..).zip(entry.rows).map(reserved).collect::<Option<_>>()?,
            entry: entry.id,
        })
    }

    /// Reads a message.
    ///
    /// # Errors
    /// Why it is none, in words for the dead letters.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let other_version = |version| format!("it has version {version}, and this program knows {VERSION}");
        let message: Self = serde_json::from_slice(bytes).map_err(|error| {
            // Of another version there is no saying what else is in it.
            match serde_json::from_slice(bytes) {
                Ok(Versioned { version }) if version != VERSION => other_version(version),
                _ => format!("it is no message: {error}"),
            }
        })?;
        if message.version != VERSION {
            return Err(other_version(message.version));
        }
        match message.reservations.len() {
            1..=RESERVATIONS_MAX => Ok(message),
            other => Err(format!("it has {other} reservations, and a message has 1 to {RESERVATIONS_MAX}")),
        }
    }

    pub(crate) fn written(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a message is plain data")
    }

    pub(crate) fn reservations(&self) -> impl Iterator<Item = Reservation> + '_ {
        self.reservations.iter().map(|reserved| Reservation {
            sale_id: self.sale_id.clone(),
            epoch: self.epoch,
            place: reserved.place,
            unit: reserved.unit,
            user_id: reserved.user_id.clone(),
            order_id: reserved.order_id,
            reserved_at: self.reserved_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn message() -> Message {
        let entry = Entry {
            id: "1771815600000-0".to_owned(),
            generation: 2,
            epoch: Epoch(1),
            at: Timestamp::from_millis(1_771_815_600_000),
            first: 5,
            rows: vec![
                (Unit(5), OrderId(Uuid::nil()), "ada".to_owned()),
                (Unit(6), OrderId(Uuid::nil()), "Zoë 🛒".to_owned()),
            ],
        };
        Message::of(&"sale_1".parse().unwrap(), entry).unwrap()
    }

    #[test]
    fn a_message_is_what_the_documentation_says() {
        let written = String::from_utf8(message().written()).unwrap();
        let said = concat!(
            r#"{"version":1,"saleId":"sale_1","epoch":1,"generation":2,"entry":"1771815600000-0","#,
            r#""reservedAt":"2026-02-23T03:00:00.000Z","reservations":["#,
            r#"{"orderId":"00000000-0000-0000-0000-000000000000","userId":"ada","unit":5,"place":8589934597},"#,
            r#"{"orderId":"00000000-0000-0000-0000-000000000000","userId":"Zoë 🛒","unit":6,"place":8589934598}]}"#
        );
        assert_eq!(written, said);
        assert_eq!(Message::read(written.as_bytes()), Ok(message()));
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_reason() {
        let newer = String::from_utf8(message().written()).unwrap().replace("\"version\":1", "\"version\":2");
        let of = |count: usize| {
            let reservations = message().reservations.into_iter().cycle().take(count).collect();
            String::from_utf8(Message { reservations, ..message() }.written()).unwrap()
        };
        let (empty, endless) = (of(0), of(257));
        for (bytes, reason) in [
            (&b"not json"[..], "no message"),
            (br#"{"version":1}"#, "saleId"),
            (newer.as_bytes(), "version 2"),
            (empty.as_bytes(), "0 reservations"),
            (endless.as_bytes(), "257 reservations"),
            (br#"{"version":2,"sale":"sale_1"}"#, "version 2"),
        ] {
            let refused = Message::read(bytes).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
    }
}
