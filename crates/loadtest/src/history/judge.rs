//! Whether one shop that serves one request after the other could have answered a history so.
//!
//! Each purchase must have happened at one instant between its request and its answer, and of anybody else who saw it or
//! did not. Units (or places) say in which order. Going through the purchases in that order, each is set at the earliest
//! instant that is left; where that is later than it can have been, no sequence fits. All other answers change nothing,
//! so that each can be looked at alone, against the purchases' instants. `tests/it/history.rs` compares this with
//! trying all sequences.

use std::collections::HashMap;

use super::{Call, Figures, History, Losses, Order, Told};
use crate::verdict::{Check, Repeats, Verdict};

impl History {
    /// Judges. Violations are told in words, with the first case of each kind as an example.
    #[must_use]
    pub fn judge(&self) -> Verdict {
        let mut case = Case::new(self);
        case.hear();
        case.compare_with_orders();
        case.compare_orders();
        case.put_in_sequence();
        case.weigh_rejections();
        case.compare_figures();
        case.verdict()
    }
}

/// An instant that a purchase cannot have been before, or after, and who says so.
#[derive(Clone, Copy)]
struct Limit<'a> {
    at: u64,
    by: Option<&'a Call>,
}

impl<'a> Limit<'a> {
    fn not_before(&mut self, at: u64, by: &'a Call) {
        if at > self.at || self.by.is_none() {
            *self = Self { at: self.at.max(at), by: Some(by) };
        }
    }

    fn not_after(&mut self, at: u64, by: &'a Call) {
        if at < self.at {
            *self = Self { at, by: Some(by) };
        }
    }

    fn words(&self) -> String {
        self.by.map_or_else(|| "nobody".to_owned(), words)
    }
}

/// What is known of one user.
struct Buyer<'a> {
    user: &'a str,
    /// The request that was told SUCCESS.
    bought: Option<&'a Call>,
    /// The order that they were told of first.
    order: Option<(&'a str, &'a Call)>,
    /// The first request without an answer: it may have bought.
    unanswered: Option<&'a Call>,
    /// The first that was told SOLD_OUT.
    turned_away: Option<&'a Call>,
    on_record: Option<&'a Order>,
    earliest: Limit<'a>,
    latest: Limit<'a>,
}

/// A purchase that has happened.
struct Purchase<'a> {
    user: &'a str,
    on_record: Option<&'a Order>,
    earliest: Limit<'a>,
    latest: Limit<'a>,
}

/// The kinds of faults, each counted with its first case.
#[derive(Default)]
struct Faults {
    twice: Repeats,
    other_order: Repeats,
    no_order: Repeats,
    shared_order: Repeats,
    lost: Repeats,
    replaced: Repeats,
    two_orders: Repeats,
    unit: Repeats,
    nobodys: Repeats,
    seen_too_early: Repeats,
    sequence: Repeats,
    places: Repeats,
    sold_out_early: Repeats,
    sold_out_with_stock: Repeats,
    sold_out_and_holds: Repeats,
    sums: Repeats,
    oversold: Option<String>,
    figures: Vec<String>,
}

struct Case<'a> {
    history: &'a History,
    buyers: Vec<Buyer<'a>>,
    index: HashMap<&'a str, usize>,
    /// In their sequence.
    purchases: Vec<Purchase<'a>>,
    /// The earliest instant of the last purchase.
    last: Limit<'a>,
    faults: Faults,
}

impl<'a> Case<'a> {
    fn new(history: &'a History) -> Self {
        Self {
            history,
            buyers: Vec::new(),
            index: HashMap::with_capacity(history.calls.len() / 2),
            purchases: Vec::new(),
            last: Limit { at: 0, by: None },
            faults: Faults::default(),
        }
    }

    fn strict(&self) -> bool {
        self.history.losses == Losses::None
    }

    fn buyer(&mut self, user: &'a str) -> &mut Buyer<'a> {
        let index = *self.index.entry(user).or_insert(self.buyers.len());
        if index == self.buyers.len() {
            self.buyers.push(Buyer {
                user,
                bought: None,
                order: None,
                unanswered: None,
                turned_away: None,
                on_record: None,
                earliest: Limit { at: 0, by: None },
                latest: Limit { at: u64::MAX, by: None },
            });
        }
        &mut self.buyers[index]
    }

    /// Sorts what was told by user.
    fn hear(&mut self) {
        for call in &self.history.calls {
            match &call.told {
                Told::Figures(_) | Told::NotActive => {}
                Told::Bought { order, .. } => self.hear_bought(call, order),
                Told::Holds { order } => self.hear_order(call, order),
                Told::SoldOut | Told::HoldsNothing => {
                    let buyer = self.buyer(&call.user);
                    buyer.earliest.not_before(call.sent, call);
                    if call.told == Told::SoldOut {
                        keep_first(&mut buyer.turned_away, call);
                    }
                }
                Told::Nothing => keep_first(&mut self.buyer(&call.user).unanswered, call),
            }
        }
    }

    fn hear_bought(&mut self, call: &'a Call, order: &'a str) {
        let buyer = self.buyer(&call.user);
        if let Some(first) = buyer.bought {
            self.faults.twice.see(|| format!("{}, and {}", words(first), words(call)));
            return;
        }
        buyer.bought = Some(call);
        buyer.earliest.not_before(call.sent, call);
        self.hear_order(call, order);
    }

    fn hear_order(&mut self, call: &'a Call, order: &'a str) {
        if order.is_empty() {
            return self.faults.no_order.see(|| words(call));
        }
        let buyer = self.buyer(&call.user);
        buyer.latest.not_after(call.answered, call);
        match buyer.order {
            None => buyer.order = Some((order, call)),
            Some((first, before)) if first != order => {
                self.faults
                    .other_order
                    .see(|| format!("{first} by {}, {order} by {}", words(before), words(call)));
            }
            Some(_) => {}
        }
    }

    /// What was told against the orders on record.
    fn compare_with_orders(&mut self) {
        let history = self.history;
        for order in history.records.orders.iter().flatten() {
            let Some(&index) = self.index.get(&*order.user) else {
                self.faults.nobodys.see(|| format!("{} of {}, who never asked", order.id, order.user));
                continue;
            };
            let buyer = &mut self.buyers[index];
            if let Some(first) = buyer.on_record.replace(order) {
                self.faults.two_orders.see(|| format!("{}: {} and {}", order.user, first.id, order.id));
            }
        }
        for buyer in &self.buyers {
            match (buyer.order, buyer.on_record) {
                (Some((told, by)), Some(order)) if told != order.id => {
                    self.faults.replaced.see(|| format!("{told} by {}, {} on record", words(by), order.id));
                }
                (Some((told, by)), None) if history.records.orders.is_some() => {
                    self.faults.lost.see(|| format!("{told}, told by {}", words(by)));
                }
                _ => {}
            }
        }
        self.find_purchases();
    }

    /// Which users have bought, and when that can have been.
    fn find_purchases(&mut self) {
        for buyer in &self.buyers {
            if buyer.order.is_none() && buyer.bought.is_none() && buyer.on_record.is_none() {
                continue;
            }
            let mut earliest = buyer.earliest;
            if buyer.bought.is_none() {
                let Some(unanswered) = buyer.unanswered else {
                    let what = buyer
                        .on_record
                        .map_or_else(|| buyer.order.map_or("", |(id, _)| id), |order| &order.id);
                    self.faults.nobodys.see(|| {
                        format!("{what} of {}, all of whose requests were told otherwise", buyer.user)
                    });
                    continue;
                };
                earliest.not_before(unanswered.sent, unanswered);
            }
            if let (Some(away), true) = (buyer.turned_away, self.strict()) {
                self.faults.sold_out_and_holds.see(|| words(away));
            }
            if earliest.at > buyer.latest.at {
                let (early, late) = (earliest.words(), buyer.latest.words());
                self.faults.seen_too_early.see(|| format!("{late}, which was over before {early} was sent"));
            }
            let (user, on_record, latest) = (buyer.user, buyer.on_record, buyer.latest);
            self.purchases.push(Purchase { user, on_record, earliest, latest });
        }
    }

    /// The purchases among each other: units, order ids, the stock.
    fn compare_orders(&mut self) {
        let stock = self.history.stock;
        let mut owners: HashMap<&str, &str> = HashMap::with_capacity(self.buyers.len());
        for buyer in &self.buyers {
            let told = buyer.order.map(|(id, _)| id);
            let Some(id) = told.or(buyer.on_record.map(|order| &*order.id)) else { continue };
            if let Some(first) = owners.insert(id, buyer.user) {
                self.faults.shared_order.see(|| format!("{id} to {first} and to {}", buyer.user));
            }
        }
        if let Some(orders) = &self.history.records.orders {
            let mut units: Vec<_> = orders.iter().map(|order| (order.unit, &*order.user)).collect();
            units.sort_unstable();
            let outside = units.iter().filter(|(unit, _)| !(1..=stock).contains(unit));
            for (unit, user) in outside {
                self.faults.unit.see(|| format!("unit {unit} of {user}, of a stock of {stock}"));
            }
            for pair in units.windows(2) {
                let ((one, first), (other, second)) = (pair[0], pair[1]);
                if one == other {
                    self.faults.unit.see(|| format!("unit {one}, held by {first} and by {second}"));
                } else if other != one + 1 && self.strict() {
                    self.faults.unit.see(|| format!("unit {other}, of {second}, after unit {one}"));
                }
            }
            if let Some(&(unit, user)) = units.first().filter(|&&(unit, _)| unit != 1 && self.strict()) {
                self.faults.unit.see(|| format!("unit {unit}, of {user}, the first"));
            }
        }
        let sold = self.history.records.orders.as_ref().map_or(0, Vec::len).max(self.purchases.len()) as u64;
        if sold > stock {
            self.faults.oversold = Some(format!("{sold} purchases of a stock of {stock}"));
        }
    }

    /// Sets each purchase at the earliest instant that is left.
    fn put_in_sequence(&mut self) {
        let recorded = self.history.records.orders.is_some();
        let place = |purchase: &Purchase<'_>| purchase.on_record.and_then(|order| order.place);
        let unit = |purchase: &Purchase<'_>| purchase.on_record.map_or(u64::MAX, |order| order.unit);
        let placed =
            !self.purchases.is_empty() && self.purchases.iter().all(|purchase| place(purchase).is_some());
        let ordered = if recorded && self.strict() {
            self.purchases.sort_by_key(unit);
            true
        } else if placed {
            self.purchases.sort_by_key(|purchase| place(purchase));
            true
        } else {
            self.purchases.sort_by_key(|purchase| purchase.earliest.at);
            false
        };
        if ordered && self.strict() {
            self.look_at_figures();
            for pair in self.purchases.windows(2).filter(|pair| placed && place(&pair[0]) >= place(&pair[1]))
            {
                self.faults.places.see(|| format!("{} before {}", title(&pair[0]), title(&pair[1])));
            }
        }
        let mut last = Limit { at: 0, by: None };
        for purchase in &self.purchases {
            if purchase.earliest.at >= last.at {
                last = purchase.earliest;
            } else if ordered && last.at > purchase.latest.at && purchase.earliest.at <= purchase.latest.at {
                self.faults.sequence.see(|| {
                    let (late, early) = (last.words(), purchase.latest.words());
                    format!("{}, there when {early} was answered, behind {late}", title(purchase))
                });
            }
        }
        self.last = last;
    }

    /// Whoever saw `sold` units sold saw that many purchases, and not the next one.
    fn look_at_figures(&mut self) {
        for call in &self.history.calls {
            let Told::Figures(Figures { sold, remaining }) = call.told else { continue };
            let Ok(seen) = usize::try_from(sold) else { continue };
            if seen > self.purchases.len() {
                let held = self.purchases.len();
                self.faults.sums.see(|| {
                    format!("{sold} sold and {remaining} left, while {held} were ever sold: {}", words(call))
                });
                continue;
            }
            if let Some(next) = self.purchases.get_mut(seen) {
                next.earliest.not_before(call.sent, call);
            }
            if let Some(last) = seen.checked_sub(1) {
                self.purchases[last].latest.not_after(call.answered, call);
            }
        }
        for purchase in &self.purchases {
            let (earliest, latest) = (&purchase.earliest, &purchase.latest);
            if earliest.at > latest.at {
                let (early, late) = (earliest.words(), latest.words());
                self.faults
                    .sequence
                    .see(|| format!("{}, not there yet for {early}, there for {late}", title(purchase)));
            }
        }
    }

    /// SOLD_OUT says that every unit was taken by then.
    fn weigh_rejections(&mut self) {
        let stock = self.history.stock;
        let takers = self.takers();
        let sold = self.purchases.len() as u64;
        let recorded = self.history.records.orders.is_some();
        for call in self.history.calls.iter().filter(|call| call.told == Told::SoldOut) {
            if self.strict() && recorded && sold < stock {
                self.faults
                    .sold_out_with_stock
                    .see(|| format!("{}, while {sold} of {stock} were ever sold", words(call)));
            } else if self.strict() && call.answered < self.last.at {
                let last = self.last.words();
                self.faults.sold_out_early.see(|| format!("{}, before {last} was sent", words(call)));
            } else {
                let taken = takers.partition_point(|&at| at <= call.answered) as u64;
                if taken < stock {
                    self.faults.sold_out_early.see(|| {
                        format!("{}, when at most {taken} of {stock} can have been taken", words(call))
                    });
                }
            }
        }
    }

    /// For each user who may have taken a unit: from when on. Sorted.
    fn takers(&self) -> Vec<u64> {
        let bought: HashMap<&str, u64> =
            self.purchases.iter().map(|purchase| (purchase.user, purchase.earliest.at)).collect();
        // With all orders read, who has none took none, unless it was lost.
        let may_have = self.history.records.orders.is_none() || !self.strict();
        let mut takers: Vec<u64> = self
            .buyers
            .iter()
            .filter_map(|buyer| {
                // Whoever was told SOLD_OUT took none before, and afterwards none was left.
                let may_have = may_have && !(self.strict() && buyer.turned_away.is_some());
                let since = buyer.unanswered.filter(|_| may_have).map(|call| call.sent);
                let unanswered = since.map(|at| if self.strict() { at.max(buyer.earliest.at) } else { at });
                match (bought.get(buyer.user).copied(), unanswered) {
                    (Some(one), Some(other)) if !self.strict() => Some(one.min(other)),
                    (Some(bought), _) => Some(bought),
                    (None, unanswered) => unanswered,
                }
            })
            .collect();
        takers.sort_unstable();
        takers
    }

    fn compare_figures(&mut self) {
        let stock = i64::try_from(self.history.stock).unwrap_or(i64::MAX);
        for call in &self.history.calls {
            if let Told::Figures(Figures { remaining, sold }) = call.told
                && (remaining.saturating_add(sold) != stock || remaining < 0 || sold < 0)
            {
                self.faults.sums.see(|| format!("{remaining} left and {sold} sold: {}", words(call)));
            }
        }
        let Some(Figures { remaining, sold }) = self.history.records.figures else { return };
        if remaining.saturating_add(sold) != stock {
            self.faults
                .figures
                .push(format!("in the end {remaining} left + {sold} sold, of a stock of {stock}"));
        }
        let known = self.purchases.len();
        let least = self.history.records.orders.as_ref().map_or(known, Vec::len);
        let most = match &self.history.records.orders {
            Some(orders) => orders.len(),
            None => {
                known
                    + self
                        .buyers
                        .iter()
                        .filter(|buyer| buyer.order.is_none() && buyer.unanswered.is_some())
                        .count()
            }
        };
        if !usize::try_from(sold).is_ok_and(|sold| (least..=most).contains(&sold)) {
            self.faults.figures.push(format!("in the end {sold} sold, and {least} to {most} orders"));
        }
    }

    fn verdict(self) -> Verdict {
        let (calls, sold) = (self.history.calls.len(), self.purchases.len());
        let faults = self.faults;
        let check = |promise, name, repeats: Vec<(Repeats, &str)>, more: Vec<String>, figures: String| {
            let told = repeats.into_iter().filter_map(|(repeats, what)| repeats.fault(what));
            Check::new(promise, name, &told.chain(more).collect::<Vec<_>>(), figures)
        };
        let checks = vec![
            check(
                "P1",
                "Never oversold",
                vec![
                    (faults.unit, "units are not the next one, or held twice"),
                    (faults.shared_order, "order ids were given again"),
                    (faults.no_order, "answers had no order id"),
                ],
                faults.oversold.into_iter().collect(),
                format!("{sold} purchases of a stock of {}", self.history.stock),
            ),
            check(
                "P2",
                "One per user",
                vec![
                    (faults.twice, "users were told SUCCESS again"),
                    (faults.other_order, "users were told of another order than before"),
                    (faults.two_orders, "users hold two orders"),
                ],
                vec![],
                format!("{} users", self.buyers.len()),
            ),
            check(
                "P3",
                "SUCCESS means recorded",
                vec![
                    (faults.lost, "orders are lost"),
                    (faults.replaced, "orders are not the one that was told"),
                ],
                vec![],
                "every order that anybody was told of is on record".to_owned(),
            ),
            check(
                "P4",
                "Stock is conserved",
                vec![
                    (faults.nobodys, "orders are of nobody who can have bought"),
                    (faults.sums, "figures do not add up"),
                ],
                faults.figures,
                "every unit is left or somebody's".to_owned(),
            ),
            check(
                "P5",
                "First come, first served",
                vec![
                    (faults.seen_too_early, "purchases were seen before anybody can have made them"),
                    (faults.sequence, "purchases are out of sequence"),
                    (faults.places, "units are not in the order of their places"),
                    (faults.sold_out_early, "users were told SOLD_OUT too early"),
                    (faults.sold_out_with_stock, "users were told SOLD_OUT while a unit was left"),
                    (faults.sold_out_and_holds, "users were told SOLD_OUT and hold a unit"),
                ],
                vec![],
                format!("{calls} requests fit into one sequence"),
            ),
        ];
        Verdict { passed: checks.iter().all(|check| check.holds), checks, notes: vec![] }
    }
}

fn keep_first<'a>(first: &mut Option<&'a Call>, call: &'a Call) {
    if first.is_none_or(|first| call.sent < first.sent) {
        *first = Some(call);
    }
}

/// A call in words.
fn words(call: &Call) -> String {
    let ms = |nanos: u64| format!("{}.{:03}", nanos / 1_000_000, nanos / 1_000 % 1_000);
    let (from, to, told) = (ms(call.sent), ms(call.answered), call.told.words());
    let who = if call.user.is_empty() { "a look" } else { &call.user };
    format!("{who} ({from} to {to} ms, told {told})")
}

fn title(purchase: &Purchase<'_>) -> String {
    match purchase.on_record {
        Some(order) => format!("unit {} of {}", order.unit, purchase.user),
        None => format!("the purchase of {}", purchase.user),
    }
}
