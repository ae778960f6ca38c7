//! What must be equal in the machine and the model, and what must hold in both, after every event.
//!
//! Called by `driver.rs`, which has the books of what was lent, closed and looked at.

use std::fmt::Debug;

use super::driver::{Difference, Driver};
use super::model::State;
use crate::pool::host::{Lent, NextLook};

impl Driver<'_> {
    /// What must hold after every event.
    pub(super) fn compare(&mut self) -> Result<(), Difference> {
        let now = self.model.now;
        let census = self.model.census();
        self.note(|| format!("    {census:?}"));
        same("the census", &self.machine.census(), &census)?;
        if let Err(broken) = self.machine.check(now) {
            return Err(format!("the machine says of itself: {broken}"));
        }
        same(
            "who is first in line",
            &self.machine.first_in_line(),
            &self.model.first_in_line(),
        )?;
        same(
            "who is dialled for next",
            &self.machine.wants_dial(now),
            &self.model.wants_dial(),
        )?;
        same(
            "whether a dial that nobody waits for is wanted",
            &self.machine.wants_spare_dial(now),
            &self.model.wants_spare_dial(),
        )?;
        same(
            "since when the oldest is idle",
            &self.machine.oldest_idle(),
            &self.model.oldest_idle(),
        )?;
        same(
            "whether another session is needed",
            &self.machine.needs_session(now),
            &self.model.needs_session(),
        )?;
        same(
            "the pool's clock",
            &self.machine.undialled(now),
            &self.model.undialled(),
        )?;
        let wakes = self.wakers.iter();
        let wakes: Vec<_> = wakes.map(|waker| waker.get()).collect();
        same("who was woken", &wakes, &self.model.wakes)?;
        self.check_books()?;
        self.check_reaper()
    }

    /// Nothing is lost and nothing is in two places; no limit is exceeded.
    fn check_books(&self) -> Result<(), Difference> {
        let mut places = vec![0; usize::try_from(self.connections_made).unwrap_or(0) + 1];
        let mut streams = Vec::new();
        for seat in &self.model.seats {
            match &seat.state {
                State::Served(Ok(Lent::Connection(connection))) => {
                    places[*connection as usize] += 1;
                }
                State::Served(Ok(Lent::Slot(id, _))) => streams.push(*id),
                State::Served(Err(_)) | State::Waiting | State::Taken => {}
            }
        }
        let idle = self.model.idle.iter().map(|idle| idle.connection);
        let suspects = self.suspects.iter().map(|(_, known)| known.connection);
        let others = self.lent.iter().chain(&self.closed).copied();
        let open = idle.chain(suspects).chain(others);
        for connection in open {
            places[connection as usize] += 1;
        }
        if let Some(at) = (1..places.len()).find(|at| places[*at] != 1) {
            return Err(format!("connection {at} is in {} places", places[at]));
        }
        streams.extend(&self.slots);
        for session in &self.model.sessions {
            let out = streams.iter().filter(|id| **id == session.id).count();
            same("the streams of a session", &session.active, &out)?;
        }
        let open = places.len() - 1 - self.closed.len();
        let count = open + self.model.sessions.len() + self.model.dials.len() + self.returning;
        same("the permits that are out", &self.model.count, &count)?;
        if self.model.limits.connections.is_some_and(|max| count > max) {
            return Err(format!("{count} connections are over the limit"));
        }
        Ok(())
    }

    /// Spec pool 3.11: whatever is idle is known to a reaper, or will be looked at before its time is over.
    fn check_reaper(&self) -> Result<(), Difference> {
        let unknown = match self.reaper {
            NextLook::Soon => false,
            look => {
                let unarmed = self.model.idle.iter().any(|idle| !idle.armed);
                let expiry = self.model.next_expiry();
                let too_late = expiry.is_some_and(|expiry| match look {
                    NextLook::At(at) => expiry < at,
                    NextLook::Soon | NextLook::Never => true,
                });
                unarmed || too_late
            }
        };
        if unknown {
            return Err(format!(
                "no reaper knows of what is idle: {:?}",
                self.reaper
            ));
        }
        Ok(())
    }
}

/// Whether the two say the same.
pub(super) fn same<T: PartialEq + Debug>(
    what: &str,
    machine: &T,
    model: &T,
) -> Result<(), Difference> {
    if machine == model {
        return Ok(());
    }
    Err(format!(
        "{what}: the machine says {machine:?}, the model says {model:?}"
    ))
}
