//! What is checked at each start: everything that anybody was told, against memory and what is on record.

use std::collections::BTreeMap;

use flashsale_core::{
    Error,
    ids::{Place, SaleId},
    order::{OrderStatus, Purchase},
};
use rusqlite::Connection;

use super::{LEDGER, PAGE, Shop, World, at_once};
use crate::witness::{Checked, broken};

impl World {
    /// Everything that was told, against what is on record now.
    pub(super) fn audit(&self, complete: Option<&BTreeMap<SaleId, Place>>) -> Checked {
        self.sound_file()?;
        let sales: Vec<_> = self.witness.borrow().sales();
        self.witness.borrow_mut().tally.starts += 1;
        for sale in sales {
            let shop = self.shop();
            let key = self.witness.borrow().reckoned(&sale).map_or(0, |reckoning| reckoning.key);
            let events = match at_once(shop.store.audit(&sale, key, PAGE))? {
                Ok(page) => page.rows,
                Err(Error::UnknownSale(_)) => Vec::new(),
                Err(error) => return broken!("the record can be read", "{sale}: {error}"),
            };
            let known = self.witness.borrow().reckoned(&sale).map_or(0, |reckoning| reckoning.place);
            let read = events.last().map(|event| Place(((event.id / 2) & 0xFF_FFFF_FFFF).cast_unsigned()));
            let last = self.place(&sale).or(read).unwrap_or(Place(known));
            let complete = complete.and_then(|complete| complete.get(&sale)).copied();
            self.witness.borrow_mut().audit(&sale, &events, last, complete)?;
            self.compare(&shop, &sale)?;
            // Counting row by row costs the most.
            if complete.is_some() || self.throw(|dice| dice.chance(20)) {
                self.count_rows(&shop, &sale)?;
            }
        }
        Ok(())
    }

    fn sound_file(&self) -> Checked {
        let check = || {
            let connection = Connection::open(self.vfs.uri(LEDGER))?;
            connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))
        };
        match check() {
            Ok(verdict) if verdict == "ok" => Ok(()),
            other => broken!("the file is sound", "{other:?}"),
        }
    }

    /// Memory, rows and the reckoned trail say the same.
    fn compare(&self, shop: &Shop, sale: &SaleId) -> Checked {
        let witness = self.witness.borrow();
        let Some(reckoning) = witness.reckoned(sale) else { return Ok(()) };
        let status = match at_once(shop.inventory.status(sale))? {
            Ok(status) => status,
            Err(Error::UnknownSale(_)) if !reckoning.exists => return Ok(()),
            other => return broken!("memory is what is on record", "{sale}: {other:?}"),
        };
        let (live, confirmed) = (reckoning.live.len(), reckoning.confirmed());
        let memory = (
            status.sale.epoch.0,
            status.sale.total_stock,
            status.sale.paused,
            status.sold(),
            status.confirmed,
        );
        let record = (reckoning.epoch, reckoning.total, reckoning.paused, live as u32, confirmed as u32);
        if memory != record || !reckoning.exists {
            return broken!("memory is what is on record", "{sale}: {memory:?}, and on record {record:?}");
        }
        for (user, held) in &reckoning.live {
            let status = if held.confirmed { OrderStatus::Confirmed } else { OrderStatus::Reserved };
            let expected = Purchase { order_id: held.order, unit: held.unit, status };
            let found = at_once(shop.inventory.purchase(sale, user))?;
            if found != Ok(Some(expected)) {
                return broken!(
                    "memory is what is on record",
                    "{user} holds {expected:?} of {sale}: {found:?}"
                );
            }
        }
        Ok(())
    }

    /// The rows, counted as `verify` counts them.
    fn count_rows(&self, shop: &Shop, sale: &SaleId) -> Checked {
        let figures = match at_once(shop.store.figures(sale))? {
            Ok(figures) => figures,
            Err(Error::UnknownSale(_)) => return Ok(()),
            Err(error) => return broken!("the record can be read", "{sale}: {error}"),
        };
        let witness = self.witness.borrow();
        let live = witness.reckoned(sale).map_or(0, |reckoning| reckoning.live.len());
        let wrong = [
            figures.users_with_two,
            figures.units_sold_twice,
            figures.units_outside_stock,
            figures.orders_of_other_epochs,
            figures.orders_without_record,
            figures.endings_without_record,
            figures.confirmations_without_record,
            figures.places_missing,
            figures.records_missing,
            figures.records_unexpected,
            figures.sold_out_too_early,
        ];
        let counted = figures.reserved + figures.confirmed;
        let adds_up = figures.available + counted == figures.total_stock && counted == live as u64;
        let adds_up = adds_up && figures.stock_on_record == figures.total_stock;
        if wrong.iter().any(|count| *count > 0) || !adds_up {
            return broken!("the figures add up", "{sale}: {figures:?}");
        }
        Ok(())
    }
}
