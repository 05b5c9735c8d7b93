//! The callers: they ask, wait, hang up, and remember what they were told.

use std::task::{Context, Poll};

use flashsale_core::{
    Error,
    ids::{Place, SaleId, UserId},
    inventory::Decision,
    order::Purchase,
    ports::Clock,
};

use super::{Ask, Boxed, Caller, Reply, SALES, World};
use crate::{
    faults::Fault,
    parts::Flag,
    witness::{Act, Checked, broken},
};

impl World {
    pub(super) fn caller(&self, index: usize) {
        let Ok(mut caller) = self.callers[index].try_borrow_mut() else { return };
        if caller.asks.is_none() {
            self.ask(&mut caller);
        }
        if caller.flag.is_raised() {
            let outcome = self.listen(&mut caller, true);
            self.break_if(outcome);
        }
    }

    fn ask(&self, caller: &mut Caller) {
        let (sale, buys) = self.throw(|dice| (*dice.pick(&SALES), dice.chance(80)));
        let (service, user) = (self.shop().service.clone(), caller.name.clone());
        let sale: SaleId = sale.parse().expect("a valid sale id");
        let since = self.place(&sale).unwrap_or_default();
        let asked = sale.clone();
        let future: Boxed<Reply> = if buys {
            Box::pin(async move { Reply::Attempt(service.attempt(asked.as_str(), user.as_str()).await) })
        } else {
            Box::pin(async move { Reply::Purchase(service.purchase(asked.as_str(), user.as_str()).await) })
        };
        caller.flag = Flag::raised();
        caller.asks = Some(Ask { sale, since, decided: None, future });
    }

    /// Asks on, and takes the answer where there is one. `heard` is whether it reaches the caller.
    pub(super) fn listen(&self, caller: &mut Caller, heard: bool) -> Checked {
        let Some(ask) = &mut caller.asks else { return Ok(()) };
        caller.flag.lower();
        let before = self.place(&ask.sale).unwrap_or_default();
        let reply = ask.future.as_mut().poll(&mut Context::from_waker(&caller.flag.waker()));
        let after = self.place(&ask.sale).unwrap_or_default();
        let (name, sale) = (caller.name.clone(), ask.sale.clone());
        if after > before {
            ask.decided = Some((after, self.clock.now()));
            self.witness.borrow_mut().took(&sale, after, Act::Attempt(name.clone()))?;
            if self.stopped.get() {
                return broken!(
                    "after a failed write selling stops",
                    "{name} was decided at place {after} of {sale}"
                );
            }
        }
        let Poll::Ready(reply) = reply else {
            if after > before {
                self.tell(|| format!("{name} tries to buy {sale}: decided at place {after}, and waits"));
            }
            return Ok(());
        };
        let ask = caller.asks.take().expect("it is being answered");
        if heard {
            self.hear(&name, &ask, reply)
        } else {
            self.count(Fault::LostReply);
            self.tell(|| format!("an answer to {name} about {sale} is lost"));
            Ok(())
        }
    }

    fn hear(&self, name: &UserId, ask: &Ask, reply: Reply) -> Checked {
        let sale = &ask.sale;
        let mut witness = self.witness.borrow_mut();
        match reply {
            Reply::Attempt(Ok(decision)) => {
                let (place, at) = ask.decided.unzip();
                let at = at.unwrap_or_else(|| self.clock.now());
                self.tell(|| format!("{name} is told of {sale}: {}", words_of_decision(&decision, place)));
                if let Decision::Reserved(reservation) = &decision {
                    self.known.borrow_mut().push(reservation.clone());
                }
                witness.told(sale, name, place, at, &decision)
            }
            Reply::Purchase(Ok(purchase)) => {
                self.tell(|| {
                    let what = purchase.map_or("nothing".to_owned(), words_of_purchase);
                    format!("{name} asks what they hold of {sale}: {what}")
                });
                witness.told_of_purchase(sale, name, purchase, ask.since)
            }
            Reply::Attempt(Err(error)) | Reply::Purchase(Err(error)) => {
                witness.tally.unanswered += 1;
                if matches!(error, Error::Busy { .. }) {
                    self.count(Fault::QueueFull);
                }
                self.tell(|| format!("{name} is told of {sale}: {error}"));
                Ok(())
            }
        }
    }

    pub(super) fn hang_up(&self, index: usize) {
        let mut caller = self.callers[index].borrow_mut();
        self.count(Fault::HangUp);
        self.witness.borrow_mut().tally.unanswered += 1;
        let ask = caller.asks.take();
        let name = caller.name.clone();
        self.tell(|| {
            format!("{name} hangs up{}", ask.map_or(String::new(), |ask| format!(" on {}", ask.sale)))
        });
    }
}

fn words_of_decision(decision: &Decision, place: Option<Place>) -> String {
    let place = place.unwrap_or_default();
    match decision {
        Decision::Reserved(held) => {
            let order = held.order_id.0.as_u128();
            format!("SUCCESS, unit {}, order {order}, epoch {}, place {place}", held.unit, held.epoch)
        }
        Decision::AlreadyPurchased(held) => {
            format!("ALREADY_PURCHASED, {}, place {place}", words_of_purchase(*held))
        }
        Decision::SoldOut => format!("SOLD_OUT, place {place}"),
        Decision::NotActive => format!("not active, place {place}"),
    }
}

fn words_of_purchase(held: Purchase) -> String {
    format!("unit {}, order {}, {}", held.unit, held.order_id.0.as_u128(), held.status)
}
