//! What `verify` and the console count of a sale: row by row, and along its sequence.

use flashsale_core::{
    ids::{Epoch, SaleId},
    ports::Figures,
    sale::TOTAL_STOCK_MAX,
};
use rusqlite::{Connection, OptionalExtension};

use crate::ledger::record::{keys_of, kind};

const SALE: &str = "SELECT no, epoch, total_stock, last_place FROM sales WHERE id = ?1";
const LIVE_FIGURES: &str = "SELECT \
     count(*) FILTER (WHERE epoch = ?3 AND confirmed = 0), \
     count(*) FILTER (WHERE epoch = ?3 AND confirmed = 1), \
     count(*) FILTER (WHERE epoch <> ?3), \
     count(*) FILTER (WHERE epoch = ?3 AND key & 0xFFFFFFFFFF NOT BETWEEN 1 AND ?4) \
     FROM live_orders WHERE key >= ?1 AND key < ?2";
const ENDED_FIGURES: &str = "SELECT count(*) FILTER (WHERE epoch = ?3), count(*) FILTER (WHERE epoch <> ?3) \
     FROM ended_orders WHERE key >= ?1 AND key < ?2";
const USERS_WITH_TWO: &str = "SELECT count(*) FROM (SELECT 1 FROM live_orders \
     WHERE key >= ?1 AND key < ?2 AND epoch = ?3 GROUP BY user_id HAVING count(*) > 1)";
/// Orders whose reservation is on record where they say, for the same unit and user.
const RECORDED_ORDERS: &str = "SELECT count(*) FROM \
     (SELECT place, id, epoch, user_id, key & 0xFFFFFFFFFF AS unit FROM live_orders WHERE key >= ?1 AND key < ?2 \
       UNION ALL SELECT place, id, epoch, user_id, unit FROM ended_orders WHERE key >= ?1 AND key < ?2) AS kept \
     CROSS JOIN trail ON trail.key = ?1 + kept.place \
     WHERE kind = ?4 AND trail.epoch = ?3 AND kept.epoch = ?3 AND trail.unit = kept.unit \
       AND trail.user_id = kept.user_id AND unhex(order_id, '-') = kept.id";
/// Orders whose ending is on record where it happened.
const RECORDED_ENDINGS: &str = "SELECT count(*) FROM ended_orders AS ended CROSS JOIN trail USING (key) \
     JOIN trail_kinds USING (kind) \
     WHERE key >= ?1 AND key < ?2 AND trail.epoch = ?3 AND ended.epoch = ?3 AND event_type = status \
       AND trail.unit = ended.unit AND trail.user_id = ended.user_id AND unhex(order_id, '-') = id";
/// Records of the confirmation of an order that is live, and how many different orders they are of.
const RECORDED_CONFIRMATIONS: &str = "SELECT count(*), count(DISTINCT unit) FROM trail \
     CROSS JOIN live_orders AS live ON live.key = ?1 + unit \
     WHERE trail.key >= ?1 AND trail.key < ?2 AND kind = ?4 AND trail.epoch = ?3 AND live.epoch = ?3 \
       AND confirmed = 1 AND trail.user_id = live.user_id AND unhex(order_id, '-') = live.id";
const TRAIL: &str = "SELECT key, kind, epoch, detail ->> '$.totalStock', unit FROM trail \
     WHERE key > ?1 AND key < ?2 ORDER BY key";

/// Counts a sale row by row.
pub(crate) fn count(connection: &Connection, sale: &SaleId) -> rusqlite::Result<Option<Figures>> {
    let found = connection
        .query_row(SALE, [sale.as_str()], |row| {
            Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?, row.get::<_, u64>(2)?, row.get::<_, u64>(3)?))
        })
        .optional()?;
    let Some((no, epoch, total_stock, last_place)) = found else { return Ok(None) };
    let (first, end) = keys_of(no);
    let walk = Walk::along(connection, (first, end), last_place, epoch)?;
    let unexpected = walk.unexpected;
    let [reserved, confirmed, of_other_epochs, units_outside_stock] =
        connection.query_row(LIVE_FIGURES, (first, end, epoch, total_stock), |row| {
            Ok([row.get::<_, u64>(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
        })?;
    let [released, ended_of_other_epochs] =
        connection
            .query_row(ENDED_FIGURES, (first, end, epoch), |row| Ok([row.get::<_, u64>(0)?, row.get(1)?]))?;
    let users_with_two = connection.query_row(USERS_WITH_TWO, (first, end, epoch), |row| row.get(0))?;
    let recorded: u64 =
        connection.query_row(RECORDED_ORDERS, (first, end, epoch, kind::RESERVED), |row| row.get(0))?;
    let recorded_endings: u64 =
        connection.query_row(RECORDED_ENDINGS, (first, end, epoch), |row| row.get(0))?;
    let (records_of_live, recorded_confirmations) =
        connection.query_row(RECORDED_CONFIRMATIONS, (first, end, epoch, kind::CONFIRMED), |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?))
        })?;
    // Of orders that have ended since, some were confirmed before.
    let records_of_ended = walk.confirmed.saturating_sub(records_of_live);
    Ok(Some(Figures {
        epoch: Epoch(epoch),
        total_stock,
        reserved,
        confirmed,
        released,
        // By the trail, so that trail and orders must agree for it to add up.
        available: u64::try_from(walk.total_stock - walk.live).unwrap_or_default(),
        users_with_two,
        units_sold_twice: walk.sold_twice,
        units_outside_stock,
        orders_of_other_epochs: of_other_epochs + ended_of_other_epochs,
        attempted: walk.attempted,
        attempts_reserved: walk.outcomes[0],
        attempts_sold_out: walk.outcomes[1],
        attempts_duplicate: walk.outcomes[2],
        attempts_not_active: walk.outcomes[3],
        audited_confirmed: walk.confirmed,
        orders_without_record: unmatched(reserved + confirmed + released, recorded)
            + unmatched(walk.outcomes[0], recorded),
        endings_without_record: unmatched(released, recorded_endings)
            + unmatched(walk.endings, recorded_endings),
        confirmations_without_record: unmatched(confirmed, recorded_confirmations)
            + unmatched(records_of_live, recorded_confirmations)
            + records_of_ended.saturating_sub(released),
        stock_on_record: u64::try_from(walk.total_stock).unwrap_or_default(),
        records: walk.records,
        // Places begin with 1 and are unique, so as many as the last one says must be there.
        records_missing: last_place.saturating_sub(walk.records - unexpected),
        places_missing: 0,
        records_unexpected: unexpected,
        orders_refused: walk.refused,
        sold_out_too_early: walk.sold_out_too_early,
    }))
}

/// How many of `all` have no counterpart, where so many `have` one.
fn unmatched(all: u64, have: u64) -> u64 {
    all.saturating_sub(have)
}

/// A walk along a sale's sequence, keeping count of the units that were free at each place.
#[derive(Default)]
struct Walk {
    records: u64,
    /// Of them, those beyond the last place that the sale gave.
    unexpected: u64,
    /// Of the counted epoch: reserved, sold out, duplicate, not active.
    outcomes: [u64; 4],
    /// Of the counted epoch: all that is not known to be something else.
    attempted: u64,
    confirmed: u64,
    endings: u64,
    refused: u64,
    sold_out_too_early: u64,
    sold_twice: u64,
    total_stock: i64,
    live: i64,
    held: Units,
}

impl Walk {
    fn along(
        connection: &Connection,
        keys: (i64, i64),
        last_place: u64,
        epoch: u32,
    ) -> rusqlite::Result<Self> {
        let mut walk = Self::default();
        let mut statement = connection.prepare_cached(TRAIL)?;
        let mut rows = statement.query(keys)?;
        while let Some(row) = rows.next()? {
            let place = (row.get::<_, i64>(0)? - keys.0).cast_unsigned();
            walk.records += 1;
            walk.unexpected += u64::from(place > last_place);
            walk.step(row.get(1)?, row.get::<_, u32>(2)? == epoch, row.get(3)?, row.get(4)?);
        }
        Ok(walk)
    }

    fn step(&mut self, kind: u8, counted: bool, total_stock: Option<i64>, unit: Option<u32>) {
        match kind {
            kind::RESERVED => {
                self.live += 1;
                self.sold_twice += u64::from(!self.held.take(unit) && counted);
            }
            kind::EXPIRED | kind::CANCELLED => {
                self.live -= 1;
                self.held.give_back(unit);
            }
            kind::ADMIN_RESET | kind::ADMIN_DELETED => {
                self.live = 0;
                self.held = Units::default();
            }
            kind::REJECTED_SOLD_OUT if self.live < self.total_stock && counted => {
                self.sold_out_too_early += 1;
            }
            _ => {}
        }
        self.total_stock = total_stock.unwrap_or(self.total_stock);
        if !counted {
            return;
        }
        match kind {
            kind::RESERVED..=kind::REJECTED_NOT_ACTIVE => {
                self.outcomes[usize::from(kind - kind::RESERVED)] += 1;
                self.attempted += 1;
            }
            kind::CONFIRMED => self.confirmed += 1,
            kind::EXPIRED | kind::CANCELLED => self.endings += 1,
            kind::FAILED_DB => self.refused += 1,
            kind::ADMIN_CREATED..=kind::ADMIN_DELETED => {}
            _ => self.attempted += 1,
        }
    }
}

/// Which units are held: a bit each.
#[derive(Default)]
struct Units(Vec<u64>);

impl Units {
    /// Whether the unit was free. One that no stock has is counted elsewhere.
    fn take(&mut self, unit: Option<u32>) -> bool {
        let Some((word, bit)) = Self::place(unit) else { return true };
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let free = self.0[word] & bit == 0;
        self.0[word] |= bit;
        free
    }

    fn give_back(&mut self, unit: Option<u32>) {
        if let Some((word, bit)) = Self::place(unit)
            && let Some(word) = self.0.get_mut(word)
        {
            *word &= !bit;
        }
    }

    fn place(unit: Option<u32>) -> Option<(usize, u64)> {
        let unit = unit.filter(|unit| *unit <= TOTAL_STOCK_MAX)?;
        Some((unit as usize / 64, 1 << (unit % 64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashsale_core::ids::Place;

    use crate::ledger::record::{PLACE_BITS, trail_key};

    #[test]
    fn a_sold_out_while_a_unit_is_free_is_noticed() {
        let mut walk = Walk { total_stock: 1, ..Walk::default() };
        walk.step(kind::REJECTED_SOLD_OUT, true, None, None);
        walk.step(kind::RESERVED, true, None, Some(1));
        walk.step(kind::REJECTED_SOLD_OUT, true, None, None);
        walk.step(kind::CANCELLED, true, None, Some(1));
        walk.step(kind::REJECTED_SOLD_OUT, true, None, None);
        walk.step(kind::FAILED_DB, true, None, None);
        assert_eq!((walk.sold_out_too_early, walk.outcomes, walk.refused), (2, [1, 3, 0, 0], 1));
    }

    #[test]
    fn trail_keys_sort_by_sale_then_place() {
        assert!(trail_key(1, Place((1 << PLACE_BITS) - 1)) < trail_key(2, Place(1)));
    }
}
