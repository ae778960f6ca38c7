//! What may happen to one origin, and which byte means it.

/// What may happen. `detail` is the byte that says to whom and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Looks for something free, and takes a place in line if there is nothing.
    Arrive,
    /// Takes a place without having looked.
    Join,
    /// Takes a place for a new connection, or a session newer than some.
    JoinForNew,
    /// Takes a place with a ticket that is older than the newest.
    JoinLate,
    Poll,
    Leave,
    Pump,
    DialledHttp1,
    DialledHttp2,
    DialFailed,
    DialDropped,
    Release,
    Discard,
    ReleaseSlot,
    SetMaxStreams,
    SetSuspect,
    Retire,
    SessionGone,
    Evict,
    Expire,
    TakeSuspects,
    PutBack,
    DrainIdle,
    DrainAll,
    Look,
    SawStale,
    PermitReturned,
    /// Time passes; or the client is closed, which comes seldom, because little happens after it.
    WaitOrClose,
    /// A dial starts that nobody waits for, if one is wanted.
    PumpSpare,
    /// Many streams are opened, or all end.
    Crowd,
}

/// How many of 68 bytes mean it.
const EVENTS: [(Event, u8); 30] = [
    (Event::Arrive, 4),
    (Event::Join, 1),
    (Event::JoinForNew, 1),
    (Event::JoinLate, 2),
    (Event::Poll, 6),
    (Event::Leave, 4),
    (Event::Pump, 5),
    (Event::DialledHttp1, 5),
    (Event::DialledHttp2, 3),
    (Event::DialFailed, 2),
    (Event::DialDropped, 1),
    (Event::Release, 6),
    (Event::Discard, 1),
    (Event::ReleaseSlot, 3),
    (Event::SetMaxStreams, 2),
    (Event::SetSuspect, 1),
    (Event::Retire, 1),
    (Event::SessionGone, 1),
    (Event::Evict, 1),
    (Event::Expire, 1),
    (Event::TakeSuspects, 2),
    (Event::PutBack, 2),
    (Event::DrainIdle, 1),
    (Event::DrainAll, 1),
    (Event::Look, 2),
    (Event::SawStale, 1),
    (Event::PermitReturned, 1),
    (Event::WaitOrClose, 3),
    (Event::PumpSpare, 2),
    (Event::Crowd, 2),
];

/// What a byte means.
pub(super) fn event(byte: u8) -> Event {
    let mut left = byte % 68;
    for (event, share) in &EVENTS {
        if left < *share {
            return *event;
        }
        left -= share;
    }
    Event::WaitOrClose
}
