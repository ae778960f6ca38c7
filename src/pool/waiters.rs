//! Those who wait at one origin: in what order, what would serve them, and who of them has no dial (spec pool R-Q).
//!
//! The order is `line.rs`; beside it stand indexes, so that whoever is meant is found at once however many stand before him
//! whom it cannot be. `host.rs` decides what is done with whom. Pure.

use std::collections::BTreeMap;
use std::task::Waker;

use super::actions::Served;
use super::line::{Line, Place, Ticket};
use super::sessions::SessionId;

/// The waiters, and outcomes `O` that they have been served.
#[derive(Debug)]
pub(super) struct Waiters<O> {
    line: Line<Waiter, O>,
    /// Those whom an old connection serves as well as a new one.
    any: BTreeMap<Ticket, Place>,
    /// The others, by the session than which theirs must be newer. There are no more entries than sessions and one.
    newer: BTreeMap<SessionId, BTreeMap<Ticket, Place>>,
    /// Those for whom no dial was started: who would be the cause of the next one.
    without_dial: BTreeMap<Ticket, Place>,
}

#[derive(Debug)]
struct Waiter {
    /// Only a new connection or a session newer than this one serves it. `None`: anything does.
    beyond: Option<SessionId>,
    waker: Option<Waker>,
}

impl<O> Waiters<O> {
    pub(super) fn new() -> Self {
        Self {
            line: Line::new(),
            any: BTreeMap::new(),
            newer: BTreeMap::new(),
            without_dial: BTreeMap::new(),
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    /// How many were served and have not taken it.
    pub(super) fn served(&self) -> usize {
        self.line.served()
    }

    /// What was served and has not been taken.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = &O> {
        self.line.outcomes()
    }

    /// Who has waited longest.
    pub(super) fn first(&self) -> Option<Place> {
        self.line.first()
    }

    /// Who has waited longest among those whom an old connection serves.
    pub(super) fn first_for_connection(&self) -> Option<Place> {
        self.any.values().next().copied()
    }

    /// Who has waited longest among those whom a slot of a session serves, and than which session it must be newer.
    pub(super) fn first_for_session(&self, id: SessionId) -> Option<(Place, SessionId)> {
        let any = self.any.values().next().map(|place| (*place, 0));
        let newer = self.newer.range(..id).filter_map(first_of);
        any.into_iter()
            .chain(newer)
            .min_by_key(|(place, _)| place.ticket)
    }

    /// Who has waited longest among those for whom this session and all before it are too old.
    pub(super) fn first_beyond(&self, id: SessionId) -> Option<Place> {
        let newer = self.newer.range(id..).filter_map(first_of);
        newer
            .map(|(place, _)| place)
            .min_by_key(|place| place.ticket)
    }

    /// Than which sessions somebody wants a newer one.
    pub(super) fn beyond(&self) -> impl Iterator<Item = SessionId> {
        self.newer.keys().copied()
    }

    /// Takes a place in line. Nobody dials for the newcomer yet.
    pub(super) fn join(&mut self, ticket: Ticket, beyond: Option<SessionId>) -> Place {
        let waiter = Waiter {
            beyond,
            waker: None,
        };
        let place = self.line.join(ticket, waiter);
        self.note(place, beyond);
        place
    }

    /// Waits again at the old place; answers whether it does.
    pub(super) fn rejoin(&mut self, place: Place, beyond: Option<SessionId>) -> bool {
        if self.line.waiter_mut(place).is_some() {
            return false;
        }
        let waiter = Waiter {
            beyond,
            waker: None,
        };
        self.line.rejoin(place, waiter);
        let waits = self.line.waiter_mut(place).is_some();
        if waits {
            self.note(place, beyond);
        }
        waits
    }

    fn note(&mut self, place: Place, beyond: Option<SessionId>) {
        self.without_dial.insert(place.ticket, place);
        let index = match beyond {
            None => &mut self.any,
            Some(id) => self.newer.entry(id).or_default(),
        };
        index.insert(place.ticket, place);
    }

    fn forget(&mut self, ticket: Ticket, beyond: Option<SessionId>) {
        self.without_dial.remove(&ticket);
        let Some(id) = beyond else {
            self.any.remove(&ticket);
            return;
        };
        if let Some(index) = self.newer.get_mut(&id) {
            index.remove(&ticket);
            if index.is_empty() {
                self.newer.remove(&id);
            }
        }
    }

    /// A session is forgotten: who wants a newer one wants one that is newer than the one `before` it, which is the same now.
    pub(super) fn forget_session(&mut self, id: SessionId, before: SessionId) {
        let Some(mut moving) = self.newer.remove(&id) else {
            return;
        };
        for place in moving.values() {
            if let Some(waiter) = self.line.waiter_mut(*place) {
                waiter.beyond = Some(before);
            }
        }
        self.newer.entry(before).or_default().append(&mut moving);
    }

    /// Who waits there is woken by `waker` from now on.
    pub(super) fn wake_by(&mut self, place: Place, waker: &Waker) {
        if let Some(waiter) = self.line.waiter_mut(place) {
            match &mut waiter.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
    }

    /// What was served there.
    pub(super) fn take(&mut self, place: Place) -> Option<O> {
        self.line.take(place)
    }

    /// Serves who waits there; hands `outcome` back if nobody does.
    pub(super) fn serve(&mut self, place: Place, outcome: O) -> Result<Served, O> {
        let waiter = self.line.serve(place, outcome)?;
        self.forget(place.ticket, waiter.beyond);
        Ok(Served {
            ticket: place.ticket,
            waker: waiter.waker,
        })
    }

    /// Leaves the line for good. What had been served and not taken is handed back.
    pub(super) fn leave(&mut self, place: Place) -> Option<O> {
        if let Some(beyond) = self.line.waiter_mut(place).map(|waiter| waiter.beyond) {
            self.forget(place.ticket, beyond);
        }
        self.line.leave(place)
    }

    /// Who would be the cause of the next dial.
    pub(super) fn first_without_dial(&self) -> Option<Place> {
        self.without_dial.values().next().copied()
    }

    /// A dial starts for who would be the cause of the next one; answers for whom.
    pub(super) fn dial_for_first(&mut self) -> Option<Place> {
        self.without_dial.pop_first().map(|(_, place)| place)
    }

    /// The dial that was started for who waits there has ended.
    pub(super) fn lost_dial(&mut self, place: Place) {
        if self.line.waiter_mut(place).is_some() {
            self.without_dial.insert(place.ticket, place);
        }
    }

    /// No dial runs by name but those that `causes` caused.
    pub(super) fn dialled_only_for(&mut self, causes: impl Iterator<Item = Place>) {
        self.without_dial = self
            .line
            .iter()
            .map(|(place, _)| (place.ticket, place))
            .collect();
        for cause in causes {
            // The same ticket at another place is another try, which has not caused this dial.
            if self.without_dial.get(&cause.ticket) == Some(&cause) {
                self.without_dial.remove(&cause.ticket);
            }
        }
    }

    /// Whether the indexes say what the line says.
    pub(super) fn check(&self) -> Result<(), String> {
        let (mut waiting, mut any) = (BTreeMap::new(), BTreeMap::new());
        let mut newer = BTreeMap::<_, BTreeMap<_, _>>::new();
        for (place, waiter) in self.line.iter() {
            waiting.insert(place.ticket, place);
            let index = match waiter.beyond {
                None => &mut any,
                Some(id) => newer.entry(id).or_default(),
            };
            index.insert(place.ticket, place);
        }
        if any != self.any || newer != self.newer {
            return Err(format!(
                "{any:?} wait for anything and {newer:?} for what is newer, but known are {:?} and {:?}",
                self.any, self.newer
            ));
        }
        let forgotten = self
            .without_dial
            .iter()
            .find(|(ticket, place)| waiting.get(*ticket) != Some(*place));
        match forgotten {
            Some((_, place)) => Err(format!("a dial would start for nobody: {place:?}")),
            None => Ok(()),
        }
    }
}

fn first_of((id, index): (&SessionId, &BTreeMap<Ticket, Place>)) -> Option<(Place, SessionId)> {
    index.values().next().map(|place| (*place, *id))
}
