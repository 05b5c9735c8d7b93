//! Writes calls down while they happen.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::{Call, Told};

/// Writes down what many clients ask and are told. All times are by one clock, its own.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    calls: Mutex<Vec<Call>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { began: Instant::now(), calls: Mutex::default() }
    }
}

impl Recorder {
    /// Notes that a request that may buy in the name of `user` is about to be sent.
    pub fn ask(&self, user: impl Into<String>) -> Asked<'_> {
        Asked { recorder: self, user: user.into(), sent: self.now(), told: Some(Told::Nothing) }
    }

    /// Notes that somebody is about to look at what `user` holds, or with no name at the sale. Without an answer it says
    /// nothing, and is forgotten.
    pub fn look(&self, user: impl Into<String>) -> Asked<'_> {
        Asked { recorder: self, user: user.into(), sent: self.now(), told: None }
    }

    /// Nanoseconds since it began.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The calls that are over.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Call>> {
        // A panic elsewhere does not make wrong what was written before it.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way. One that may buy, dropped without an answer, is one that had none.
#[derive(Debug)]
pub struct Asked<'a> {
    recorder: &'a Recorder,
    user: String,
    sent: u64,
    told: Option<Told>,
}

impl Asked<'_> {
    /// Notes what was answered, now.
    pub fn told(mut self, told: Told) {
        self.told = Some(told);
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let Some(told) = self.told.take() else { return };
        let user = std::mem::take(&mut self.user);
        let call = Call { user, sent: self.sent, answered: self.recorder.now(), told };
        self.recorder.lock().push(call);
    }
}
