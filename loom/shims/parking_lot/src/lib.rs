//! As much of parking_lot as the product's files use, on loom's primitives.

use std::{
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Whether a wait with a time limit ends by that; otherwise it is never reached. Set between two models.
pub static TIME_RUNS_OUT: AtomicBool = AtomicBool::new(true);

#[derive(Debug, Default)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// None only while it waits.
    guard: Option<loom::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, guard: Some(self.0.lock().expect("no model goes on after a panic")) }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("it is locked")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("it is locked")
    }
}

#[derive(Debug, Default)]
pub struct Condvar(loom::sync::Condvar);

pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let locked = guard.guard.take().expect("it is locked");
        guard.guard = Some(self.0.wait(locked).expect("no model goes on after a panic"));
    }

    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) -> WaitTimeoutResult {
        if !TIME_RUNS_OUT.load(Ordering::Relaxed) {
            self.wait(guard);
            return WaitTimeoutResult(false);
        }
        drop(guard.guard.take());
        loom::thread::yield_now();
        guard.guard = guard.mutex.lock().guard;
        WaitTimeoutResult(true)
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }
}
