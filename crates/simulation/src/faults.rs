//! The kinds of faults, and how often each really happened: one that was planned and met nothing counts for nothing.

use std::fmt;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $words:literal),+ $(,)?) => {
        /// A kind of fault.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Fault {
            $($(#[$doc])* $name),+
        }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// What it is, in words.
            #[must_use]
            pub fn words(self) -> &'static str {
                match self { $(Self::$name => $words),+ }
            }
        }
    };
}

faults! {
    /// The power goes while nothing is written.
    PowerCut = "power cut between two steps",
    /// The power goes in the middle of a write or a sync.
    PowerCutAtWork = "power cut in the middle of a write or sync",
    /// The process is killed; what it wrote stays with the operating system.
    Kill = "process killed between two steps",
    /// The same, in the middle of a write or a sync.
    KillAtWork = "process killed in the middle of a write or sync",
    /// A crash while the ledger is being opened.
    CrashAtStart = "crash during start-up",
    /// The ledger cannot be opened, because the disk fails.
    FailedStart = "start-up failed by the disk, tried again",
    /// A clean stop and a start.
    Restart = "clean stop and start",
    /// A write that was not synced is gone after a power cut.
    LostWrite = "unsynced write lost",
    /// Some sectors of one are.
    TornWrite = "unsynced write torn by sectors",
    /// A later write survived where an earlier one did not.
    ReorderedWrite = "unsynced write kept although an earlier one is lost",
    /// A new file whose folder was not synced is gone.
    LostFile = "new file lost with its folder entry",
    /// A removed file whose folder was not synced is back.
    FileIsBack = "removed file back after a power cut",
    /// A write fails.
    WriteError = "write failed (EIO)",
    /// A part of a write is done, and then it fails.
    ShortWrite = "write failed half-way",
    /// A sync fails.
    SyncError = "fsync failed (EIO)",
    /// Another handle of the file is told of it.
    SyncErrorAgain = "failed fsync told to another handle",
    /// A failed sync dropped what it should have written, as Linux does.
    DroppedPages = "pages dropped after a failed fsync",
    /// There is no room for a file to grow.
    DiskFull = "disk full (ENOSPC)",
    /// A read fails.
    ReadError = "read failed (EIO)",
    /// The writer failed and selling stopped.
    SellingStopped = "selling stopped until the next start",
    /// Somebody else holds the ledger's write lock.
    HeldLedger = "ledger locked by somebody else",
    /// The clock goes on by an hour.
    ClockForward = "clock jumps forward (up to an hour)",
    /// The clock goes back by up to an hour.
    ClockBack = "clock jumps back (up to an hour)",
    /// Somebody hangs up before the answer.
    HangUp = "caller hangs up before the answer",
    /// An answer was ready when the process died, and was not sent.
    LostReply = "answer lost in a crash",
    /// The order queue delivers an old batch again.
    OldDelivery = "old delivery repeated",
    /// The order queue holds a batch back while other things happen.
    SlowDelivery = "delivery held back",
    /// There was no room in the commit queue.
    QueueFull = "commit queue full (503)",
    /// Something else happened while the disk was at work.
    Overlap = "other steps while the disk is at work",
    /// The log was copied into the file.
    Checkpoint = "checkpoint of the log",
    /// A reader keeps its snapshot over other steps.
    LongRead = "long read across other steps",
}

/// How often each kind of fault happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fired(Vec<u64>);

impl Default for Fired {
    fn default() -> Self {
        Self(vec![0; Fault::ALL.len()])
    }
}

impl Fired {
    pub(crate) fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// How often `fault` happened.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Adds what `other` counted.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    /// The kinds that never happened.
    #[must_use]
    pub fn missing(&self) -> Vec<Fault> {
        Fault::ALL.iter().copied().filter(|fault| self.of(*fault) == 0).collect()
    }
}

impl fmt::Display for Fired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in Fault::ALL {
            writeln!(f, "  {:<52} {:>12}", fault.words(), self.of(*fault))?;
        }
        Ok(())
    }
}
