//! Tells a busy peer from one that keeps us busy (spec http2 rule 14, ruling 2). Pure: frames and the time come as arguments.
//!
//! h2 answers as many PING and SETTINGS as a peer cares to send. What does not move a request on is counted here against two
//! limits: in a span of time, and without any progress in between.

use std::time::Duration;

use tokio::time::Instant;

use super::frames::{END_STREAM, FrameHead, Kind};

/// What a peer has sent of late.
#[derive(Debug)]
pub(super) struct FloodGuard {
    span_began: Instant,
    in_span: u32,
    without_progress: u32,
    /// WINDOW_UPDATE frames that our own DATA accounts for.
    window_updates: u64,
    /// Requests whose response may still begin: each accounts for one head that is not the end of its stream.
    heads: u32,
}

impl FloodGuard {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            span_began: now,
            in_span: 0,
            without_progress: 0,
            window_updates: 0,
            heads: 0,
        }
    }

    /// So many requests have been written.
    pub(super) fn asked(&mut self, requests: u32) {
        self.heads = MOST_HEADS.min(self.heads + requests);
    }

    /// A frame has come. Fails when it is one too many.
    pub(super) fn came(&mut self, frame: FrameHead, now: Instant) -> Result<(), Flood> {
        let is_control = match frame.kind {
            Kind::Ping | Kind::Settings => !frame.is_ack(),
            Kind::Priority | Kind::RstStream | Kind::Unknown => true,
            // An empty one that ends its stream is how many servers end a body.
            Kind::Data => frame.len == 0 && frame.flags & END_STREAM == 0,
            Kind::Continuation => frame.len == 0,
            Kind::WindowUpdate => {
                let accounted = self.window_updates > 0;
                self.window_updates = self.window_updates.saturating_sub(1);
                !accounted
            }
            // Interim responses; h2 keeps them until they are asked for. Nobody asks while a caller is busy elsewhere.
            Kind::Headers if frame.flags & END_STREAM == 0 => {
                let accounted = self.heads > 0;
                self.heads = self.heads.saturating_sub(1);
                !accounted
            }
            Kind::Headers | Kind::PushPromise | Kind::GoAway => false,
        };
        if is_control {
            return self.count(now);
        }
        if matches!(frame.kind, Kind::Headers | Kind::Data) {
            self.without_progress = 0;
        }
        Ok(())
    }

    /// We have written a DATA frame of this many bytes. That is progress, too, and the peer may open its windows for it: for each
    /// KiB that was begun, since some servers do so for each frame, however small.
    pub(super) fn wrote_data(&mut self, bytes: u64) {
        self.without_progress = 0;
        self.window_updates = (self.window_updates + 2 * bytes.div_ceil(1024)).min(MOST_CREDIT);
    }

    fn count(&mut self, now: Instant) -> Result<(), Flood> {
        if now.saturating_duration_since(self.span_began) >= SPAN {
            self.span_began = now;
            self.in_span = 0;
        }
        self.in_span = self.in_span.saturating_add(1);
        self.without_progress = self.without_progress.saturating_add(1);
        if self.in_span > MOST_IN_SPAN || self.without_progress > MOST_WITHOUT_PROGRESS {
            return Err(Flood {
                in_span: self.in_span,
                without_progress: self.without_progress,
            });
        }
        Ok(())
    }
}

/// A peer has sent too much that moves nothing on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flood {
    pub(super) in_span: u32,
    pub(super) without_progress: u32,
}

/// The span of time in which frames are counted.
pub(super) const SPAN: Duration = Duration::from_secs(10);

/// Control frames in a span.
pub(super) const MOST_IN_SPAN: u32 = 10_000;

/// Control frames with neither HEADERS nor DATA between them.
pub(super) const MOST_WITHOUT_PROGRESS: u32 = 1_000;

/// Heads that can be saved up, since a head that ends its stream takes none.
const MOST_HEADS: u32 = 10_000;

/// WINDOW_UPDATE frames that can be saved up.
const MOST_CREDIT: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::http2::frames::ACK;

    fn frame(kind: Kind, len: usize, flags: u8) -> FrameHead {
        FrameHead {
            len,
            kind,
            flags,
            stream: 1,
        }
    }

    /// How many of a frame pass before the guard objects, up to 20,000.
    fn passed(guard: &mut FloodGuard, frame: FrameHead, now: Instant) -> usize {
        (0..20_000)
            .take_while(|_| guard.came(frame, now).is_ok())
            .count()
    }

    #[test]
    fn what_moves_nothing_is_counted_and_the_rest_is_not() {
        let now = Instant::now();
        for (kind, len, flags, counted) in [
            (Kind::Ping, 8, 0, true),
            (Kind::Ping, 8, ACK, false),
            (Kind::Settings, 6, 0, true),
            (Kind::Settings, 0, ACK, false),
            (Kind::Priority, 5, 0, true),
            (Kind::RstStream, 4, 0, true),
            (Kind::Unknown, 100, 0, true),
            (Kind::Data, 0, 0, true),
            (Kind::Data, 0, END_STREAM, false),
            (Kind::Data, 1, 0, false),
            (Kind::Continuation, 0, 0, true),
            (Kind::Continuation, 1, 0, false),
            (Kind::Headers, 9, 0, true),
            (Kind::Headers, 9, END_STREAM, false),
            (Kind::WindowUpdate, 4, 0, true),
            (Kind::GoAway, 8, 0, false),
        ] {
            let mut guard = FloodGuard::new(now);
            let expected = if counted { 1_000 } else { 20_000 };
            let frame = frame(kind, len, flags);
            assert_eq!(passed(&mut guard, frame, now), expected, "{frame:?}");
        }
    }

    #[test]
    fn progress_helps_only_up_to_the_limit_of_a_span() {
        let now = Instant::now();
        let mut guard = FloodGuard::new(now);
        let mut pings = 0;
        while guard.came(frame(Kind::Ping, 8, 0), now).is_ok() {
            pings += 1;
            guard.came(frame(Kind::Data, 1, 0), now).unwrap();
        }
        assert_eq!(pings, 10_000);
        assert!(guard.came(frame(Kind::Ping, 8, 0), now + SPAN).is_ok());
    }

    /// Ruling 2.
    #[test]
    fn our_own_data_accounts_for_window_updates() {
        let now = Instant::now();
        let mut guard = FloodGuard::new(now);
        let update = frame(Kind::WindowUpdate, 4, 0);
        for bytes in [1, 512, 1024] {
            guard.wrote_data(bytes);
        }
        guard.wrote_data(512 + 4 * 1024);
        assert_eq!(passed(&mut guard, update, now), 6 + 10 + 1_000);
    }

    /// Ruling 2: what comes before the final head is counted, however little of it is asked for.
    #[test]
    fn each_request_accounts_for_one_head() {
        let now = Instant::now();
        let mut guard = FloodGuard::new(now);
        guard.asked(10);
        let head = frame(Kind::Headers, 9, 0);
        assert_eq!(passed(&mut guard, head, now), 10 + 1_000);
    }
}
