//! A core for the client that is not the server's.

use crate::cores::Cores;
use crate::scenario::Failure;

impl Cores {
    /// Keeps this thread on the first core that the server does not use; on the only one if there is no other.
    #[cfg(target_os = "linux")]
    pub(crate) fn use_another(&self) -> Result<(), Failure> {
        use nix::sched::{CpuSet, sched_setaffinity};
        use nix::unistd::Pid;

        let is_in = |set: &CpuSet, core| set.is_set(core).unwrap_or(false);
        let another =
            (0..CpuSet::count()).find(|&core| is_in(&self.all, core) && !is_in(&self.one, core));
        let Some(core) = another else {
            return self.use_one();
        };
        let mut set = CpuSet::new();
        set.set(core)?;
        Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
    }

    /// Nothing is known about the cores here.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn use_another(&self) -> Result<(), Failure> {
        self.use_one()
    }
}
