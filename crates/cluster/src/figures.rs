//! What `verify` and the console count of a sale: row by row, in one snapshot, and along its events.

use std::{iter::Peekable, vec};

use flashsale_core::{
    Error, Result,
    ids::{Epoch, SaleId},
    ports::Figures,
};
use futures_util::TryStreamExt;
use sqlx::{PgConnection, PgPool, Row, postgres::PgRow};

use crate::store::{database, kind};

const ORDER_FIGURES: &str = "SELECT \
     count(*) FILTER (WHERE epoch = $2 AND status = 'CONFIRMED'), \
     count(*) FILTER (WHERE epoch = $2 AND released_at IS NOT NULL), \
     count(*) FILTER (WHERE epoch <> $2), \
     count(*) FILTER (WHERE epoch = $2 AND released_at IS NULL AND unit NOT BETWEEN 1 AND $3), \
     count(DISTINCT unit) FILTER (WHERE epoch = $2 AND released_at IS NULL AND unit BETWEEN 1 AND $3) \
     FROM orders WHERE sale_id = $1";
const USERS_WITH_TWO: &str = "SELECT count(*) FROM (SELECT FROM orders \
     WHERE sale_id = $1 AND epoch = $2 AND released_at IS NULL GROUP BY user_id HAVING count(*) > 1) AS two";
const UNITS_SOLD_TWICE: &str = "SELECT count(*) FROM (SELECT FROM orders \
     WHERE sale_id = $1 AND epoch = $2 AND released_at IS NULL GROUP BY unit HAVING count(*) > 1) AS two";
const TRAIL_FIGURES: &str = "SELECT \
     count(*), \
     count(*) FILTER (WHERE kind BETWEEN 2 AND 4), \
     count(*) FILTER (WHERE kind = 1 AND epoch = $2), \
     count(*) FILTER (WHERE kind = 2 AND epoch = $2), \
     count(*) FILTER (WHERE kind = 3 AND epoch = $2), \
     count(*) FILTER (WHERE kind = 4 AND epoch = $2), \
     count(*) FILTER (WHERE kind = 1 AND epoch = $2 AND confirmed_at IS NOT NULL), \
     count(*) FILTER (WHERE kind = 8 AND epoch = $2), \
     count(*) FILTER (WHERE kind NOT BETWEEN 6 AND 13 AND epoch = $2) \
     FROM trail WHERE sale_no = $1";
const RUNS: &str = "SELECT coalesce(sum(last), 0)::bigint FROM runs WHERE sale_no = $1";
const WITHOUT_RECORD: &str = "SELECT count(*) FROM \
     (SELECT id, place, unit, user_id FROM orders WHERE sale_id = $1) AS had FULL JOIN \
     (SELECT order_id, place, unit, user_id FROM trail WHERE sale_no = $3 AND kind = 1 AND epoch = $2) AS told \
     ON told.order_id = had.id AND told.place = had.place AND told.unit = had.unit AND told.user_id = had.user_id \
     WHERE had.id IS NULL OR told.order_id IS NULL";
const ENDINGS_WITHOUT_RECORD: &str = "SELECT count(*) FROM \
     (SELECT id, status FROM orders WHERE sale_id = $1 AND epoch = $2 AND released_at IS NOT NULL) AS had FULL JOIN \
     (SELECT order_id, event_type FROM trail JOIN trail_kinds USING (kind) \
      WHERE sale_no = $3 AND kind IN (6, 7) AND epoch = $2) AS told \
     ON told.order_id = had.id AND told.event_type = had.status WHERE had.id IS NULL OR told.order_id IS NULL";
const CONFIRMATIONS_WITHOUT_RECORD: &str = "SELECT count(*) FROM \
     (SELECT id FROM orders WHERE sale_id = $1 AND epoch = $2 AND confirmed_at IS NOT NULL) AS had FULL JOIN \
     (SELECT order_id FROM trail WHERE sale_no = $3 AND kind = 1 AND epoch = $2 AND confirmed_at IS NOT NULL) AS told \
     ON told.order_id = had.id WHERE had.id IS NULL OR told.order_id IS NULL";
const EVENTS: &str = "SELECT place, kind, epoch = $2 AS counted, (detail ->> 'totalStock')::bigint AS total FROM trail \
     WHERE sale_no = $1 AND kind IN (1, 6, 7, 9, 10, 11, 12, 13) ORDER BY place";
const SOLD_OUTS: &str = "SELECT place, count(*) FILTER (WHERE epoch = $2) AS counted FROM trail \
     WHERE sale_no = $1 AND kind = 2 GROUP BY place ORDER BY place";

/// Counts a sale row by row, in one snapshot.
pub(crate) async fn count(pool: &PgPool, sale: &SaleId) -> Result<Figures> {
    let mut snapshot = pool.begin().await.map_err(database)?;
    let read_only = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
    sqlx::query(read_only).execute(&mut *snapshot).await.map_err(database)?;
    let found = sqlx::query("SELECT no, epoch, total_stock FROM sales WHERE id = $1").bind(sale.as_str());
    let found = found.fetch_optional(&mut *snapshot).await.map_err(database)?;
    let found = found.ok_or_else(|| Error::UnknownSale(sale.clone()))?;
    let (no, epoch, total): (i32, i32, i32) = (found.get("no"), found.get("epoch"), found.get("total_stock"));

    let orders = sqlx::query(ORDER_FIGURES).bind(sale.as_str()).bind(epoch).bind(total);
    let orders = numbers(&orders.fetch_one(&mut *snapshot).await.map_err(database)?);
    let trail = sqlx::query(TRAIL_FIGURES).bind(no).bind(epoch);
    let trail = numbers(&trail.fetch_one(&mut *snapshot).await.map_err(database)?);
    let numbered = sqlx::query(RUNS).bind(no);
    let numbered = numbers(&numbered.fetch_one(&mut *snapshot).await.map_err(database)?)[0];
    let mut single = async |sql| -> Result<u64> {
        let query = sqlx::query(sql).bind(sale.as_str()).bind(epoch);
        Ok(numbers(&query.fetch_one(&mut *snapshot).await.map_err(database)?)[0])
    };
    let (users_with_two, units_sold_twice) = (single(USERS_WITH_TWO).await?, single(UNITS_SOLD_TWICE).await?);
    let mut without_record = async |sql| -> Result<u64> {
        let query = sqlx::query(sql).bind(sale.as_str()).bind(epoch).bind(no);
        Ok(numbers(&query.fetch_one(&mut *snapshot).await.map_err(database)?)[0])
    };
    let orders_without_record = without_record(WITHOUT_RECORD).await?;
    let endings_without_record = without_record(ENDINGS_WITHOUT_RECORD).await?;
    let confirmations_without_record = without_record(CONFIRMATIONS_WITHOUT_RECORD).await?;
    let walk = walk(&mut snapshot, no, epoch).await?;
    snapshot.commit().await.map_err(database)?;

    let total = u64::from(total.unsigned_abs());
    Ok(Figures {
        epoch: Epoch(epoch.unsigned_abs()),
        total_stock: total,
        available: total.saturating_sub(orders[4]),
        reserved: 0,
        confirmed: orders[0],
        released: orders[1],
        orders_of_other_epochs: orders[2],
        units_outside_stock: orders[3],
        users_with_two,
        units_sold_twice,
        attempted: trail[8],
        attempts_reserved: trail[2],
        attempts_sold_out: trail[3],
        attempts_duplicate: trail[4],
        attempts_not_active: trail[5],
        audited_confirmed: trail[6],
        orders_without_record,
        endings_without_record,
        confirmations_without_record,
        stock_on_record: u64::try_from(walk.total).unwrap_or_default(),
        records: trail[0],
        records_missing: numbered.saturating_sub(trail[1]),
        records_unexpected: trail[1].saturating_sub(numbered),
        // What is put aside keeps its place.
        places_missing: walk.missing.saturating_sub(trail[7]),
        orders_refused: trail[7],
        sold_out_too_early: walk.early,
    })
}

fn numbers(row: &PgRow) -> Vec<u64> {
    (0..row.len()).map(|column| u64::try_from(row.get::<i64, _>(column)).unwrap_or_default()).collect()
}

/// Along a sale's events: how many were told SOLD_OUT although, after the event that it rests on, a unit was free.
///
/// Those whose events are not all on record yet (reservations on their way) are not judged, nor those that rest on a
/// place that was lost with its generation. A recovery begins with what is on record, and with it the judging.
async fn walk(snapshot: &mut PgConnection, no: i32, epoch: i32) -> Result<Walk> {
    let sold_outs = sqlx::query(SOLD_OUTS).bind(no).bind(epoch).fetch_all(&mut *snapshot).await;
    let sold_outs = sold_outs.map_err(database)?.into_iter().map(|row| {
        let count = u64::try_from(row.get::<i64, _>("counted")).unwrap_or_default();
        (row.get::<i64, _>("place").cast_unsigned(), count)
    });
    let mut walk = Walk::new(sold_outs.collect());
    // One after the other: there may be tens of millions.
    let mut events = sqlx::query(EVENTS).bind(no).bind(epoch).fetch(snapshot);
    while let Some(row) = events.try_next().await.map_err(database)? {
        walk.pass(&Happened {
            place: row.get::<i64, _>("place").cast_unsigned(),
            kind: row.get("kind"),
            counted: row.get("counted"),
            total: row.get("total"),
        });
    }
    Ok(walk)
}

/// An event that changed the stock.
struct Happened {
    place: u64,
    kind: i16,
    /// Whether it is of the epoch that is counted.
    counted: bool,
    total: Option<i64>,
}

/// Along a sale's events, in their order.
struct Walk {
    /// By the place that they rest on, ascending: how many were told SOLD_OUT.
    sold_outs: Peekable<vec::IntoIter<(u64, u64)>>,
    live: i64,
    total: i64,
    last: Option<u64>,
    /// Whether all events since the generation's first are on record.
    complete: bool,
    early: u64,
    /// Places of the counted epoch that are on no record.
    missing: u64,
}

impl Walk {
    fn new(sold_outs: Vec<(u64, u64)>) -> Self {
        let sold_outs = sold_outs.into_iter().peekable();
        Self { sold_outs, live: 0, total: 0, last: None, complete: true, early: 0, missing: 0 }
    }

    fn pass(&mut self, event: &Happened) {
        // What rests on a place before this event, and on none that is on record, is not judged.
        while self.sold_outs.next_if(|(place, _)| *place < event.place).is_some() {}
        let begins = event.place.trailing_zeros() >= 32;
        if event.counted && !begins {
            let last = self.last.unwrap_or_default().max(event.place & !u64::from(u32::MAX));
            self.missing += event.place.saturating_sub(last + 1);
        }
        self.complete = begins || self.complete && self.last.is_none_or(|last| event.place == last + 1);
        self.last = Some(event.place);
        match event.kind {
            kind::RESERVED => self.live += 1,
            kind::EXPIRED | kind::CANCELLED => self.live -= 1,
            kind::ADMIN_RESET | kind::ADMIN_DELETED => self.live = 0,
            _ => {}
        }
        self.total = event.total.unwrap_or(self.total);
        if let Some((_, count)) = self.sold_outs.next_if(|(place, _)| *place == event.place)
            && self.complete
            && self.live < self.total
        {
            self.early += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(place: u64, kind: i16, total: Option<i64>) -> Happened {
        Happened { place, kind, counted: true, total }
    }

    fn walk(
        events: impl IntoIterator<Item = Happened>,
        sold_outs: impl IntoIterator<Item = (u64, u64)>,
    ) -> u64 {
        let mut walk = Walk::new(sold_outs.into_iter().collect());
        events.into_iter().for_each(|event| walk.pass(&event));
        walk.early
    }

    const FIRST: u64 = 1 << 32;

    fn history() -> Vec<Happened> {
        vec![
            event(FIRST, kind::ADMIN_CREATED, Some(2)),
            event(FIRST + 1, kind::RESERVED, None),
            event(FIRST + 2, kind::RESERVED, None),
            event(FIRST + 3, kind::CANCELLED, None),
            event(2 * FIRST, kind::RECOVERED, None),
        ]
    }

    #[test]
    fn after_a_place_that_is_lost_judging_begins_again_with_the_recovery() {
        let mut lossy = history();
        lossy.remove(1);
        assert_eq!(walk(lossy, [(2 * FIRST, 3)]), 3);
    }

    #[test]
    fn a_sold_out_is_judged_at_the_place_that_it_rests_on() {
        let judged = |place| walk(history(), [(place, 3)]);
        assert_eq!(judged(FIRST), 3);
        assert_eq!(judged(FIRST + 1), 3);
        assert_eq!(judged(FIRST + 2), 0);
        assert_eq!(judged(FIRST + 3), 3);
        assert_eq!(judged(2 * FIRST), 3, "the recovered sale has a unit free");
    }

    #[test]
    fn what_rests_on_a_place_that_nobody_recorded_is_not_judged() {
        let lost = walk(history(), [(FIRST + 9, 1)]);
        assert_eq!(lost, 0, "lost with its generation");
        let mut under_way = history();
        under_way.remove(1);
        let gap = walk(under_way, [(FIRST + 2, 1)]);
        assert_eq!(gap, 0, "a reservation before it is on its way");
    }
}
