//! As much of tokio as the product's files use, on loom's primitives.

pub mod sync {
    use std::task::Waker;

    use loom::sync::Mutex;

    /// `tokio::sync::Notify`, for those who use `notify_waiters` alone: a waiter hears all that comes after it was made.
    #[derive(Debug, Default)]
    pub struct Notify(Mutex<Calls>);

    #[derive(Debug, Default)]
    struct Calls {
        count: u64,
        waiting: Vec<Waker>,
    }

    impl Notify {
        pub fn notified(&self) -> futures::Notified<'_> {
            futures::Notified { notify: self, made_at: self.calls().count }
        }

        pub fn notify_waiters(&self) {
            let waiting = {
                let mut calls = self.calls();
                calls.count += 1;
                std::mem::take(&mut calls.waiting)
            };
            waiting.into_iter().for_each(Waker::wake);
        }

        fn calls(&self) -> loom::sync::MutexGuard<'_, Calls> {
            self.0.lock().expect("no model goes on after a panic")
        }
    }

    pub mod futures {
        use std::{
            future::Future,
            pin::Pin,
            task::{Context, Poll},
        };

        pub struct Notified<'a> {
            pub(super) notify: &'a super::Notify,
            pub(super) made_at: u64,
        }

        impl Notified<'_> {
            pub fn enable(self: Pin<&mut Self>) -> bool {
                self.notify.calls().count > self.made_at
            }
        }

        impl Future for Notified<'_> {
            type Output = ();

            fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
                let mut calls = self.notify.calls();
                if calls.count > self.made_at {
                    return Poll::Ready(());
                }
                calls.waiting.push(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// `tokio::sync::oneshot`, as far as a sender goes: the models look at who was taken, not at what is answered.
    pub mod oneshot {
        pub struct Sender<T>(std::marker::PhantomData<T>);
        pub struct Receiver<T>(std::marker::PhantomData<T>);

        pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
            (Sender(std::marker::PhantomData), Receiver(std::marker::PhantomData))
        }
    }
}
