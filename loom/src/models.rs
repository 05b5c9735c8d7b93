//! The models, each a small story of two or three threads.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use flashsale_core::{
    clock::Timestamp,
    ids::{Epoch, Place},
    sale::{NewSale, Sale, Window},
};
use loom::{
    future::block_on,
    sync::{Arc, Mutex, RwLock, atomic::AtomicU64},
    thread,
};
use parking_lot::TIME_RUNS_OUT;

use crate::{
    commit_queue::{CAPACITY, CommitQueue, Entrance},
    gather::Gather,
    latch::Latch,
    record::{Entry, Reply},
    stock::State,
};

/// Preemptions of an interleaving. Nearly all errors of this kind need two.
const PREEMPTIONS: usize = 5;
/// How long one model may take; what it has explored by then has held.
const PATIENCE: Duration = Duration::from_secs(12);

type Model = fn();

pub(crate) const ALL: [(&str, Model); 10] = [
    ("commit queue: an awaited entry is taken, whenever the writer falls asleep", awaited_entries),
    ("commit queue: an urgent entry ends the linger of audit rows", urgent_after_audit),
    ("commit queue: audit rows alone are taken when their linger ends", audit_alone),
    ("commit queue: what was appended before the end is written", closing),
    ("commit queue: whoever waits for room gets in", room),
    ("commit queue: a flush ends after the commit, or with the failure", flushing),
    ("commit queue: nobody waits for a ledger that is held", held_up),
    ("commit queue: a lookup waits for the commit that it rests on", lookup),
    ("micro-batches: every attempt is in one call, in the order of arrival", gathering),
    ("latch: one that was made of an old state does not outlive the next look", latching),
];

/// Explores a model; how many interleavings that were.
pub(crate) fn explore(name: &str, model: Model) -> u64 {
    // Audit rows that linger for ever can only be taken through a wake-up.
    TIME_RUNS_OUT.store(!name.contains("urgent"), Ordering::Relaxed);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.max_duration = Some(PATIENCE);
    let explored = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = explored.clone();
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
    });
    explored.load(Ordering::Relaxed)
}

fn entry(number: u32, awaited: bool) -> Entry {
    Entry { number, reply: awaited.then_some(Reply) }
}

/// Appends an entry, as a decider does; whether it was let in.
fn append(queue: &CommitQueue, entry: Entry) -> bool {
    match queue.enter() {
        Ok(Entrance::Open(mut room)) => {
            room.push(entry);
            true
        }
        Ok(Entrance::Full) => panic!("there is room for all"),
        Err(_) => false,
    }
}

fn numbers(group: &mut Vec<Entry>) -> Vec<u32> {
    group.drain(..).map(|entry| entry.number).collect()
}

/// Takes groups until there were so many entries.
fn take(queue: &CommitQueue, count: usize) -> Vec<u32> {
    let (mut taken, mut group) = (Vec::new(), Vec::new());
    while taken.len() < count {
        assert!(queue.take(&mut group), "it is not closed");
        taken.extend(numbers(&mut group));
    }
    taken
}

fn awaited_entries() {
    let queue = Arc::new(CommitQueue::new(CAPACITY));
    let deciders: Vec<_> = (1..=2)
        .map(|number| {
            let queue = queue.clone();
            thread::spawn(move || assert!(append(&queue, entry(number, true))))
        })
        .collect();
    let taken = take(&queue, 2);
    assert_eq!(taken.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]), "each of them once");
    deciders.into_iter().for_each(|decider| decider.join().expect("it ends"));
}

fn urgent_after_audit() {
    let queue = Arc::new(CommitQueue::new(CAPACITY));
    let decider = {
        let queue = queue.clone();
        thread::spawn(move || {
            assert!(append(&queue, entry(1, false)));
            assert!(append(&queue, entry(2, true)));
        })
    };
    assert_eq!(take(&queue, 2), [1, 2], "in their order");
    decider.join().expect("it ends");
}

fn audit_alone() {
    let queue = Arc::new(CommitQueue::new(CAPACITY));
    let decider = {
        let queue = queue.clone();
        thread::spawn(move || assert!(append(&queue, entry(1, false))))
    };
    assert_eq!(take(&queue, 1), [1]);
    decider.join().expect("it ends");
}

fn closing() {
    let queue = Arc::new(CommitQueue::new(CAPACITY));
    let decider = {
        let queue = queue.clone();
        thread::spawn(move || append(&queue, entry(1, true)))
    };
    let closer = {
        let queue = queue.clone();
        thread::spawn(move || queue.close())
    };
    let (mut taken, mut group) = (Vec::new(), Vec::new());
    while queue.take(&mut group) {
        taken.extend(numbers(&mut group));
    }
    closer.join().expect("it ends");
    assert_eq!(decider.join().expect("it ends"), taken == [1], "written, if it was let in");
}

fn room() {
    let queue = Arc::new(CommitQueue::new(CAPACITY));
    match queue.enter() {
        Ok(Entrance::Open(mut room)) => {
            (0..CAPACITY as u32).for_each(|number| room.push(entry(number, false)))
        }
        _ => panic!("it is empty"),
    }
    let decider = {
        let queue = queue.clone();
        // As `Engine::step` does.
        thread::spawn(move || {
            loop {
                let mut room = pin!(queue.room());
                room.as_mut().enable();
                if let Entrance::Open(mut open) = queue.enter().expect("it has not failed") {
                    return open.push(entry(u32::MAX, true));
                }
                block_on(room);
            }
        })
    };
    let taken = take(&queue, CAPACITY + 1);
    assert_eq!(taken.last(), Some(&u32::MAX));
    decider.join().expect("it ends");
}

fn flushing() {
    let queue = Arc::new(CommitQueue::new(CAPACITY));
    let durable = Arc::new(AtomicU64::new(0));
    let writer = {
        let (queue, durable) = (queue.clone(), durable.clone());
        thread::spawn(move || {
            let mut group = Vec::new();
            assert!(queue.take(&mut group));
            durable.store(group.len() as u64, Ordering::Release);
            queue.count_commit(numbers(&mut group).len());
            // The disk breaks under what comes next.
            drop(queue.fail("the disk is full"));
        })
    };
    assert!(append(&queue, entry(1, false)));
    block_on(queue.flush()).expect("the first entry is written");
    assert_eq!(durable.load(Ordering::Acquire), 1, "a flush ends after the commit");
    if append(&queue, entry(2, false)) {
        assert!(block_on(queue.flush()).is_err(), "nobody waits for what will not come");
    }
    writer.join().expect("it ends");
}

fn held_up() {
    let queue = Arc::new(CommitQueue::new(CAPACITY));
    assert!(append(&queue, entry(1, true)));
    let writer = {
        let queue = queue.clone();
        thread::spawn(move || {
            let mut group = Vec::new();
            assert!(queue.take(&mut group), "it is not closed");
            queue.hold_up(&mut group);
            assert!(group.iter().all(|entry| entry.reply.is_none()), "they are told");
        })
    };
    assert!(block_on(queue.flush()).is_err(), "it may take for ever");
    writer.join().expect("it ends");
    assert!(!append(&queue, entry(2, true)), "nothing is decided");
    queue.go_on();
    assert!(append(&queue, entry(2, true)));
}

fn lookup() {
    let queue = Arc::new(CommitQueue::new(CAPACITY));
    let durable = Arc::new(AtomicU64::new(0));
    assert!(append(&queue, entry(1, true)));
    let writer = {
        let (queue, durable) = (queue.clone(), durable.clone());
        // As `Writer::settle` does.
        thread::spawn(move || {
            let mut group = Vec::new();
            assert!(queue.take(&mut group));
            durable.store(1, Ordering::Release);
            queue.count_commit(numbers(&mut group).len());
        })
    };
    // As `Engine::purchase` does.
    loop {
        let mut commit = pin!(queue.next_commit());
        commit.as_mut().enable();
        if durable.load(Ordering::Acquire) >= 1 {
            break;
        }
        block_on(commit);
    }
    writer.join().expect("it ends");
}

fn gathering() {
    let gather = Arc::new(Gather::default());
    let calls = Arc::new(Mutex::new(Vec::new()));
    let attempt = {
        let (gather, calls) = (gather.clone(), calls.clone());
        move |number: u32| {
            let user = format!("user-{number}").parse().expect("a user");
            let ticket = gather.add(user).expect("there is room");
            // As `Replica::call` does: whoever starts makes the calls, one after the other, until nobody waits.
            while ticket.starts {
                let call = gather.next();
                if call.is_empty() {
                    break;
                }
                let users = call.iter().map(|waiting| waiting.user.to_string());
                calls.lock().expect("no panic").extend(users);
            }
        }
    };
    let others: Vec<_> = (1..=2)
        .map(|number| {
            let attempt = attempt.clone();
            thread::spawn(move || {
                attempt(2 * number);
                attempt(2 * number + 1);
            })
        })
        .collect();
    others.into_iter().for_each(|other| other.join().expect("it ends"));
    assert!(gather.next().is_empty(), "nobody was left waiting");
    let calls = calls.lock().expect("no panic");
    assert_eq!(calls.iter().collect::<BTreeSet<_>>().len(), 4, "each is in one call: {calls:?}");
    assert_eq!(calls.len(), 4, "and in no other: {calls:?}");
    let place = |number| calls.iter().position(|user| *user == format!("user-{number}"));
    assert!(place(2) < place(3) && place(4) < place(5), "in the order of arrival: {calls:?}");
}

fn sale() -> Sale {
    let at = Timestamp::from_millis;
    let window = Window::new(at(0), at(1_000_000)).expect("a window");
    NewSale::new("sale_1".parse().expect("an id"), "Sale".to_owned(), 1, window)
        .expect("a sale")
        .open(Epoch(1))
}

/// Redis, as far as a latch looks at it: sold out, and the place of the last event.
fn look(changed: &AtomicU64) -> State {
    let changed = changed.load(Ordering::SeqCst);
    let now = Timestamp::from_millis(1_000);
    State { generation: 1, now, changed: Place(changed), no: 1, sale: sale(), available: 0, closed: false }
}

fn latching() {
    let changed = Arc::new(AtomicU64::new(5));
    let cell: Arc<RwLock<Option<std::sync::Arc<Latch>>>> = Arc::new(RwLock::new(None));
    let here = Instant::now();
    let maker = {
        let (changed, cell) = (changed.clone(), cell.clone());
        thread::spawn(move || {
            let (before, after) = (look(&changed), look(&changed));
            if let Some(latch) = Latch::new(&before, &after, ["ada"].into_iter(), here) {
                *cell.write().expect("no panic") = Some(std::sync::Arc::new(latch));
            }
        })
    };
    let changer = {
        let (changed, cell) = (changed.clone(), cell.clone());
        thread::spawn(move || {
            changed.store(6, Ordering::SeqCst);
            *cell.write().expect("no panic") = None;
        })
    };
    // Somebody is rejected at any moment: never a purchaser, and only by what was true of some moment.
    if let Some(latch) = cell.read().expect("no panic").clone() {
        assert!(latch.rejects(&"ada".parse().expect("a user"), here).is_none());
        assert!(matches!(latch.changed, Place(5 | 6)));
    }
    changer.join().expect("it ends");
    maker.join().expect("it ends");
    // The next look, a moment later: a latch that was made of what is over goes.
    let latch = cell.read().expect("no panic").clone();
    if let Some(latch) = latch {
        let agrees = latch.compare(&look(&changed), here);
        assert_eq!(agrees, latch.changed == Place(6), "it stays only if it is of the present");
    }
}
