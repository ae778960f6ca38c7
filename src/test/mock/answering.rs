//! What the mock says to a dial and to a request: the first rule that fits, or why there is none.

use std::fmt::Write as _;
use std::time::Duration;

use super::rule::{Kind, Misfit};
use super::{Shared, State};
use crate::error::BoxFuture;
use crate::test::received::{Received, without_values};
use crate::test::reply::Fault;
use crate::test::server::{Act, Answerer, Place};
use crate::url::Origin;

impl Shared {
    /// Whether a dial to this origin fails, and how; that counts as a use of the rule.
    pub(super) fn refuse(&self, origin: &Origin) -> Option<Fault> {
        let fault = {
            let mut state = self.lock();
            let entry = state.refusing(origin)?;
            let fault = entry.next_of_dials();
            entry.take();
            fault
        };
        self.changed.notify_waiters();
        fault
    }
}

impl State {
    fn refusing(&mut self, origin: &Origin) -> Option<&mut super::Entry> {
        let mut rules = self.rules.iter_mut();
        rules.find(|entry| entry.pattern.is_at(origin) && entry.next_of_dials().is_some())
    }

    /// The answer of the first rule that fits.
    fn choose(&mut self, origin: &Origin, received: &Received) -> Result<(Kind, Duration), String> {
        let mut near = String::new();
        for at in 0..self.rules.len() {
            let Some(entry) = self.rules.get_mut(at) else {
                break;
            };
            match entry.fits(origin, received) {
                Ok(()) => {
                    if let Some((act, delay)) = entry.take() {
                        return Ok((act.0, delay));
                    }
                }
                Err(Misfit::Other) => {}
                Err(Misfit::UsedUp) => {
                    let _ = write!(
                        near,
                        "; rule {} ({entry}) is used up after {}",
                        at + 1,
                        entry.used()
                    );
                }
                Err(Misfit::Condition(why)) => {
                    let _ = write!(near, "; rule {} ({entry}) does not fit: {why}", at + 1);
                }
            }
        }
        Err(format!(
            "the mock has no rule for {} {}{near}",
            received.method,
            without_values(&received.url)
        ))
    }
}

impl Answerer for Shared {
    fn answer<'a>(&'a self, at: &'a Place, received: Received) -> BoxFuture<'a, (Act, Duration)> {
        Box::pin(async move {
            let chosen = {
                let mut state = self.lock();
                state.history.push(received.clone());
                let chosen = state.choose(&at.origin, &received);
                if let Err(why) = &chosen {
                    state.denied.push(why.clone());
                }
                chosen
            };
            self.changed.notify_waiters();
            match chosen {
                Ok((Kind::Reply(reply), delay)) => (Act::Reply(reply), delay),
                Ok((Kind::Fault(fault), delay)) => (Act::Fault(fault), delay),
                Ok((Kind::Call(call), delay)) => (Act::Reply(call(received).await), delay),
                Err(why) => (Act::Deny(why), Duration::ZERO),
            }
        })
    }

    fn dismissal<'a>(&'a self, origin: &'a Origin) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            loop {
                let changed = self.changed.notified();
                if self.lock().refusing(origin).is_some() {
                    return;
                }
                changed.await;
            }
        })
    }
}
