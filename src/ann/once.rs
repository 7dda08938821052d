//! Values that are made once for each key, while those of other keys are used.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Result;

/// Values by key, each made by the first caller that asks for it.
///
/// Callers that ask for a key while its value is made wait for it. Callers of other keys do not. A failure goes to
/// the caller that made it, and the next one tries again.
pub(super) struct OncePerKey<K, V> {
    cells: Mutex<HashMap<K, Arc<Cell<V>>>>,
}

/// One value, once it is there; locked while it is being made.
type Cell<V> = Mutex<Option<Arc<V>>>;

impl<K, V> Default for OncePerKey<K, V> {
    fn default() -> Self {
        OncePerKey { cells: Mutex::default() }
    }
}

impl<K: Hash + Eq, V> OncePerKey<K, V> {
    /// How many keys have been asked for.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The key's value, by `make` where it is not there yet.
    pub(super) fn get(&self, key: K, make: impl FnOnce() -> Result<V>) -> Result<Arc<V>> {
        // This lock is never held while a value is made. After a panic both locks hold what they did before.
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = Arc::clone(cells.entry(key).or_default());
        drop(cells);
        let mut value = cell.lock().unwrap_or_else(PoisonError::into_inner);
        match &*value {
            Some(made) => Ok(Arc::clone(made)),
            None => Ok(Arc::clone(value.insert(Arc::new(make()?)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;
    use crate::Error;

    fn failed() -> Error {
        Error::argument("once", "value", "made", "nothing")
    }

    #[test]
    fn other_keys_are_answered_while_one_is_made() {
        let values = OncePerKey::default();
        values.get("made", || Ok(1)).unwrap();
        let (started, wait_for_start) = channel();
        let (release, wait_for_release) = channel();
        let values = &values;
        thread::scope(|scope| {
            let slow = scope.spawn(move || {
                values.get("slow", || {
                    started.send(()).unwrap();
                    wait_for_release.recv().unwrap();
                    Ok(2)
                })
            });
            wait_for_start.recv().unwrap();
            // Each of these would wait for ever if it waited for the slow one, which goes on only after them.
            assert_eq!(*values.get("made", || Err(failed())).unwrap(), 1);
            assert_eq!(*values.get("new", || Ok(3)).unwrap(), 3);
            release.send(()).unwrap();
            assert_eq!(*slow.join().unwrap().unwrap(), 2);
        });
    }

    #[test]
    fn many_callers_of_a_key_make_it_once() {
        let values = OncePerKey::default();
        let (made, together) = (AtomicUsize::new(0), Barrier::new(16));
        let get = &|caller: usize| {
            together.wait();
            let make = || Ok(made.fetch_add(1, Ordering::Relaxed));
            values.get(caller % 2, make).unwrap()
        };
        let found: Vec<Arc<usize>> = thread::scope(|scope| {
            let callers: Vec<_> = (0..16).map(|caller| scope.spawn(move || get(caller))).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        assert_eq!(made.into_inner(), 2);
        for (caller, value) in found.iter().enumerate() {
            assert!(Arc::ptr_eq(value, &found[caller % 2]), "caller {caller}");
        }
    }

    #[test]
    fn a_failure_is_tried_again() {
        let values = OncePerKey::default();
        assert!(values.get(7, || Err(failed())).is_err());
        let panicked = catch_unwind(AssertUnwindSafe(|| values.get(7, || panic!("while it is made"))));
        assert!(panicked.is_err());
        assert_eq!(*values.get(7, || Ok("made")).unwrap(), "made");
        assert_eq!(*values.get(7, || Err(failed())).unwrap(), "made");
    }
}
