//! A disk in memory that behaves as badly as a real one may.
//!
//! Of each file it keeps what is surely on the disk, what the operating system shows, and what is on its way from one to
//! the other. When the power goes, each write on its way is kept, lost or torn by sectors, whatever the order; entries of
//! the folder that were not synced are kept or lost. When the process is killed, everything stays.
//!
//! A failed sync leaves what it should have written neither on the disk nor on its way: a second sync would succeed
//! without it. That is what Linux does, and why the ledger must never sync again.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    mem,
    rc::Rc,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::{
    dice::{Dice, Trace},
    faults::{Fault, Fired},
};

/// What a disk writes at once, or not at all.
const SECTOR: usize = 512;
/// The size of a piece of the memory that SQLite's connections share.
pub(crate) const SHM_WORDS: usize = 8_192;

/// What a disk refuses to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// The power is off, or this handle belongs to a process that is dead.
    Dead,
    Write,
    Sync,
    Read,
    Full,
    Busy,
    NotFound,
}

/// What is going to happen at one of the next things that the disk is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    PowerCut,
    Kill,
    WriteError,
    ShortWrite,
    SyncError,
    ReadError,
}

/// A moment at which the disk's owner may do something else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// Something is being read, written or synced.
    AtWork,
    /// The process has just died.
    Died,
}

type Interlude = Rc<dyn Fn(Moment)>;

thread_local! {
    /// What happens at such moments. Not in the disk, whose connections may be moved between threads.
    static INTERLUDE: RefCell<Option<Interlude>> = const { RefCell::new(None) };
}

/// Sets what happens while the disk is at work, on this thread.
pub(crate) fn set_interlude(interlude: Option<Interlude>) {
    INTERLUDE.with(|slot| *slot.borrow_mut() = interlude);
}

fn interlude(moment: Moment) {
    let interlude = INTERLUDE.with(|slot| slot.borrow().clone());
    if let Some(interlude) = interlude {
        interlude(moment);
    }
}

/// Whether the process that uses the disk lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    Running,
    /// The power is off.
    PowerOff,
    /// It was killed.
    Killed,
}

/// A disk with one folder. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

struct State {
    dice: Dice,
    life: Life,
    /// Which process this is; handles of earlier ones are dead.
    process: u32,
    /// The folder as the operating system shows it, and as it surely is on the disk.
    folder: BTreeMap<String, Inode>,
    synced_folder: BTreeMap<String, Inode>,
    armed: Vec<(Trouble, u64)>,
    full: bool,
    /// For how many more naps of those who wait somebody else holds the ledger's write lock.
    held_for: u32,
    handles: u64,
    fired: Fired,
    /// Troubles that really came out of a write, a sync or a read; see [`Disk::troubles`].
    troubles: u64,
    trace: Trace,
    notes: Vec<String>,
}

type Inode = Arc<Mutex<File>>;

#[derive(Default)]
struct File {
    /// What is shown.
    shown: Vec<u8>,
    /// What is on the disk.
    durable: Vec<u8>,
    /// What is on its way, oldest first.
    on_its_way: Vec<Change>,
    writes: u64,
    /// How often a sync of it failed. Linux tells each handle that was open then, once.
    failed_syncs: u64,
    locks: Vec<(u64, Level)>,
    shm: Weak<Shm>,
}

#[derive(Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Cut { len: usize },
}

/// How a handle holds a file's lock, from least to most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Level {
    Shared = 1,
    Reserved = 2,
    Pending = 3,
    Exclusive = 4,
}

/// Memory that a file's connections share, and its locks.
#[derive(Default)]
pub(crate) struct Shm {
    pieces: Mutex<Vec<Box<[u32; SHM_WORDS]>>>,
    /// By handle: shared and exclusive locks, a bit each.
    locks: Mutex<BTreeMap<u64, (u16, u16)>>,
}

/// An open file.
pub(crate) struct Handle {
    disk: Disk,
    id: u64,
    process: u32,
    name: String,
    inode: Inode,
    shm: Option<Arc<Shm>>,
    /// The folder is to be synced with this handle's first sync, as SQLite does for its logs.
    sync_folder: bool,
    delete_on_close: bool,
    /// Up to which failed sync of the file it was told.
    told_of: u64,
}

/// How a file is to be opened: as it is, unless said otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening {
    pub(crate) create: bool,
    pub(crate) sync_folder: bool,
    pub(crate) delete_on_close: bool,
}

impl Disk {
    pub(crate) fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice,
            life: Life::Running,
            process: 0,
            folder: BTreeMap::new(),
            synced_folder: BTreeMap::new(),
            armed: Vec::new(),
            full: false,
            held_for: 0,
            handles: 0,
            fired: Fired::default(),
            troubles: 0,
            trace: Trace::default(),
            notes: Vec::new(),
        })))
    }

    /// Lets `trouble` come at the `after`-th thing from now that it can come at.
    pub(crate) fn arm(&self, trouble: Trouble, after: u64) {
        self.0.lock().armed.push((trouble, after));
    }

    /// No trouble that is still to come comes.
    pub(crate) fn disarm(&self) {
        self.0.lock().armed.clear();
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.lock().full
    }

    /// Somebody else holds the ledger's write lock until those who wait have napped so often.
    pub(crate) fn hold(&self, naps: u32) {
        self.0.lock().held_for = naps;
    }

    pub(crate) fn nap(&self) {
        let mut state = self.0.lock();
        state.held_for = state.held_for.saturating_sub(1);
    }

    pub(crate) fn life(&self) -> Life {
        self.0.lock().life
    }

    /// How often the file `name` was changed.
    pub(crate) fn writes(&self, name: &str) -> u64 {
        self.0.lock().folder.get(name).map_or(0, |inode| inode.lock().writes)
    }

    /// How many errors have come out of it.
    pub(crate) fn troubles(&self) -> u64 {
        self.0.lock().troubles
    }

    pub(crate) fn fired(&self) -> Fired {
        self.0.lock().fired.clone()
    }

    pub(crate) fn trace(&self) -> Trace {
        self.0.lock().trace
    }

    /// What is worth telling of the last things that it did.
    pub(crate) fn take_notes(&self) -> Vec<String> {
        mem::take(&mut self.0.lock().notes)
    }

    /// The process dies; what becomes of unsynced writes is decided in [`Disk::restart`].
    pub(crate) fn die(&self, life: Life) {
        self.0.lock().life = life;
    }

    /// A new process begins, on what the last one left.
    pub(crate) fn restart(&self) {
        let mut state = self.0.lock();
        if state.life == Life::PowerOff {
            state.lose_power();
        }
        state.life = Life::Running;
        state.process += 1;
        state.held_for = 0;
        for inode in state.folder.values() {
            let mut file = inode.lock();
            file.locks.clear();
            file.shm = Weak::new();
        }
    }

    pub(crate) fn open(&self, name: &str, opening: Opening) -> Result<Handle, Refusal> {
        let mut state = self.0.lock();
        if state.life != Life::Running {
            return Err(Refusal::Dead);
        }
        let found = state.folder.get(name).cloned();
        if found.is_none() && !opening.create {
            return Err(Refusal::NotFound);
        }
        let is_new = found.is_none();
        let inode = found.unwrap_or_default();
        if is_new {
            if state.full {
                return Err(state.trouble(Fault::DiskFull, Refusal::Full, name));
            }
            state.folder.insert(name.to_owned(), inode.clone());
        }
        state.handles += 1;
        let told_of = inode.lock().failed_syncs;
        Ok(Handle {
            disk: self.clone(),
            id: state.handles,
            process: state.process,
            name: name.to_owned(),
            inode,
            shm: None,
            sync_folder: opening.create && opening.sync_folder,
            delete_on_close: opening.delete_on_close,
            told_of,
        })
    }

    /// Writes the file `name` anew and syncs it, as a start does with the log through the operating system.
    pub(crate) fn rewrite(&self, name: &str) -> Result<(), Refusal> {
        let mut handle = match self.open(name, Opening::default()) {
            Err(Refusal::NotFound) => return Ok(()),
            opened => opened?,
        };
        let mut bytes = vec![0; handle.len()];
        let len = handle.read(0, &mut bytes)?;
        handle.write(0, &bytes[..len])?;
        handle.sync()
    }

    /// A name for a file that nobody else opens.
    pub(crate) fn temporary_name(&self) -> String {
        format!("temporary-{}", self.0.lock().handles)
    }

    pub(crate) fn remove(&self, name: &str, sync_folder: bool) -> Result<(), Refusal> {
        interlude(Moment::AtWork);
        let death = {
            let mut state = self.0.lock();
            if state.life != Life::Running {
                return Err(Refusal::Dead);
            }
            state.trace.add(7);
            let death = state.meddle(&[Trouble::PowerCut, Trouble::Kill]);
            if death.is_none() {
                state.folder.remove(name).ok_or(Refusal::NotFound)?;
                if sync_folder {
                    state.sync_folder();
                }
            }
            death
        };
        self.death(death)
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.0.lock().folder.contains_key(name)
    }

    fn death(&self, trouble: Option<Trouble>) -> Result<(), Refusal> {
        let life = match trouble {
            None => return Ok(()),
            Some(Trouble::Kill) => Life::Killed,
            Some(_) => Life::PowerOff,
        };
        self.die(life);
        interlude(Moment::Died);
        Err(Refusal::Dead)
    }
}

impl State {
    /// Whether one of `troubles` comes now.
    fn meddle(&mut self, troubles: &[Trouble]) -> Option<Trouble> {
        let mut comes = None;
        self.armed.retain_mut(|(trouble, after)| {
            if comes.is_some() || !troubles.contains(trouble) {
                return true;
            }
            *after = after.saturating_sub(1);
            if *after > 0 {
                return true;
            }
            comes = Some(*trouble);
            false
        });
        comes
    }

    fn trouble(&mut self, fault: Fault, refusal: Refusal, name: &str) -> Refusal {
        self.fired.count(fault);
        self.troubles += 1;
        self.trace.add(100 + fault as u64);
        self.notes.push(format!("{}: {name}", fault.words()));
        refusal
    }

    fn sync_folder(&mut self) {
        self.synced_folder = self.folder.clone();
    }

    fn lose_power(&mut self) {
        // Sometimes the disk is kind, sometimes it takes everything, mostly it is neither.
        let mood = self.dice.below(8);
        self.lose_entries(mood);
        let files: Vec<_> = self.folder.iter().map(|(name, inode)| (name.clone(), inode.clone())).collect();
        for (name, inode) in files {
            let mut file = inode.lock();
            let changes = mem::take(&mut file.on_its_way);
            let (all, mut kept, mut torn, mut lost) = (changes.len(), 0, 0, 0);
            for change in changes {
                let fate = self.fate(mood);
                match (fate, change) {
                    (Fate::Kept, change) => {
                        kept += 1;
                        if lost + torn > 0 {
                            self.fired.count(Fault::ReorderedWrite);
                        }
                        apply(&mut file.durable, &change);
                    }
                    (Fate::Torn, Change::Write { at, bytes }) if bytes.len() > SECTOR => {
                        torn += 1;
                        self.fired.count(Fault::TornWrite);
                        self.tear(&mut file.durable, at, &bytes);
                    }
                    _ => {
                        lost += 1;
                        self.fired.count(Fault::LostWrite);
                    }
                }
            }
            file.shown = file.durable.clone();
            if all > 0 {
                self.notes
                    .push(format!("{name}: of {all} unsynced writes, {kept} kept, {torn} torn, {lost} lost"));
            }
        }
        self.sync_folder();
    }

    /// Entries of the folder that differ from what was synced are, each, as they were or as they became.
    fn lose_entries(&mut self, mood: u64) {
        let names: Vec<_> = self.folder.keys().chain(self.synced_folder.keys()).cloned().collect();
        for name in names {
            let (now, synced) = (self.folder.get(&name).cloned(), self.synced_folder.get(&name).cloned());
            let same = match (&now, &synced) {
                (Some(now), Some(synced)) => Arc::ptr_eq(now, synced),
                (None, None) => true,
                _ => false,
            };
            if same || self.fate(mood) == Fate::Kept {
                continue;
            }
            match synced {
                Some(inode) => {
                    self.fired.count(Fault::FileIsBack);
                    self.notes.push(format!("{name}: removed, and back"));
                    self.folder.insert(name, inode);
                }
                None => {
                    self.fired.count(Fault::LostFile);
                    self.notes.push(format!("{name}: new, and lost with its entry in the folder"));
                    self.folder.remove(&name);
                }
            }
        }
    }

    fn fate(&mut self, mood: u64) -> Fate {
        let (kept, torn) = match mood {
            0 => (0, 0),
            1 => (100, 0),
            2 => (0, 100),
            3 => (85, 10),
            4 => (10, 10),
            _ => (40, 30),
        };
        let number = self.dice.below(100);
        if number < kept {
            Fate::Kept
        } else if number < kept + torn {
            Fate::Torn
        } else {
            Fate::Lost
        }
    }

    fn tear(&mut self, durable: &mut Vec<u8>, at: usize, bytes: &[u8]) {
        // Mostly a beginning was written, sometimes any sectors.
        let sectors = bytes.len().div_ceil(SECTOR);
        let beginning = self.dice.chance(60).then(|| self.dice.index(sectors));
        let mut done = 0;
        for sector in 0..=sectors {
            // Sectors of the disk, not of the write.
            let end = (((at + done) / SECTOR + 1) * SECTOR - at).min(bytes.len());
            let kept = beginning.map_or_else(|| self.dice.chance(50), |beginning| sector < beginning);
            if kept {
                apply(durable, &Change::Write { at: at + done, bytes: bytes[done..end].to_vec() });
            }
            done = end;
            if done == bytes.len() {
                break;
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Torn,
    Lost,
}

fn apply(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, bytes } => {
            if image.len() < at + bytes.len() {
                image.resize(at + bytes.len(), 0);
            }
            image[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Change::Cut { len } => image.resize(*len, 0),
    }
}

impl File {
    fn change(&mut self, change: Change) {
        self.writes += 1;
        apply(&mut self.shown, &change);
        self.on_its_way.push(change);
    }

    fn settle(&mut self) {
        for change in mem::take(&mut self.on_its_way) {
            apply(&mut self.durable, &change);
        }
    }

    /// A sync failed: each change is on the disk, or still on its way, or neither, and then shown or not.
    fn fail_to_settle(&mut self, dice: &mut Dice) -> usize {
        let (mut dropped, mut evicted) = (0, false);
        let forgets = dice.chance(50);
        for change in mem::take(&mut self.on_its_way) {
            match dice.below(10) {
                0 => apply(&mut self.durable, &change),
                1 => self.on_its_way.push(change),
                _ => {
                    dropped += 1;
                    evicted |= forgets;
                }
            }
        }
        if evicted {
            self.shown = self.durable.clone();
            for change in &self.on_its_way {
                apply(&mut self.shown, change);
            }
        }
        dropped
    }
}

impl Handle {
    fn lives(&self, state: &State) -> Result<(), Refusal> {
        if state.life == Life::Running && state.process == self.process { Ok(()) } else { Err(Refusal::Dead) }
    }

    /// Fills `buffer` from `at`; how many bytes there were.
    pub(crate) fn read(&self, at: usize, buffer: &mut [u8]) -> Result<usize, Refusal> {
        interlude(Moment::AtWork);
        let mut state = self.disk.0.lock();
        self.lives(&state)?;
        state.trace.add(1 ^ (at as u64) << 8);
        if state.meddle(&[Trouble::ReadError]).is_some() {
            return Err(state.trouble(Fault::ReadError, Refusal::Read, &self.name));
        }
        let file = self.inode.lock();
        let found = file.shown.get(at..).unwrap_or_default();
        let len = found.len().min(buffer.len());
        buffer[..len].copy_from_slice(&found[..len]);
        Ok(len)
    }

    pub(crate) fn write(&self, at: usize, bytes: &[u8]) -> Result<(), Refusal> {
        interlude(Moment::AtWork);
        let death = {
            let mut state = self.disk.0.lock();
            self.lives(&state)?;
            state.trace.add(2 ^ (at as u64) << 8);
            state.trace.add_bytes(&bytes[..bytes.len().min(24)]);
            let mut file = self.inode.lock();
            if state.full && at + bytes.len() > file.shown.len() {
                return Err(state.trouble(Fault::DiskFull, Refusal::Full, &self.name));
            }
            let comes =
                state.meddle(&[Trouble::PowerCut, Trouble::Kill, Trouble::WriteError, Trouble::ShortWrite]);
            match comes {
                Some(Trouble::WriteError) => {
                    return Err(state.trouble(Fault::WriteError, Refusal::Write, &self.name));
                }
                Some(Trouble::ShortWrite) => {
                    let len = state.dice.index(bytes.len().max(1));
                    file.change(Change::Write { at, bytes: bytes[..len].to_vec() });
                    return Err(state.trouble(Fault::ShortWrite, Refusal::Full, &self.name));
                }
                // The process may die before it has written, or after.
                Some(_) if state.dice.chance(50) => {}
                _ => file.change(Change::Write { at, bytes: bytes.to_vec() }),
            }
            comes
        };
        self.disk.death(death)
    }

    pub(crate) fn truncate(&self, len: usize) -> Result<(), Refusal> {
        interlude(Moment::AtWork);
        let death = {
            let mut state = self.disk.0.lock();
            self.lives(&state)?;
            state.trace.add(3 ^ (len as u64) << 8);
            let comes = state.meddle(&[Trouble::PowerCut, Trouble::Kill, Trouble::WriteError]);
            if comes == Some(Trouble::WriteError) {
                return Err(state.trouble(Fault::WriteError, Refusal::Write, &self.name));
            }
            if comes.is_none() {
                self.inode.lock().change(Change::Cut { len });
            }
            comes
        };
        self.disk.death(death)
    }

    pub(crate) fn sync(&mut self) -> Result<(), Refusal> {
        interlude(Moment::AtWork);
        let death = {
            let mut guard = self.disk.0.lock();
            let state = &mut *guard;
            self.lives(state)?;
            state.trace.add(4);
            let mut file = self.inode.lock();
            if self.told_of < file.failed_syncs {
                self.told_of = file.failed_syncs;
                return Err(state.trouble(Fault::SyncErrorAgain, Refusal::Sync, &self.name));
            }
            let comes = state.meddle(&[Trouble::PowerCut, Trouble::Kill, Trouble::SyncError]);
            match comes {
                Some(Trouble::SyncError) => {
                    let dropped = file.fail_to_settle(&mut state.dice);
                    file.failed_syncs += 1;
                    self.told_of = file.failed_syncs;
                    if dropped > 0 {
                        state.fired.count(Fault::DroppedPages);
                    }
                    return Err(state.trouble(Fault::SyncError, Refusal::Sync, &self.name));
                }
                Some(_) if state.dice.chance(70) => {}
                _ => {
                    file.settle();
                    if mem::take(&mut self.sync_folder) {
                        state.sync_folder();
                    }
                }
            }
            comes
        };
        self.disk.death(death)
    }

    pub(crate) fn len(&self) -> usize {
        self.inode.lock().shown.len()
    }

    /// Raises the lock that this handle has.
    pub(crate) fn lock(&self, level: Level) -> Result<(), Refusal> {
        self.lives(&self.disk.0.lock())?;
        let mut file = self.inode.lock();
        let highest = file.locks.iter().filter(|(id, _)| *id != self.id).map(|(_, level)| *level).max();
        let free = match level {
            Level::Shared => highest < Some(Level::Pending),
            Level::Reserved => highest < Some(Level::Reserved),
            Level::Pending | Level::Exclusive => highest.is_none(),
        };
        if !free {
            return Err(Refusal::Busy);
        }
        file.locks.retain(|(id, _)| *id != self.id);
        file.locks.push((self.id, level));
        Ok(())
    }

    /// Lowers it, to shared or to nothing.
    pub(crate) fn unlock(&self, to_shared: bool) {
        let mut file = self.inode.lock();
        let held = file.locks.iter().any(|(id, _)| *id == self.id);
        file.locks.retain(|(id, _)| *id != self.id);
        if held && to_shared {
            file.locks.push((self.id, Level::Shared));
        }
    }

    pub(crate) fn is_reserved(&self) -> bool {
        self.inode.lock().locks.iter().any(|(_, level)| *level >= Level::Reserved)
    }

    /// The piece `index` of the memory that the file's connections share; `None` where there is none and none is made.
    pub(crate) fn shm_piece(&mut self, index: usize, make: bool) -> Result<Option<*mut u32>, Refusal> {
        self.lives(&self.disk.0.lock())?;
        let shm = self.shm.get_or_insert_with(|| {
            let mut file = self.inode.lock();
            file.shm.upgrade().unwrap_or_else(|| {
                let shm = Arc::<Shm>::default();
                file.shm = Arc::downgrade(&shm);
                shm
            })
        });
        let mut pieces = shm.pieces.lock();
        while make && pieces.len() <= index {
            pieces.push(Box::new([0; SHM_WORDS]));
        }
        Ok(pieces.get_mut(index).map(|piece| piece.as_mut_ptr()))
    }

    /// Takes or drops locks of the shared memory, a bit each.
    pub(crate) fn shm_lock(&self, bits: u16, take: bool, exclusive: bool) -> Result<(), Refusal> {
        if !take {
            if let Some(shm) = &self.shm {
                let mut locks = shm.locks.lock();
                let (shared, sole) = locks.entry(self.id).or_default();
                (*shared, *sole) = (*shared & !bits, *sole & !bits);
            }
            return Ok(());
        }
        let state = self.disk.0.lock();
        self.lives(&state)?;
        let Some(shm) = &self.shm else { return Err(Refusal::Dead) };
        if exclusive && bits & 1 != 0 && state.held_for > 0 {
            drop(state);
            self.disk.count(Fault::HeldLedger);
            return Err(Refusal::Busy);
        }
        let mut locks = shm.locks.lock();
        let conflict = locks
            .iter()
            .filter(|(id, _)| **id != self.id)
            .any(|(_, (shared, sole))| sole & bits != 0 || exclusive && shared & bits != 0);
        if conflict {
            return Err(Refusal::Busy);
        }
        let (shared, sole) = locks.entry(self.id).or_default();
        *(if exclusive { sole } else { shared }) |= bits;
        Ok(())
    }

    pub(crate) fn shm_close(&mut self) {
        if let Some(shm) = self.shm.take() {
            shm.locks.lock().remove(&self.id);
        }
    }
}

impl Disk {
    pub(crate) fn count(&self, fault: Fault) {
        self.0.lock().fired.count(fault);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shm_close();
        self.unlock(false);
        if self.delete_on_close {
            self.disk.0.lock().folder.remove(&self.name);
        }
    }
}
