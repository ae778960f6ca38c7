//! Which cores the client may use, and with it where the server runs.
//!
//! A client with one thread shares one core with the server, downloads aside. Left alone, the kernel now puts the two
//! together and now apart, and waking a sleeping core costs several times what a request does: the same
//! contender then swings between two results. A client with more threads may use every core, while the
//! server stays on its one. Away from Linux nothing is pinned, and results swing.

use crate::scenario::Failure;

/// The cores this process was given, and the one among them for client and server together.
#[cfg(target_os = "linux")]
pub(crate) struct Cores {
    pub(crate) all: nix::sched::CpuSet,
    pub(crate) one: nix::sched::CpuSet,
}

#[cfg(target_os = "linux")]
impl Cores {
    /// Asks for the cores this process was given.
    pub(crate) fn given() -> Result<Self, Failure> {
        use nix::sched::{CpuSet, sched_getaffinity};

        let all = sched_getaffinity(THIS_THREAD)?;
        // The last one, because the first tends to serve the interrupts.
        let last = (0..CpuSet::count())
            .rev()
            .find(|&core| all.is_set(core).unwrap_or(false));
        let mut one = CpuSet::new();
        one.set(last.ok_or("this process may run on no core")?)?;
        Ok(Self { all, one })
    }

    /// Keeps this thread, and threads and processes that it starts from now on, on the shared core.
    pub(crate) fn use_one(&self) -> Result<(), Failure> {
        Ok(nix::sched::sched_setaffinity(THIS_THREAD, &self.one)?)
    }

    /// Lets them use every core again.
    pub(crate) fn use_all(&self) -> Result<(), Failure> {
        Ok(nix::sched::sched_setaffinity(THIS_THREAD, &self.all)?)
    }
}

#[cfg(target_os = "linux")]
const THIS_THREAD: nix::unistd::Pid = nix::unistd::Pid::from_raw(0);

/// Nothing is known about the cores here.
#[cfg(not(target_os = "linux"))]
pub(crate) struct Cores;

#[cfg(not(target_os = "linux"))]
impl Cores {
    pub(crate) fn given() -> Result<Self, Failure> {
        Ok(Self)
    }

    pub(crate) fn use_one(&self) -> Result<(), Failure> {
        Ok(())
    }

    pub(crate) fn use_all(&self) -> Result<(), Failure> {
        Ok(())
    }
}
