//! Files that appear whole or not at all.

use std::fs::{File, Permissions};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::damaged;
use crate::{Error, Result};

/// Writes a file through a temporary one in its folder, which takes its place when all is written; an error,
/// or a kill, leaves what was there before.
pub(super) fn write(path: &Path, content: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<()> {
    // A symbolic link stays one: what it points at is replaced.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    // Renaming over a device such as /dev/null would replace the device.
    if let Ok(kind) = std::fs::metadata(&path)
        && !kind.is_file()
    {
        return Err(damaged(
            &path,
            "a file, or nothing there",
            if kind.is_dir() { "a directory" } else { "a device" },
        ));
    }
    let folder = folder_of(&path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".xlann-").suffix(".part");
    // Temporary files are for their owner only by default; this one becomes an ordinary file, as the umask has it.
    #[cfg(unix)]
    builder.permissions(<Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666));
    let temporary = builder.tempfile_in(&folder).map_err(|error| io(&path, error))?;
    let mut writer = BufWriter::with_capacity(1 << 16, temporary.as_file());
    content(&mut writer)?;
    writer.into_inner().map_err(|error| io(&path, error.into_error()))?;
    temporary.persist(&path).map_err(|error| io(&path, error.error))?;
    Ok(())
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// An [`Error::Io`] at the file itself: an error of tempfile names the temporary one as well.
fn io(path: &Path, error: std::io::Error) -> Error {
    let source = error.raw_os_error().map_or(error, std::io::Error::from_raw_os_error);
    Error::Io { path: path.into(), source }
}
