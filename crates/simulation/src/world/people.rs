//! The shop's people: they make sales, change them, reset them, and take orders back.

use std::task::{Context, Poll};

use flashsale_core::{
    Result as Answered,
    clock::Timestamp,
    ids::{Place, SaleId},
    order::{Ending, Reservation},
    ports::Clock,
    product::Product,
    sale::SaleChange,
    service::SaleRequest,
};

use super::{Admin, Boxed, Change, MINUTE, SALES, World};
use crate::{
    faults::Fault,
    parts::Flag,
    witness::{Act, Checked, broken},
};

impl World {
    pub(super) async fn open_shop(&self) -> Checked {
        for sale in SALES {
            self.begin_change(sale.parse().expect("a valid sale id"), 0);
            let mut rounds = 0;
            while self.admin.borrow().does.is_some() {
                let outcome = self.go_on_changing(true);
                self.take_group(true);
                self.write();
                outcome?;
                rounds += 1;
                if rounds > 20 {
                    return broken!("everything comes to rest", "{sale} is not made");
                }
            }
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    pub(super) fn administrate(&self) {
        let Ok(admin) = self.admin.try_borrow() else { return };
        let idle = admin.does.is_none();
        drop(admin);
        if idle {
            let (sale, kind) = self.throw(|dice| (*dice.pick(&SALES), dice.below(20)));
            self.begin_change(sale.parse().expect("a valid sale id"), kind);
        }
        if self.admin.borrow().flag.is_raised() {
            let outcome = self.go_on_changing(true);
            self.break_if(outcome);
        }
    }

    fn begin_change(&self, sale: SaleId, kind: u64) {
        let shop = self.shop();
        let (service, id) = (shop.service.clone(), sale.clone());
        let exists = self.place(&sale).is_some();
        let (what, act, future): (_, _, Boxed<Answered<()>>) = match kind {
            _ if !exists => {
                let request = self.request(&sale);
                let SaleRequest { total_stock: total, starts_at, ends_at, .. } = request;
                let future = Box::pin(async move { service.create(request).await.map(drop) });
                ("make the sale", Act::Created { total, starts_at, ends_at }, future)
            }
            0..=2 => {
                ("reset", Act::Reset, Box::pin(async move { service.reset(id.as_str()).await.map(drop) }))
            }
            3 => ("delete", Act::Deleted, Box::pin(async move { service.delete(id.as_str()).await })),
            4..=9 => match self.to_release(&sale) {
                Some((held, ending)) => {
                    let (inventory, order) = (shop.inventory.clone(), held.order_id);
                    let future = Box::pin(async move { inventory.release(&held, ending).await.map(drop) });
                    ("release an order", Act::Released(order), future)
                }
                None => return,
            },
            _ => {
                let change = self.change(kind);
                let future = Box::pin(async move { service.change(id.as_str(), change).await.map(drop) });
                ("change the sale", Act::Changed, future)
            }
        };
        let mut admin = self.admin.borrow_mut();
        admin.flag = Flag::raised();
        admin.does = Some(Change { sale, what, act, place: None, future });
    }

    fn request(&self, sale: &SaleId) -> SaleRequest {
        let (stock, from, to) =
            self.throw(|dice| (dice.within(1, 9), dice.within(-90, 2), dice.within(5, 100)));
        let minutes = |count: i64| Timestamp::from_millis(self.clock.now().as_millis() + count * MINUTE);
        SaleRequest {
            sale_id: Some(sale.to_string()),
            name: format!("The {sale}"),
            total_stock: u32::try_from(stock).expect("it is small"),
            starts_at: minutes(from),
            ends_at: minutes(to),
            product: Product::default(),
        }
    }

    fn change(&self, kind: u64) -> SaleChange {
        let mut change = SaleChange::default();
        match kind {
            10..=12 => change.paused = Some(true),
            13..=16 => change.paused = Some(false),
            _ => {
                let stock = self.throw(|dice| dice.within(1, 12));
                change.total_stock = Some(u32::try_from(stock).expect("it is small"));
            }
        }
        change
    }

    fn to_release(&self, sale: &SaleId) -> Option<(Reservation, Ending)> {
        let known = self.known.borrow();
        let of_sale: Vec<_> = known.iter().filter(|held| held.sale_id == *sale).collect();
        if of_sale.is_empty() {
            return None;
        }
        self.throw(|dice| {
            let ending = if dice.chance(50) { Ending::Cancelled } else { Ending::Expired };
            Some(((*dice.pick(&of_sale)).clone(), ending))
        })
    }

    pub(super) fn go_on_changing(&self, heard: bool) -> Checked {
        let mut admin = self.admin.borrow_mut();
        let Admin { flag, does } = &mut *admin;
        let Some(change) = does else { return Ok(()) };
        flag.lower();
        let before = self.place(&change.sale);
        let polled = change.future.as_mut().poll(&mut Context::from_waker(&flag.waker()));
        // A sale that was just deleted has no place in memory any more; it took one all the same.
        let after = self.place(&change.sale).or_else(|| before.map(Place::next));
        self.placed(change, before, after)?;
        let Poll::Ready(answer) = polled else { return Ok(()) };
        let change = does.take().expect("it is being answered");
        let (sale, what, place) = (&change.sale, change.what, change.place);
        match answer {
            _ if !heard => self.count(Fault::LostReply),
            Ok(()) => {
                let at = place.map_or(String::new(), |place| format!(", at place {place}"));
                self.tell(|| format!("the shop is told that this is done: {what} {sale}{at}"));
                self.witness.borrow_mut().told_done(sale, place, what);
            }
            Err(error) => self.tell(|| format!("the shop tried to {what} {sale}: {error}")),
        }
        Ok(())
    }

    /// Notes the place that a change took, if it took one in this poll.
    fn placed(&self, change: &mut Change, before: Option<Place>, after: Option<Place>) -> Checked {
        if change.place.is_some() {
            return Ok(());
        }
        let Some(after) = after else { return Ok(()) };
        let mut witness = self.witness.borrow_mut();
        // A sale that comes again goes on where its sequence was.
        let first = before.map_or(after.0, |before| before.0 + 1);
        let mine: Vec<_> =
            (first..=after.0).map(Place).filter(|place| !witness.is_taken(&change.sale, *place)).collect();
        match mine[..] {
            [] => Ok(()),
            [place] => {
                change.place = Some(place);
                let (sale, what, total) = (change.sale.clone(), change.what, &change.act);
                let detail = match total {
                    Act::Created { total, .. } => format!(" of {total} units"),
                    _ => String::new(),
                };
                self.tell(|| format!("the shop: {what} {sale}{detail}, decided at place {place}"));
                witness.took(&sale, place, change.act.clone())
            }
            _ => broken!("P5 one sequence", "a change of {} took {} places", change.sale, mine.len()),
        }
    }
}
