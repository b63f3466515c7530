//! A queue of due times: a heap in which a change costs the same however many entries there are.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Instant;

/// The number by which the keeper knows a life.
pub type Key = u64;

/// How many stale entries the heap may always keep.
const SPARE: usize = 64;

/// At most one due time per key.
#[derive(Default)]
pub(crate) struct Agenda {
    due: HashMap<Key, Instant>,
    /// May contain stale entries: those that `due` does not confirm. They are dropped once they
    /// outnumber the others, as their times may be far in the future.
    heap: BinaryHeap<Reverse<(Instant, Key)>>,
}

impl Agenda {
    /// Sets the time of a key and replaces its previous one. `None` removes it.
    pub(crate) fn set(&mut self, key: Key, at: Option<Instant>) {
        match at {
            None => {
                self.due.remove(&key);
            }
            Some(at) => {
                if self.due.insert(key, at) != Some(at) {
                    self.heap.push(Reverse((at, key)));
                }
            }
        }
        if self.heap.len() > SPARE + 2 * self.due.len() {
            let due = self.due.iter();
            self.heap = due.map(|(key, at)| Reverse((*at, *key))).collect();
        }
    }

    /// The earliest time at which something is due.
    pub(crate) fn first(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, key))) = self.heap.peek() {
            if self.due.get(key) == Some(at) {
                return Some(*at);
            }
            self.heap.pop();
        }
        None
    }

    /// Removes and returns the first key that is due at `now`.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Key> {
        if self.first()? > now {
            return None;
        }
        let Reverse((_, key)) = self.heap.pop()?;
        self.due.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn keys_are_taken_in_the_order_of_their_times_and_not_before() {
        let (mut agenda, start) = (Agenda::default(), Instant::now());
        let at = |n| start + n * Duration::from_secs(1);
        for (key, n) in [(1, 3), (2, 1), (3, 2)] {
            agenda.set(key, Some(at(n)));
        }
        assert_eq!(agenda.first(), Some(at(1)));
        assert_eq!(agenda.take(start), None);
        assert_eq!(agenda.take(at(2)), Some(2));
        assert_eq!(agenda.take(at(2)), Some(3));
        assert_eq!(agenda.take(at(2)), None);
        assert_eq!(agenda.first(), Some(at(3)));
    }

    #[test]
    fn what_is_not_due_any_more_is_not_kept() {
        let (mut agenda, start) = (Agenda::default(), Instant::now());
        let at = |n| start + n * Duration::from_secs(1);
        agenda.set(0, Some(at(5)));
        for n in 1..10_000 {
            agenda.set(n, Some(at(1_000_000)));
            agenda.set(n, None);
            agenda.set(0, Some(at(1_000_000)));
            agenda.set(0, Some(at(5)));
            assert!(agenda.heap.len() <= SPARE + 4);
        }
        assert_eq!(agenda.take(at(5)), Some(0));
        assert_eq!(agenda.first(), None);
    }

    #[test]
    fn the_last_time_that_was_set_holds() {
        let (mut agenda, start) = (Agenda::default(), Instant::now());
        let at = |n| start + n * Duration::from_secs(1);
        agenda.set(1, Some(at(5)));
        agenda.set(1, Some(at(1)));
        agenda.set(2, Some(at(2)));
        agenda.set(2, None);
        assert_eq!(agenda.take(at(9)), Some(1));
        assert_eq!(agenda.take(at(9)), None);
        assert_eq!(agenda.first(), None);
    }
}
