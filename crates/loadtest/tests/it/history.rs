//! Histories: those of an honest shop pass, however requests overlap and answers get lost; a lie is found; and the judge,
//! which looks at each request once, agrees with trying all sequences.

use std::collections::HashMap;

use flashsale_loadtest::history::{Call, Figures, History, Losses, Order, Records, Told};

/// Marsaglia's xorshift, so that a history is its seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// From 0 to `sides` - 1.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// One shop that serves one request after the other.
#[derive(Clone, Default)]
struct Shop {
    stock: u64,
    /// User → unit.
    sold: HashMap<String, u64>,
}

impl Shop {
    fn buy(&mut self, user: &str) -> Told {
        let order = order_of(user);
        if self.sold.contains_key(user) {
            return Told::Holds { order };
        }
        if self.count() == self.stock {
            return Told::SoldOut;
        }
        self.sold.insert(user.to_owned(), self.count() + 1);
        Told::Bought { order, provisional: false }
    }

    fn look(&self, user: &str) -> Told {
        if self.sold.contains_key(user) { Told::Holds { order: order_of(user) } } else { Told::HoldsNothing }
    }

    fn count(&self) -> u64 {
        self.sold.len() as u64
    }

    fn figures(&self) -> Figures {
        let (stock, sold) = (self.stock.cast_signed(), self.count().cast_signed());
        Figures { remaining: stock - sold, sold }
    }

    fn records(&self) -> Records {
        let order = |(user, unit): (&String, &u64)| Order {
            id: order_of(user),
            user: user.clone(),
            unit: *unit,
            place: Some(10 + 2 * unit),
        };
        let mut orders: Vec<_> = self.sold.iter().map(order).collect();
        orders.sort_by_key(|order| order.unit);
        Records { orders: Some(orders), figures: Some(self.figures()) }
    }
}

fn order_of(user: &str) -> String {
    format!("order-of-{user}")
}

/// What a history is made of.
struct Shape {
    stock: u64,
    users: u64,
    calls: u64,
    /// Of how many calls one takes part in the same instant, roughly.
    overlap: u64,
}

/// A history of an honest shop. Every call happens at an instant of its own, between its request and its answer; of one
/// in eight the answer is lost.
fn honest(seed: u64, shape: &Shape) -> History {
    let dice = &mut Dice::new(seed);
    let mut shop = Shop { stock: shape.stock, sold: HashMap::new() };
    let mut calls = Vec::new();
    for number in 1..=shape.calls {
        let instant = 1_000 * (number + shape.overlap);
        let sent = instant - dice.roll(1_000 * shape.overlap);
        let answered = instant + dice.roll(1_000 * shape.overlap);
        let user = format!("user-{}", dice.roll(shape.users));
        let told = match dice.roll(12) {
            0 => Told::Figures(shop.figures()),
            1 => shop.look(&user),
            _ => shop.buy(&user),
        };
        // An answer may be given up before the request has even arrived.
        let lost = dice.roll(8) == 0;
        let (told, answered) = if lost { (Told::Nothing, sent + dice.roll(900)) } else { (told, answered) };
        let user = if matches!(told, Told::Figures(_)) { String::new() } else { user };
        calls.push(Call { user, sent, answered, told });
    }
    History { stock: shape.stock, calls, records: shop.records(), losses: Losses::None }
}

fn shape(seed: u64) -> Shape {
    let dice = &mut Dice::new(seed ^ 0xABCD);
    let (stock, users) = (1 + dice.roll(60), 1 + dice.roll(120));
    Shape { stock, users, calls: 20 + dice.roll(400), overlap: 1 + dice.roll(30) }
}

fn broken(history: &History) -> Vec<String> {
    let verdict = history.judge();
    verdict
        .checks
        .iter()
        .filter(|check| !check.holds)
        .map(|check| format!("{}: {}", check.promise, check.figures))
        .collect()
}

const SEEDS: u64 = 400;

#[test]
fn histories_of_an_honest_shop_pass() {
    for seed in 0..SEEDS {
        let mut history = honest(seed, &shape(seed));
        assert_eq!(broken(&history), [""; 0], "seed {seed}");
        // Less evidence is no more guilt.
        history.losses = Losses::Unanswered;
        assert_eq!(broken(&history), [""; 0], "seed {seed}, with losses");
        history.losses = Losses::None;
        history.records.orders = None;
        assert_eq!(broken(&history), [""; 0], "seed {seed}, without orders");
    }
}

/// Breaks a history; whether it could.
type Lie = fn(&mut History, &mut Dice) -> bool;

/// Each with the promise that it breaks, and a word of what must be said.
const LIES: &[(&str, &str, Lie)] = &[
    ("P1", "held by", |history, dice| with_orders(history, dice, 2, |one, other| other.unit = one.unit)),
    ("P1", "of a stock of", |history, dice| {
        let beyond = history.stock + 1;
        with_orders(history, dice, 1, |one, _| one.unit = beyond)
    }),
    ("P1", "after unit", |history, dice| {
        // A hole in the middle; whoever came later moved up by one.
        let orders = history.records.orders.as_mut().expect("read");
        let from = dice.roll(history.stock);
        if from + 1 >= orders.len() as u64 || orders.len() as u64 >= history.stock {
            return false;
        }
        orders.iter_mut().filter(|order| order.unit > from + 1).for_each(|order| order.unit += 1);
        true
    }),
    ("P1", "given again", |history, dice| {
        let Some(borrowed) = pick(history, dice, bought).map(|at| history.calls[at].told.clone()) else {
            return false;
        };
        let Some(at) = pick(history, dice, |call| bought(call) && call.told != borrowed) else {
            return false;
        };
        history.calls[at].told = borrowed;
        true
    }),
    ("P1", "no order id", |history, dice| {
        with_call(history, dice, bought, |call| {
            call.told = Told::Bought { order: String::new(), provisional: false }
        })
    }),
    ("P1", "purchases of a stock of", |history, _| {
        let sold = history.records.orders.as_ref().expect("read").len() as u64;
        history.stock = sold.saturating_sub(1);
        sold > 0
    }),
    ("P2", "SUCCESS again", |history, dice| {
        let Some(at) = pick(history, dice, bought) else { return false };
        let again = Call { sent: history.calls[at].sent + 5, ..history.calls[at].clone() };
        history.calls.push(again);
        true
    }),
    ("P2", "another order", |history, dice| {
        with_call(history, dice, holds, |call| call.told = Told::Holds { order: "another".to_owned() })
    }),
    ("P2", "hold two", |history, dice| {
        let Some(orders) = &mut history.records.orders else { return false };
        let Some(first) = orders.get(dice.roll(orders.len().max(1) as u64) as usize).cloned() else {
            return false;
        };
        orders.push(Order { id: "second".to_owned(), unit: orders.len() as u64 + 1, ..first });
        true
    }),
    ("P3", "are lost", |history, dice| {
        let Some(at) = pick(history, dice, bought) else { return false };
        let user = history.calls[at].user.clone();
        history.records.orders.as_mut().expect("read").retain(|order| order.user != user);
        true
    }),
    ("P3", "not the one", |history, dice| {
        let Some(at) = pick(history, dice, bought) else { return false };
        let user = history.calls[at].user.clone();
        let mut orders = history.records.orders.iter_mut().flatten();
        orders.find(|order| order.user == user).expect("recorded").id = "another".to_owned();
        true
    }),
    ("P4", "never asked", |history, _| {
        let orders = history.records.orders.as_mut().expect("read");
        let unit = orders.len() as u64 + 1;
        orders.push(Order { id: "ghost".to_owned(), user: "ghost".to_owned(), unit, place: None });
        true
    }),
    ("P4", "told otherwise", |history, dice| {
        let Some(at) = pick(history, dice, |call| call.told == Told::SoldOut) else { return false };
        let user = history.calls[at].user.clone();
        if history.calls.iter().any(|call| call.user == user && call.told == Told::Nothing) {
            return false;
        }
        let orders = history.records.orders.as_mut().expect("read");
        orders.pop();
        orders.push(Order { id: "gift".to_owned(), user, unit: history.stock, place: None });
        true
    }),
    ("P4", "do not add up", |history, dice| {
        with_call(history, dice, looks, |call| {
            let Told::Figures(figures) = &mut call.told else { return };
            figures.remaining += 1;
        })
    }),
    ("P4", "in the end", |history, _| {
        history.records.figures.as_mut().expect("read").remaining -= 1;
        true
    }),
    ("P4", "orders", |history, _| {
        let figures = history.records.figures.as_mut().expect("read");
        (figures.remaining, figures.sold) = (figures.remaining + 1, figures.sold - 1);
        true
    }),
    ("P5", "out of sequence", |history, _| {
        // Of two purchases of which one was over before the other began, the later one gets the lower unit.
        let spans: HashMap<_, _> = history
            .calls
            .iter()
            .filter(|call| bought(call))
            .map(|call| (call.user.clone(), (call.sent, call.answered)))
            .collect();
        let orders = history.records.orders.as_mut().expect("read");
        for one in 0..orders.len() {
            for other in one + 1..orders.len() {
                if let (Some(first), Some(second)) =
                    (spans.get(&orders[one].user), spans.get(&orders[other].user))
                    && first.1 < second.0
                {
                    let (left, right) = orders.split_at_mut(other);
                    std::mem::swap(&mut left[one].unit, &mut right[0].unit);
                    return true;
                }
            }
        }
        false
    }),
    ("P5", "order of their places", |history, dice| {
        with_orders(history, dice, 2, |one, other| std::mem::swap(&mut one.place, &mut other.place))
    }),
    ("P5", "out of sequence", |history, dice| {
        // Somebody saw units sold long after that number had been passed.
        let end = history.calls.iter().map(|call| call.answered).max().unwrap_or_default();
        if history.records.orders.as_ref().expect("read").is_empty() {
            return false;
        }
        let stock = history.stock.cast_signed();
        let lie = with_call(history, dice, looks, |call| {
            call.told = Told::Figures(Figures { remaining: stock, sold: 0 });
            (call.sent, call.answered) = (end + 1, end + 2);
        });
        // The first purchase must have been answered: without an answer it may have happened last.
        let first = history
            .records
            .orders
            .iter()
            .flatten()
            .find(|order| order.unit == 1)
            .map(|order| order.user.clone());
        lie && history
            .calls
            .iter()
            .any(|call| Some(&call.user) == first.as_ref() && (bought(call) || holds(call)))
    }),
    ("P4", "ever sold", |history, dice| {
        let stock = history.stock.cast_signed();
        let sold = history.records.orders.as_ref().expect("read").len() as i64;
        sold < stock
            && with_call(history, dice, looks, |call| {
                call.told = Told::Figures(Figures { remaining: stock - sold - 1, sold: sold + 1 });
            })
    }),
    ("P5", "seen before", |history, dice| {
        // A retry that was over before the purchase began.
        let Some(at) = pick(history, dice, |call| bought(call) && call.sent > 2) else { return false };
        let Call { user, sent, .. } = history.calls[at].clone();
        history.calls.push(Call {
            told: Told::Holds { order: order_of(&user) },
            user,
            sent: sent - 2,
            answered: sent - 1,
        });
        true
    }),
    ("P5", "seen before", |history, dice| {
        // A look that finds nothing after the purchase was answered.
        let Some(at) = pick(history, dice, bought) else { return false };
        let Call { user, answered, .. } = history.calls[at].clone();
        history.calls.push(Call {
            told: Told::HoldsNothing,
            user,
            sent: answered + 1,
            answered: answered + 2,
        });
        true
    }),
    ("P5", "too early", |history, _| {
        let last = history.calls.iter().filter(|call| bought(call)).map(|call| call.sent).max();
        let (Some(last), Some(turned_away)) =
            (last, history.calls.iter_mut().find(|call| call.told == Told::SoldOut))
        else {
            return false;
        };
        (turned_away.sent, turned_away.answered) = (0, last.saturating_sub(1));
        last > 1
    }),
    ("P5", "while a unit was left", |history, dice| {
        let sold = history.records.orders.as_ref().expect("read").len() as u64;
        let user = format!("late-{}", dice.roll(9));
        history.calls.push(Call { user, sent: u64::MAX - 2, answered: u64::MAX - 1, told: Told::SoldOut });
        sold < history.stock
    }),
    ("P5", "hold a unit", |history, dice| {
        let Some(at) = pick(history, dice, bought) else { return false };
        let user = history.calls[at].user.clone();
        history.calls.push(Call { user, sent: 0, answered: u64::MAX - 1, told: Told::SoldOut });
        history.records.orders.as_ref().expect("read").len() as u64 == history.stock
    }),
];

fn bought(call: &Call) -> bool {
    matches!(call.told, Told::Bought { .. })
}

fn holds(call: &Call) -> bool {
    matches!(call.told, Told::Holds { .. })
}

fn looks(call: &Call) -> bool {
    matches!(call.told, Told::Figures(_))
}

fn pick(history: &History, dice: &mut Dice, wanted: impl Fn(&Call) -> bool) -> Option<usize> {
    let found: Vec<_> = (0..history.calls.len()).filter(|&at| wanted(&history.calls[at])).collect();
    (!found.is_empty()).then(|| found[dice.roll(found.len() as u64) as usize])
}

fn with_call(
    history: &mut History,
    dice: &mut Dice,
    wanted: fn(&Call) -> bool,
    change: impl FnOnce(&mut Call),
) -> bool {
    let Some(at) = pick(history, dice, wanted) else { return false };
    // A second word to a user who has heard no other is no contradiction.
    let user = &history.calls[at].user;
    if holds(&history.calls[at])
        && history.calls.iter().filter(|call| call.user == *user && (bought(call) || holds(call))).count() < 2
    {
        return false;
    }
    change(&mut history.calls[at]);
    true
}

/// Changes one of the orders, beside another one if there must be two.
fn with_orders(
    history: &mut History,
    dice: &mut Dice,
    least: usize,
    change: impl FnOnce(&mut Order, &mut Order),
) -> bool {
    let orders = history.records.orders.as_mut().expect("read");
    if orders.len() < least {
        return false;
    }
    let (one, rest) = orders.split_first_mut().expect("at least one");
    let other = dice.roll(rest.len().max(1) as u64) as usize;
    let mut nobody = one.clone();
    change(one, rest.get_mut(other).unwrap_or(&mut nobody));
    true
}

#[test]
fn every_lie_is_found_and_called_by_its_name() {
    for (number, (promise, word, lie)) in LIES.iter().enumerate() {
        let mut told = 0;
        for seed in 0..SEEDS {
            let mut history = honest(seed, &shape(seed));
            if lie(&mut history, &mut Dice::new(seed + 77)) {
                told += 1;
                let found = broken(&history);
                let named = found.iter().any(|fault| fault.starts_with(promise) && fault.contains(word));
                assert!(named, "lie {number} ({promise}, {word}), seed {seed}: found {found:?}");
            }
        }
        assert!(told >= SEEDS / 8, "lie {number} ({promise}, {word}) could be told {told} times only");
    }
}

/// Whether some sequence explains a history, by trying all of them.
fn explained(history: &History) -> bool {
    let shop = Shop { stock: history.stock, sold: HashMap::new() };
    sequence(history, &mut vec![false; history.calls.len()], &shop)
}

fn sequence(history: &History, done: &mut Vec<bool>, shop: &Shop) -> bool {
    let calls = &history.calls;
    let is_open = |at: usize, done: &[bool]| !done[at] && calls[at].told != Told::Nothing;
    if !(0..calls.len()).any(|at| is_open(at, done)) && agrees(history, shop) {
        return true;
    }
    for at in 0..calls.len() {
        let must_wait =
            (0..calls.len()).any(|other| is_open(other, done) && calls[other].answered < calls[at].sent);
        if done[at] || must_wait {
            continue;
        }
        let mut next = shop.clone();
        let told = match &calls[at].told {
            Told::Figures(_) => Told::Figures(next.figures()),
            Told::HoldsNothing => next.look(&calls[at].user),
            // To buy again and to look are the same to somebody who holds a unit.
            Told::Holds { .. } => next.look(&calls[at].user),
            _ => next.buy(&calls[at].user),
        };
        if calls[at].told == Told::Nothing || calls[at].told == told {
            done[at] = true;
            let found = sequence(history, done, &next);
            done[at] = false;
            if found {
                return true;
            }
        }
    }
    false
}

/// Whether the records are those of the shop.
fn agrees(history: &History, shop: &Shop) -> bool {
    let Some(orders) = &history.records.orders else { return true };
    let held =
        |order: &Order| shop.sold.get(&order.user) == Some(&order.unit) && order.id == order_of(&order.user);
    orders.len() == shop.sold.len() && orders.iter().all(held)
}

/// A few calls, and then something is changed that may or may not be a lie.
fn doubtful(seed: u64) -> History {
    let dice = &mut Dice::new(seed);
    let shape = Shape {
        stock: 1 + dice.roll(3),
        users: 1 + dice.roll(3),
        calls: 2 + dice.roll(5),
        overlap: 1 + dice.roll(4),
    };
    let mut history = honest(seed, &shape);
    history.records.figures = None;
    for order in history.records.orders.iter_mut().flatten() {
        order.place = None;
    }
    for _ in 0..dice.roll(3) {
        let at = dice.roll(history.calls.len() as u64) as usize;
        let span = 1_000 * (shape.calls + 2 * shape.overlap);
        let orders = history.records.orders.as_mut().expect("made");
        match dice.roll(6) {
            0 => history.calls[at].sent = dice.roll(history.calls[at].answered + 1),
            1 => history.calls[at].answered = history.calls[at].sent + dice.roll(span),
            2 if history.calls[at].user.is_empty() => {
                let sold = dice.roll(history.stock + 1).cast_signed();
                history.calls[at].told =
                    Told::Figures(Figures { sold, remaining: history.stock.cast_signed() - sold });
            }
            2 | 3 if !history.calls[at].user.is_empty() => {
                let order = order_of(&history.calls[at].user);
                let told = [
                    Told::SoldOut,
                    Told::HoldsNothing,
                    Told::Nothing,
                    Told::Holds { order: order.clone() },
                    Told::Bought { order, provisional: false },
                ];
                history.calls[at].told = told[dice.roll(5) as usize].clone();
            }
            4 if orders.len() > 1 => {
                let (one, other) = (orders[0].unit, orders[1].unit);
                (orders[0].unit, orders[1].unit) = (other, one);
            }
            5 if dice.roll(4) == 0 => drop(orders.pop()),
            _ => {}
        }
    }
    history
}

/// The judge goes through a history once. It must neither condemn what some sequence explains nor let pass what none does.
#[test]
fn the_judge_agrees_with_trying_all_sequences() {
    let mut verdicts = [0; 2];
    for seed in 0..40_000 {
        let history = doubtful(seed);
        let explained = explained(&history);
        verdicts[usize::from(explained)] += 1;
        let found = broken(&history);
        assert_eq!(found.is_empty(), explained, "seed {seed}: {found:?}\n{history:#?}");
    }
    assert!(verdicts.iter().all(|&count| count > 5_000), "one-sided: {verdicts:?}");
}

/// The same where nobody has read the orders.
#[test]
fn the_judge_agrees_with_trying_all_sequences_without_records() {
    let mut verdicts = [0; 2];
    for seed in 0..40_000 {
        let mut history = doubtful(seed);
        history.records.orders = None;
        history.calls.retain(|call| !looks(call));
        let explained = explained(&history);
        verdicts[usize::from(explained)] += 1;
        let found = broken(&history);
        assert_eq!(found.is_empty(), explained, "seed {seed}: {found:?}\n{history:#?}");
    }
    assert!(verdicts.iter().all(|&count| count > 2_000), "one-sided: {verdicts:?}");
}

/// Prints how long a million requests take: `cargo test --release -p flashsale-loadtest --test it million -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn a_million_requests_are_judged() {
    for calls in [125_000, 250_000, 500_000, 1_000_000] {
        let shape = Shape { stock: calls / 4, users: calls, calls, overlap: 200 };
        let history = honest(1, &shape);
        let began = std::time::Instant::now();
        let verdict = history.judge();
        println!("{calls} requests, {} orders: judged in {:?}", shape.stock, began.elapsed());
        assert!(verdict.passed);
    }
}
