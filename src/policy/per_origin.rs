//! What policies remember of origins, within a bound.
//!
//! A map under a lock that is held for a look-up only: whoever calls an origin often keeps what it found.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::url::Origin;

/// One value an origin, of [`MAX_ORIGINS`] origins at most.
#[derive(Debug)]
pub(super) struct PerOrigin<T>(Mutex<Known<T>>);

#[derive(Debug)]
struct Known<T> {
    values: HashMap<Origin, Entry<T>>,
    /// How many were ever made.
    made: u64,
}

#[derive(Debug)]
struct Entry<T> {
    value: Arc<T>,
    number: u64,
}

/// What would be lost with a value, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    Nothing,
    /// What can be learned again.
    Learned,
    /// What a user has said.
    Said,
}

impl<T> Default for PerOrigin<T> {
    fn default() -> Self {
        Self(Mutex::new(Known {
            values: HashMap::new(),
            made: 0,
        }))
    }
}

impl<T> PerOrigin<T> {
    /// The value of an origin, made when it is first needed.
    ///
    /// At the bound another one is forgotten: of those that are worth least the oldest that nobody holds, else the oldest of them.
    /// Who holds a forgotten one keeps it to himself.
    pub(super) fn get_or_insert(
        &self,
        origin: &Origin,
        make: impl FnOnce() -> T,
        worth: impl Fn(&T) -> Worth,
    ) -> Arc<T> {
        let mut known = self.lock();
        if let Some(entry) = known.values.get(origin) {
            return Arc::clone(&entry.value);
        }
        if known.values.len() >= MAX_ORIGINS {
            known.forget_one(worth);
        }
        let value = Arc::new(make());
        let number = known.made;
        known.made += 1;
        let entry = Entry {
            value: Arc::clone(&value),
            number,
        };
        known.values.insert(origin.clone(), entry);
        value
    }

    /// The value of an origin, if there is one.
    pub(super) fn get(&self, origin: &Origin) -> Option<Arc<T>> {
        let known = self.lock();
        let entry = known.values.get(origin)?;
        Some(Arc::clone(&entry.value))
    }

    fn lock(&self) -> MutexGuard<'_, Known<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Known<T> {
    /// A scan of all: it happens when an origin beyond the bound is called for the first time.
    fn forget_one(&mut self, worth: impl Fn(&T) -> Worth) {
        let rank = |entry: &Entry<T>| {
            let is_held = Arc::strong_count(&entry.value) > 1;
            (worth(&entry.value), is_held, entry.number)
        };
        let least = self.values.iter().min_by_key(|(_, entry)| rank(entry));
        if let Some(origin) = least.map(|(origin, _)| origin.clone()) {
            self.values.remove(&origin);
        }
    }
}

/// Enough for a service that calls other services, and a bound for a crawler: an origin takes about half a kibibyte.
const MAX_ORIGINS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::Target;

    fn origin(number: usize) -> Origin {
        let parsed = Target::parse_base(&format!("http://h{number}.test")).unwrap();
        parsed.target.origin()
    }

    #[test]
    fn an_origin_keeps_its_value() {
        let kept = PerOrigin::default();
        let first = kept.get_or_insert(&origin(1), || 1, |_| Worth::Nothing);
        let again = kept.get_or_insert(&origin(1), || 2, |_| Worth::Nothing);
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(kept.get(&origin(1)).as_deref(), Some(&1));
        assert_eq!(kept.get(&origin(2)), None);
    }

    #[test]
    fn what_says_something_and_what_is_held_is_forgotten_last() {
        let kept = PerOrigin::default();
        let worth = |number: &usize| match number {
            n if n % 2 == 1 => Worth::Nothing,
            44 => Worth::Said,
            _ => Worth::Learned,
        };
        let insert = |number| kept.get_or_insert(&origin(number), || number, worth);
        // 0 says something, 1 is held.
        drop(insert(0));
        let held = insert(1);
        for number in 2..MAX_ORIGINS {
            drop(insert(number));
        }
        for number in 0..600 {
            drop(insert(MAX_ORIGINS + number));
            assert_eq!(kept.lock().values.len(), MAX_ORIGINS);
        }
        assert!(kept.get(&origin(0)).is_some());
        assert!(kept.get(&origin(1)).is_some());
        assert!(kept.get(&origin(3)).is_none());
        assert!(kept.get(&origin(2)).is_some());
        // Nothing that says nothing is left but what is held and what came last: then that goes, and then the oldest.
        for number in 0..2 * MAX_ORIGINS {
            drop(insert(10_000 + 2 * number));
        }
        assert_eq!(kept.lock().values.len(), MAX_ORIGINS);
        assert!(kept.get(&origin(0)).is_none());
        assert!(kept.get(&origin(1)).is_none());
        // However many others have something to say.
        assert!(kept.get(&origin(44)).is_some());
        assert_eq!(*held, 1);
    }
}
