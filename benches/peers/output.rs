//! Files that a bench writes.

use std::path::Path;

use crate::scenario::Failure;

/// Writes a file, and says so.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text)
        .map_err(|error| format!("writing {} failed: {error}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}
