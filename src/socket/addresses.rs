//! Which address of a host is tried first: the order of a dial, and who is tried last for a while.
//!
//! Pure: the time and the number of the dial are arguments. It opens nothing; `dial` asks it for an order, `tcp` tries
//! the addresses in that order and says which of them failed. No address is ever left out, so that a wrong penalty costs
//! time at most (spec pool R-DIAL-6 and R-LIFE-3).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The order in which dial number `rotation` tries `addresses`.
///
/// The families take turns, beginning with that of the first address (RFC 8305 section 4, with a First Address Family Count
/// of 1). Within each family the start moves on by one from dial to dial, which spreads connections over the servers of a
/// name. Penalised addresses come last.
pub(super) fn order(
    addresses: &[SocketAddr],
    rotation: usize,
    penalties: &Penalties,
    now: Instant,
) -> Vec<SocketAddr> {
    let is_ipv4_first = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (mut first, mut second): (Vec<SocketAddr>, Vec<SocketAddr>) = addresses
        .iter()
        .partition(|address| address.is_ipv4() == is_ipv4_first);
    for family in [&mut first, &mut second] {
        let start = rotation.checked_rem(family.len()).unwrap_or(0);
        family.rotate_left(start);
    }
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::with_capacity(addresses.len());
    while ordered.len() < addresses.len() {
        ordered.extend(first.next());
        ordered.extend(second.next());
    }
    penalties.put_last(&mut ordered, now);
    ordered
}

/// The addresses that are tried last for now: those that failed, that another one overtook, or that were silent until the
/// dial ended. Shared by all dials of a client.
#[derive(Debug, Default)]
pub(super) struct Penalties {
    /// How many are held, so that a client that holds none takes no lock. A dial that just misses a penalty only loses
    /// time, so no more is promised than that the number becomes visible.
    count: AtomicUsize,
    /// Held for a few lines, and never while another lock is.
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    ends: HashMap<SocketAddr, Instant>,
    /// No penalty ends before this.
    earliest: Option<Instant>,
}

impl Penalties {
    /// Has `address` tried last for a while from `now` on.
    pub(super) fn penalise(&self, address: SocketAddr, now: Instant) {
        let mut held = self.lock();
        held.forget_ended(now);
        if held.ends.len() >= MAX_PENALTIES && !held.ends.contains_key(&address) {
            held.forget_first();
        }
        let end = now + PENALTY;
        // Two dials may come here in another order than that in which they read the clock.
        let known = held.ends.entry(address).or_insert(end);
        *known = end.max(*known);
        held.earliest = held
            .earliest
            .map(|earliest| earliest.min(end))
            .or(Some(end));
        self.count.store(held.ends.len(), Ordering::Relaxed);
    }

    /// Ends the penalty of an address that has accepted a connection.
    pub(super) fn clear(&self, address: SocketAddr) {
        if self.is_empty() {
            return;
        }
        let mut held = self.lock();
        held.ends.remove(&address);
        self.count.store(held.ends.len(), Ordering::Relaxed);
    }

    /// Whether `address` is tried last at `now`.
    pub(super) fn holds(&self, address: SocketAddr, now: Instant) -> bool {
        !self.is_empty() && self.lock().holds(address, now)
    }

    /// Moves the penalised addresses to the end; otherwise the order stays.
    fn put_last(&self, addresses: &mut [SocketAddr], now: Instant) {
        if self.is_empty() {
            return;
        }
        let mut held = self.lock();
        held.forget_ended(now);
        self.count.store(held.ends.len(), Ordering::Relaxed);
        addresses.sort_by_key(|address| held.holds(*address, now));
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn holds(&self, address: SocketAddr, now: Instant) -> bool {
        self.ends.get(&address).is_some_and(|end| *end > now)
    }

    /// Looks at every penalty only when one of them has ended.
    fn forget_ended(&mut self, now: Instant) {
        if self.earliest.is_some_and(|earliest| earliest <= now) {
            self.ends.retain(|_, end| *end > now);
            self.earliest = self.ends.values().min().copied();
        }
    }

    fn forget_first(&mut self) {
        let first = self.ends.iter().min_by_key(|(_, end)| **end);
        if let Some(address) = first.map(|(address, _)| *address) {
            self.ends.remove(&address);
        }
    }
}

/// How long an address is tried last: long enough that not every dial pays for a dead one, and short enough that one that
/// has come back is soon used again.
const PENALTY: Duration = Duration::from_secs(30);

/// Addresses held at most, so that names with ever new addresses cannot fill the memory: some 100 KiB. As many as the
/// origins whose other state a client keeps; whoever talks to more dead addresses at once has none to prefer.
const MAX_PENALTIES: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    /// An address for a letter: capitals are IPv6.
    fn address(letter: char) -> SocketAddr {
        let number = u8::try_from(letter).unwrap();
        if letter.is_uppercase() {
            format!("[2001:db8::{number}]:80").parse().unwrap()
        } else {
            format!("192.0.2.{number}:80").parse().unwrap()
        }
    }

    fn addresses(letters: &str) -> Vec<SocketAddr> {
        letters.chars().map(address).collect()
    }

    fn later(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[test]
    fn order_of_a_dial() {
        // (resolved, rotation, penalised, order)
        let rows = [
            ("", 0, "", ""),
            ("", 7, "a", ""),
            ("a", 0, "", "a"),
            ("a", 7, "", "a"),
            ("a", 7, "a", "a"),
            // The families take turns, beginning with the first, as long as there are two.
            ("abAB", 0, "", "aAbB"),
            ("ABab", 0, "", "AaBb"),
            ("Aabc", 0, "", "Aabc"),
            ("abcA", 0, "", "aAbc"),
            ("ABCa", 0, "", "AaBC"),
            ("abc", 0, "", "abc"),
            ("ABC", 0, "", "ABC"),
            // Each family moves on by itself, and wraps.
            ("abc", 1, "", "bca"),
            ("abc", 2, "", "cab"),
            ("abc", 3, "", "abc"),
            ("abc", 4, "", "bca"),
            ("abc", usize::MAX, "", "abc"),
            ("ABabc", 1, "", "BbAca"),
            ("ABabc", 2, "", "AcBab"),
            ("ABabc", 5, "", "BcAab"),
            ("ABabc", 6, "", "AaBbc"),
            // Penalised addresses come last and otherwise keep their order.
            ("abc", 0, "a", "bca"),
            ("abc", 0, "b", "acb"),
            ("abc", 0, "ba", "cab"),
            ("abc", 1, "b", "cab"),
            ("abc", 1, "ab", "cba"),
            ("ABab", 0, "A", "aBbA"),
            ("ABab", 0, "AB", "abAB"),
            ("ABab", 0, "abAB", "AaBb"),
            ("ABab", 1, "abAB", "BbAa"),
            ("abc", 0, "xyz", "abc"),
            // What a resolver says twice is tried twice.
            ("aab", 0, "", "aab"),
            ("aab", 1, "", "aba"),
            ("aaA", 0, "", "aAa"),
            ("aab", 0, "a", "baa"),
        ];
        let now = Instant::now();
        for (resolved, rotation, penalised, expected) in rows {
            let penalties = Penalties::default();
            for letter in penalised.chars() {
                penalties.penalise(address(letter), now);
            }
            let ordered = order(&addresses(resolved), rotation, &penalties, now);
            assert_eq!(
                ordered,
                addresses(expected),
                "{resolved} at {rotation} without {penalised}"
            );
        }
    }

    #[test]
    fn no_order_loses_an_address() {
        let now = Instant::now();
        let resolved = "aAbBcdefghijklmnopCDEFGHqrstuvwx";
        assert_eq!(resolved.len(), 32);
        let mut expected = addresses(resolved);
        expected.sort();
        for rotation in 0..100 {
            let penalties = Penalties::default();
            for letter in resolved.chars().step_by(rotation % 7 + 1) {
                penalties.penalise(address(letter), now);
            }
            let mut ordered = order(&addresses(resolved), rotation, &penalties, now);
            ordered.sort();
            assert_eq!(ordered, expected);
        }
    }

    #[test]
    fn the_port_is_part_of_what_is_penalised() {
        let now = Instant::now();
        let penalties = Penalties::default();
        let one: SocketAddr = "192.0.2.1:80".parse().unwrap();
        penalties.penalise(one, now);
        assert!(penalties.holds(one, now));
        assert!(!penalties.holds("192.0.2.1:81".parse().unwrap(), now));
    }

    #[test]
    fn a_penalty_ends_after_30_seconds() {
        let now = Instant::now();
        let penalties = Penalties::default();
        penalties.penalise(address('a'), now);
        penalties.penalise(address('b'), later(now, 20));
        let ordered = |at| order(&addresses("abc"), 0, &penalties, later(now, at));
        assert_eq!(ordered(0), addresses("cab"));
        assert_eq!(ordered(29), addresses("cab"));
        assert!(penalties.holds(address('a'), later(now, 29)));
        assert!(!penalties.holds(address('a'), later(now, 30)));
        assert_eq!(ordered(30), addresses("acb"));
        assert_eq!(penalties.lock().ends.len(), 1);
        assert_eq!(ordered(49), addresses("acb"));
        assert_eq!(penalties.lock().ends.len(), 1);
        assert_eq!(ordered(50), addresses("abc"));
        assert!(
            penalties.is_empty(),
            "what has ended costs the next dial a lock"
        );
    }

    /// The clock is read before the lock is taken, so penalties may come in another order than they end.
    #[test]
    fn a_penalty_that_comes_late_still_ends_first() {
        let now = Instant::now();
        let penalties = Penalties::default();
        penalties.penalise(address('a'), later(now, 10));
        penalties.penalise(address('b'), now);
        let ordered = order(&addresses("abc"), 0, &penalties, later(now, 30));
        assert_eq!(ordered, addresses("bca"));
        assert_eq!(penalties.lock().ends.len(), 1);
    }

    #[test]
    fn a_penalty_can_be_made_longer_but_not_shorter() {
        let now = Instant::now();
        let penalties = Penalties::default();
        penalties.penalise(address('a'), later(now, 10));
        penalties.penalise(address('a'), now);
        assert!(penalties.holds(address('a'), later(now, 39)));
        penalties.penalise(address('a'), later(now, 20));
        assert!(penalties.holds(address('a'), later(now, 49)));
        assert!(!penalties.holds(address('a'), later(now, 50)));
        // The first end is known to be another one by now; what ends later is still forgotten.
        assert_eq!(
            order(&addresses("ab"), 0, &penalties, later(now, 50)),
            addresses("ab")
        );
        assert!(penalties.is_empty());
    }

    #[test]
    fn an_address_that_accepts_is_forgiven() {
        let now = Instant::now();
        let penalties = Penalties::default();
        penalties.clear(address('a'));
        penalties.penalise(address('a'), now);
        penalties.penalise(address('b'), now);
        penalties.clear(address('a'));
        penalties.clear(address('x'));
        assert!(!penalties.holds(address('a'), now));
        assert!(penalties.holds(address('b'), now));
        penalties.clear(address('b'));
        assert!(penalties.is_empty());
    }

    #[test]
    fn the_penalty_that_ends_first_makes_room() {
        let now = Instant::now();
        let nth = |number: usize| {
            let [.., high, low] = number.to_be_bytes();
            SocketAddr::from(([198, 51, high, low], 80))
        };
        let at = |number: usize| now + Duration::from_millis(u64::try_from(number).unwrap());
        let penalties = Penalties::default();
        for number in 0..MAX_PENALTIES {
            penalties.penalise(nth(number), at(number));
        }
        // One that is held needs no room, and does not end first any more.
        let full = at(MAX_PENALTIES);
        for again in [7, 0] {
            penalties.penalise(nth(again), full);
            assert!((0..MAX_PENALTIES).all(|number| penalties.holds(nth(number), full)));
        }
        penalties.penalise(nth(MAX_PENALTIES), full);
        assert!(penalties.holds(nth(MAX_PENALTIES), full));
        assert!(penalties.holds(nth(0), full));
        assert!(!penalties.holds(nth(1), full));
        assert!(penalties.holds(nth(2), full));
        assert_eq!(penalties.lock().ends.len(), MAX_PENALTIES);
        // What has ended makes room for all that come.
        penalties.penalise(nth(1), later(full, 30));
        assert_eq!(penalties.lock().ends.len(), 1);
    }

    #[test]
    fn no_lock_is_taken_while_nobody_is_penalised() {
        let penalties = Arc::new(Penalties::default());
        let held = penalties.lock();
        let (done, finished) = mpsc::channel();
        let other = std::thread::spawn({
            let penalties = Arc::clone(&penalties);
            move || {
                let now = Instant::now();
                penalties.clear(address('a'));
                let held = penalties.holds(address('a'), now);
                let ordered = order(&addresses("ab"), 1, &penalties, now);
                done.send((held, ordered)).unwrap();
            }
        });
        let outcome = finished.recv_timeout(Duration::from_secs(10));
        drop(held);
        assert_eq!(outcome, Ok((false, addresses("ba"))));
        other.join().unwrap();
    }
}
