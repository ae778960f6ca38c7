//! How long a connection may be kept (spec pool 3.2, R-LIFE-2). Pure: the limits, what is known of the connection and the time
//! come as arguments.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Limits;
use crate::connection::Standing;
use crate::stats::CloseCause;

/// A connection that is about to be idle, or was.
#[derive(Debug)]
pub(super) struct Age<'a> {
    pub(super) limits: &'a Limits,
    pub(super) standing: &'a Standing,
    /// From 0 to 65,535; different from one connection to the next.
    pub(super) draw: u16,
}

impl Age<'_> {
    /// Until when it may be idle, or why it must close.
    pub(super) fn idle_until(&self, now: Instant) -> Result<Instant, CloseCause> {
        let end = self.end_of_life();
        let max_requests = self.limits.max_requests_per_connection;
        let worn = max_requests.is_some_and(|max| self.standing.served >= max);
        if worn || end.is_some_and(|end| end <= now) {
            return Err(CloseCause::Lifetime);
        }
        let timeout = self.idle_timeout();
        if timeout.is_zero() {
            return Err(self.idle_cause());
        }
        let idle = now.checked_add(timeout).unwrap_or_else(|| now + FAR);
        Ok(end.map_or(idle, |end| idle.min(end)))
    }

    /// Why it closes now that its time as an idle one is over.
    pub(super) fn expired_by(&self, now: Instant) -> CloseCause {
        match self.end_of_life() {
            Some(end) if end <= now => CloseCause::Lifetime,
            _ => self.idle_cause(),
        }
    }

    /// Those that were opened together must not end together, so each has a life of its own: 0.9 to 1.1 times the limit.
    pub(super) fn end_of_life(&self) -> Option<Instant> {
        let max = self.limits.max_lifetime?;
        let tenth = max / 10;
        let life = max.checked_sub(tenth)?.checked_add(tenth.mul_f64(
            // From 0 to 2.
            f64::from(self.draw) / f64::from(u16::MAX) * 2.0,
        ))?;
        self.standing.dialled.checked_add(life)
    }

    fn idle_timeout(&self) -> Duration {
        match self.standing.keep_alive {
            // The server closes at about the time it names; a request on its way then would be lost.
            Some(seconds) => Duration::from_secs(seconds.saturating_sub(2)).min(LONGEST_HINT),
            None if self.standing.served == 0 => self.limits.idle_timeout.max(PRECONNECTED),
            None => self.limits.idle_timeout,
        }
    }

    fn idle_cause(&self) -> CloseCause {
        match self.standing.keep_alive {
            Some(_) => CloseCause::KeepAliveHint,
            None => CloseCause::Idle,
        }
    }
}

/// A connection that nobody has used yet is kept for at least this long.
const PRECONNECTED: Duration = Duration::from_secs(10);

/// Stands in for a time that the clock cannot express.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A server's keep-alive hint counts up to this.
const LONGEST_HINT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that was dialled two seconds before `now`.
    struct Case {
        limits: Limits,
        served: u64,
        keep_alive: Option<u64>,
        draw: u16,
    }

    impl Case {
        fn new(limits: Limits) -> Self {
            Self {
                limits,
                served: 1,
                keep_alive: None,
                draw: u16::MAX / 2,
            }
        }

        /// Milliseconds that it may be idle.
        fn check(&self, expected: Result<u128, CloseCause>) {
            let dialled = Instant::now();
            let now = dialled + Duration::from_secs(2);
            let standing = Standing {
                close: None,
                served: self.served,
                dialled,
                id: 1,
                keep_alive: self.keep_alive,
            };
            let age = Age {
                limits: &self.limits,
                standing: &standing,
                draw: self.draw,
            };
            let until = age.idle_until(now);
            assert_eq!(until.map(|until| (until - now).as_millis()), expected);
        }
    }

    #[test]
    fn the_idle_timeout_or_the_servers_hint() {
        let defaults = || Case::new(Limits::default());
        defaults().check(Ok(5_000));
        for (seconds, expected) in [
            (3, Ok(1_000)),
            (2, Err(CloseCause::KeepAliveHint)),
            (0, Err(CloseCause::KeepAliveHint)),
            (30, Ok(28_000)),
            (62, Ok(60_000)),
            (u64::MAX, Ok(60_000)),
        ] {
            let case = Case {
                keep_alive: Some(seconds),
                ..defaults()
            };
            case.check(expected);
        }
        Case {
            served: 0,
            ..defaults()
        }
        .check(Ok(10_000));
        let zero = Limits::default().with_idle_timeout(Duration::ZERO);
        Case::new(zero).check(Err(CloseCause::Idle));
        let endless = Limits::default().with_idle_timeout(Duration::MAX);
        Case::new(endless).check(Ok(FAR.as_millis()));
    }

    #[test]
    fn a_life_ends_a_tenth_earlier_or_later() {
        let living = |life| Case::new(Limits::default().with_max_lifetime(Some(life)));
        for (draw, left) in [(0, 2_500), (u16::MAX, 3_500)] {
            Case {
                draw,
                ..living(Duration::from_secs(5))
            }
            .check(Ok(left));
        }
        Case {
            draw: 0,
            ..living(Duration::from_secs(2))
        }
        .check(Err(CloseCause::Lifetime));
        Case {
            draw: u16::MAX,
            ..living(Duration::from_secs(2))
        }
        .check(Ok(200));
        living(Duration::ZERO).check(Err(CloseCause::Lifetime));
        living(Duration::MAX).check(Ok(5_000));
        let worn = Limits::default().with_max_requests_per_connection(Some(1));
        Case::new(worn).check(Err(CloseCause::Lifetime));
    }
}
