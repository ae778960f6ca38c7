//! Who waits for a connection of one origin, in the order of their tickets, and what those who were served have not taken yet
//! (spec pool R-Q-1, R-Q-2).
//!
//! A linked list whose cells live in a slab: joining, being served and leaving cost the same however long the line is. A waiter
//! keeps its cell from the moment it joins until it leaves, so that delivery and cancellation meet in one place, under the
//! lock of whoever owns the line. Pure: `host.rs` decides who is served.

use slab::Slab;

/// A place in line. Tickets grow over the whole client, so that waiters of different origins can be compared.
pub(crate) type Ticket = u64;

/// Names a waiter's cell. It is good from [`Line::join`] to [`Line::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    key: usize,
    pub(crate) ticket: Ticket,
}

/// Waiters `W`, and outcomes `O` for them.
#[derive(Debug)]
pub(crate) struct Line<W, O> {
    cells: Slab<Cell<W, O>>,
    first: Option<usize>,
    last: Option<usize>,
    waiting: usize,
    served: usize,
}

#[derive(Debug)]
struct Cell<W, O> {
    ticket: Ticket,
    state: State<W, O>,
}

/// ```text
///   join ──▶ Waiting ──serve──▶ Served ──take──▶ Taken
///               ▲                                  │
///               └──────────────rejoin──────────────┘        leave: from any of them
/// ```
#[derive(Debug)]
enum State<W, O> {
    Waiting {
        waiter: W,
        before: Option<usize>,
        behind: Option<usize>,
    },
    Served(O),
    Taken,
}

impl<W, O> Line<W, O> {
    pub(crate) fn new() -> Self {
        Self {
            cells: Slab::new(),
            first: None,
            last: None,
            waiting: 0,
            served: 0,
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// How many were served and have not taken it.
    pub(crate) fn served(&self) -> usize {
        self.served
    }

    /// The outcomes that nobody has taken yet.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = &O> {
        self.cells.iter().filter_map(|(_, cell)| match &cell.state {
            State::Served(outcome) => Some(outcome),
            State::Waiting { .. } | State::Taken => None,
        })
    }

    /// Who has waited longest.
    pub(crate) fn first(&self) -> Option<Place> {
        self.first.map(|key| self.place(key))
    }

    /// Everybody who waits, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Place, &W)> {
        let mut next = self.first;
        std::iter::from_fn(move || {
            let key = next?;
            let cell = self.cells.get(key)?;
            let State::Waiting { waiter, behind, .. } = &cell.state else {
                return None;
            };
            next = *behind;
            let ticket = cell.ticket;
            Some((Place { key, ticket }, waiter))
        })
    }

    /// Takes a place by its ticket. A new one is the highest, so it is found at once from the back.
    pub(crate) fn join(&mut self, ticket: Ticket, waiter: W) -> Place {
        let key = self.cells.insert(Cell {
            ticket,
            state: State::Taken,
        });
        self.link(key, ticket, waiter);
        Place { key, ticket }
    }

    /// Waits again, at the old place: what was served proved to be of no use (spec pool R-Q-3).
    pub(crate) fn rejoin(&mut self, place: Place, waiter: W) {
        if matches!(self.state(place), Some(State::Taken)) {
            self.link(place.key, place.ticket, waiter);
        }
    }

    /// The waiter at a place, if it still waits.
    pub(crate) fn waiter_mut(&mut self, place: Place) -> Option<&mut W> {
        match self.state_mut(place) {
            Some(State::Waiting { waiter, .. }) => Some(waiter),
            _ => None,
        }
    }

    /// Serves who waits there; hands `outcome` back if nobody does.
    pub(crate) fn serve(&mut self, place: Place, outcome: O) -> Result<W, O> {
        let Some(waiter) = self.unlink(place) else {
            return Err(outcome);
        };
        if let Some(state) = self.state_mut(place) {
            *state = State::Served(outcome);
            self.served += 1;
        }
        Ok(waiter)
    }

    /// What was served there.
    pub(crate) fn take(&mut self, place: Place) -> Option<O> {
        let state = self.state_mut(place)?;
        if !matches!(state, State::Served(_)) {
            return None;
        }
        let State::Served(outcome) = std::mem::replace(state, State::Taken) else {
            return None;
        };
        self.served -= 1;
        Some(outcome)
    }

    /// Leaves the line for good. What had been served and not taken is handed back.
    pub(crate) fn leave(&mut self, place: Place) -> Option<O> {
        self.state(place)?;
        drop(self.unlink(place));
        let outcome = self.take(place);
        self.cells.remove(place.key);
        outcome
    }

    /// Puts a waiter between those of lower and of higher tickets. Those who wait again are older than nearly everybody, so a
    /// search from both ends at once finds either kind soon.
    fn link(&mut self, key: usize, ticket: Ticket, waiter: W) {
        let (before, behind) = self.gap_for(ticket);
        if let Some(cell) = self.cells.get_mut(key) {
            cell.state = State::Waiting {
                waiter,
                before,
                behind,
            };
        }
        match before {
            Some(before) => self.set_behind(before, Some(key)),
            None => self.first = Some(key),
        }
        match behind {
            Some(behind) => self.set_before(behind, Some(key)),
            None => self.last = Some(key),
        }
        self.waiting += 1;
    }

    /// The two neighbours between which a ticket belongs.
    fn gap_for(&self, ticket: Ticket) -> (Option<usize>, Option<usize>) {
        let (mut from_front, mut from_back) = (self.first, self.last);
        loop {
            let Some(front) = from_front else {
                return (self.last, None);
            };
            if self.ticket(front) > ticket {
                return (self.neighbours(front).0, Some(front));
            }
            let Some(back) = from_back else {
                return (None, self.first);
            };
            if self.ticket(back) < ticket {
                return (Some(back), self.neighbours(back).1);
            }
            from_front = self.neighbours(front).1;
            from_back = self.neighbours(back).0;
        }
    }

    /// Takes a waiter out of the list; its cell stays.
    fn unlink(&mut self, place: Place) -> Option<W> {
        let state = self.state_mut(place)?;
        if !matches!(state, State::Waiting { .. }) {
            return None;
        }
        let State::Waiting {
            waiter,
            before,
            behind,
        } = std::mem::replace(state, State::Taken)
        else {
            return None;
        };
        match before {
            Some(before) => self.set_behind(before, behind),
            None => self.first = behind,
        }
        match behind {
            Some(behind) => self.set_before(behind, before),
            None => self.last = before,
        }
        self.waiting -= 1;
        Some(waiter)
    }

    fn place(&self, key: usize) -> Place {
        Place {
            key,
            ticket: self.ticket(key),
        }
    }

    fn ticket(&self, key: usize) -> Ticket {
        self.cells.get(key).map_or(Ticket::MAX, |cell| cell.ticket)
    }

    fn neighbours(&self, key: usize) -> (Option<usize>, Option<usize>) {
        match self.cells.get(key).map(|cell| &cell.state) {
            Some(State::Waiting { before, behind, .. }) => (*before, *behind),
            _ => (None, None),
        }
    }

    fn set_before(&mut self, key: usize, to: Option<usize>) {
        if let Some(State::Waiting { before, .. }) =
            self.cells.get_mut(key).map(|cell| &mut cell.state)
        {
            *before = to;
        }
    }

    fn set_behind(&mut self, key: usize, to: Option<usize>) {
        if let Some(State::Waiting { behind, .. }) =
            self.cells.get_mut(key).map(|cell| &mut cell.state)
        {
            *behind = to;
        }
    }

    /// The state of a cell that is still this waiter's.
    fn state(&self, place: Place) -> Option<&State<W, O>> {
        let cell = self.cells.get(place.key)?;
        (cell.ticket == place.ticket).then_some(&cell.state)
    }

    fn state_mut(&mut self, place: Place) -> Option<&mut State<W, O>> {
        let cell = self.cells.get_mut(place.key)?;
        (cell.ticket == place.ticket).then_some(&mut cell.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Names = Line<&'static str, u32>;

    fn names(line: &Names) -> Vec<&'static str> {
        let forwards: Vec<_> = line.iter().map(|(_, name)| *name).collect();
        assert_eq!(forwards.len(), line.len());
        // The same from the back: every link has its counterpart.
        let mut backwards = Vec::new();
        let mut at = line.last;
        while let Some(key) = at {
            if let State::Waiting { waiter, before, .. } = &line.cells[key].state {
                backwards.push(*waiter);
                at = *before;
            }
        }
        backwards.reverse();
        assert_eq!(forwards, backwards);
        forwards
    }

    #[test]
    fn tickets_decide_whatever_the_order_of_joining() {
        for order in [
            [1, 2, 3],
            [1, 3, 2],
            [2, 1, 3],
            [2, 3, 1],
            [3, 1, 2],
            [3, 2, 1],
        ] {
            let mut line = Names::new();
            for ticket in order {
                line.join(ticket, ["", "a", "b", "c"][ticket as usize]);
            }
            assert_eq!(names(&line), ["a", "b", "c"], "{order:?}");
        }
    }

    #[test]
    fn anyone_may_leave_from_anywhere() {
        for leaving in 0..3 {
            let mut line = Names::new();
            let places = [line.join(1, "a"), line.join(2, "b"), line.join(3, "c")];
            assert_eq!(line.leave(places[leaving]), None);
            let mut left = vec!["a", "b", "c"];
            left.remove(leaving);
            assert_eq!(names(&line), left);
            assert_eq!(line.leave(places[leaving]), None, "a second time");
            assert_eq!(line.cells.len(), 2);
        }
    }

    #[test]
    fn what_was_served_is_taken_once_or_handed_back() {
        let mut line = Names::new();
        let (a, b) = (line.join(1, "a"), line.join(2, "b"));
        assert_eq!(line.serve(a, 10), Ok("a"));
        assert_eq!(line.serve(a, 11), Err(11), "nobody waits there any more");
        assert_eq!(line.serve(b, 20), Ok("b"));
        assert_eq!((line.len(), line.served()), (0, 2));
        assert_eq!(line.take(a), Some(10));
        assert_eq!(line.take(a), None);
        assert_eq!(line.leave(a), None);
        assert_eq!(line.leave(b), Some(20));
        assert_eq!(line.served(), 0);
        assert!(line.cells.is_empty());
    }

    /// spec pool R-Q-3.
    #[test]
    fn who_waits_again_has_the_old_place() {
        let mut line = Names::new();
        let a = line.join(1, "a");
        line.join(2, "b");
        line.join(3, "c");
        assert_eq!(line.serve(a, 10), Ok("a"));
        assert_eq!(line.take(a), Some(10));
        line.rejoin(a, "a again");
        assert_eq!(names(&line), ["a again", "b", "c"]);
        line.rejoin(a, "a thrice");
        assert_eq!(names(&line), ["a again", "b", "c"], "a waits already");
    }

    #[test]
    fn a_cell_that_went_to_another_is_not_the_old_waiters() {
        let mut line = Names::new();
        let a = line.join(1, "a");
        line.leave(a);
        let b = line.join(2, "b");
        assert_eq!(a.key, b.key, "the slab uses cells again");
        assert_eq!(line.serve(a, 10), Err(10));
        assert_eq!(line.leave(a), None);
        assert!(line.waiter_mut(a).is_none());
        assert_eq!(names(&line), ["b"]);
    }
}
