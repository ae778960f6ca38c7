//! Counting instructions, where valgrind is installed.

use std::path::Path;
use std::process::Command;

use crate::scenario::Failure;

/// Whether instructions can be counted here.
pub(crate) fn is_installed() -> bool {
    Command::new(VALGRIND).arg("--version").output().is_ok()
}

/// The instructions, in user mode, of a run of this executable with these words.
#[allow(dead_code, reason = "the bench `watching` runs others")]
pub(crate) fn instructions(flags: &[&str], words: &[String]) -> Result<f64, Failure> {
    instructions_of(&std::env::current_exe()?, flags, words)
}

/// The same of another executable.
pub(crate) fn instructions_of(
    executable: &Path,
    flags: &[&str],
    words: &[String],
) -> Result<f64, Failure> {
    let output = Command::new(VALGRIND)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(flags)
        .arg(executable)
        .args(words)
        .output()?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(log.trim().into());
    }
    let count = log
        .lines()
        .find_map(|line| line.split("Collected :").nth(1));
    Ok(count.ok_or("callgrind told no count")?.trim().parse()?)
}

/// Counts instructions.
const VALGRIND: &str = "valgrind";
