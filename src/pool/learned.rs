//! What origins turned out to speak, remembered for longer than their connections last (spec pool R-ALPN-2).
//!
//! The first calls to an origin whose protocol is unknown wait for one dial to find out. That is to be paid once an origin, not
//! after every pause. Bounded, so that a client that talks to ever new origins does not grow. Pure.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::host::Spoken;
use crate::url::Origin;

/// Protocols by origin.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    known: HashMap<Origin, Known>,
    /// Counts uses, so that the least recently used is known without a clock.
    uses: u64,
}

#[derive(Debug)]
struct Known {
    spoken: Spoken,
    until: Instant,
    last_use: u64,
}

impl Learned {
    /// What a dial to this origin should expect.
    pub(crate) fn get(&mut self, origin: &Origin, now: Instant) -> Spoken {
        self.uses += 1;
        match self.known.get_mut(origin) {
            Some(known) if now < known.until => {
                known.last_use = self.uses;
                known.spoken
            }
            _ => Spoken::Unknown,
        }
    }

    /// A dial has found out; answers what was known. The one that was used least recently makes room.
    pub(crate) fn learn(&mut self, origin: &Origin, spoken: Spoken, now: Instant) -> Spoken {
        let before = self.get(origin, now);
        self.uses += 1;
        if self.known.len() >= MAX_ORIGINS && !self.known.contains_key(origin) {
            self.known.retain(|_, known| now < known.until);
            let least = self.known.iter().min_by_key(|(_, known)| known.last_use);
            if let Some(least) = least.map(|(origin, _)| origin.clone()) {
                if self.known.len() >= MAX_ORIGINS {
                    self.known.remove(&least);
                }
            }
        }
        let known = Known {
            spoken,
            until: now + KEPT,
            last_use: self.uses,
        };
        self.known.insert(origin.clone(), known);
        before
    }
}

/// Origins that are remembered.
const MAX_ORIGINS: usize = 4096;

/// For how long.
const KEPT: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::UrlInput;

    fn origin(number: usize) -> Origin {
        let url = format!("https://h{number}.test");
        let parsed = UrlInput::Text(url.into()).parse(None).unwrap();
        parsed.target.origin()
    }

    #[test]
    fn what_was_learnt_is_known_for_an_hour() {
        let now = Instant::now();
        let mut learned = Learned::default();
        assert_eq!(learned.get(&origin(1), now), Spoken::Unknown);
        learned.learn(&origin(1), Spoken::Http2, now);
        for (after, spoken) in [
            (0, Spoken::Http2),
            (3599, Spoken::Http2),
            (3600, Spoken::Unknown),
        ] {
            let now = now + Duration::from_secs(after);
            assert_eq!(learned.get(&origin(1), now), spoken, "{after} s");
        }
        learned.learn(&origin(1), Spoken::Http1, now);
        assert_eq!(learned.get(&origin(1), now), Spoken::Http1);
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let now = Instant::now();
        let mut learned = Learned::default();
        for number in 0..MAX_ORIGINS {
            learned.learn(&origin(number), Spoken::Http1, now);
        }
        assert_eq!(learned.get(&origin(0), now), Spoken::Http1);
        learned.learn(&origin(MAX_ORIGINS), Spoken::Http1, now);
        assert_eq!(learned.known.len(), MAX_ORIGINS);
        assert_eq!(learned.get(&origin(0), now), Spoken::Http1);
        assert_eq!(learned.get(&origin(1), now), Spoken::Unknown);
        // Those that are out of date go first, all of them.
        let later = now + KEPT;
        learned.learn(&origin(1), Spoken::Http1, later);
        assert_eq!(learned.known.len(), 1);
    }
}
