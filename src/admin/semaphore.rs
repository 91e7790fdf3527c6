//! A semaphore for the tasks of one event loop.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Permits that are taken and given back. At most one task may wait for a permit.
pub(super) struct Semaphore {
    free: Cell<usize>,
    waiting: Cell<Option<Waker>>,
}

/// One permit. It is given back when it is dropped.
pub(super) struct Permit(Rc<Semaphore>);

impl Semaphore {
    pub(super) fn new(permits: usize) -> Rc<Self> {
        Rc::new(Self {
            free: Cell::new(permits),
            waiting: Cell::default(),
        })
    }

    /// Waits until a permit is free and takes it.
    pub(super) async fn acquire(self: &Rc<Self>) -> Permit {
        poll_fn(|context| match self.free.get().checked_sub(1) {
            Some(left) => {
                self.free.set(left);
                Poll::Ready(Permit(Rc::clone(self)))
            }
            None => {
                self.waiting.set(Some(context.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let semaphore = &self.0;
        semaphore.free.set(semaphore.free.get() + 1);
        if let Some(waiting) = semaphore.waiting.take() {
            waiting.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_waiting_task_is_woken_when_a_permit_is_given_back() {
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let semaphore = Semaphore::new(2);
        let mut take = || match pin!(semaphore.acquire()).poll(&mut context) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        };
        let (first, second) = (take(), take());
        assert!(first.is_some() && second.is_some());
        assert!(take().is_none());
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        drop(first);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        let third = take();
        assert!(third.is_some());
        assert!(take().is_none());
        drop((second, third));
        // A task is woken once.
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        assert!(take().is_some());
    }
}
