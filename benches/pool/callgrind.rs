//! Counting instructions, where valgrind is installed.

use std::process::Command;

use crate::scenario::Failure;

/// Whether instructions can be counted here.
pub(crate) fn is_installed() -> bool {
    Command::new(VALGRIND).arg("--version").output().is_ok()
}

/// The instructions, in user mode, of a run of this executable with these words.
pub(crate) fn instructions(flags: &[&str], words: &[String]) -> Result<f64, Failure> {
    let output = Command::new(VALGRIND)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(flags)
        .arg(std::env::current_exe()?)
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
