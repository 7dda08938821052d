//! Files that appear whole or not at all.

use std::fs::File;
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
    // Tempfile's own way of opening makes files for their owner only, and wraps errors to name the temporary file.
    let mut problem = None;
    let opened = tempfile::Builder::new().prefix(".xlann-").suffix(".part").make_in(&folder, |path| {
        let file = File::create_new(path);
        problem = file.as_ref().err().and_then(std::io::Error::raw_os_error);
        file
    });
    let temporary =
        opened.map_err(|error| io(&path, problem.map_or(error, std::io::Error::from_raw_os_error)))?;
    let mut writer = BufWriter::with_capacity(1 << 16, temporary.as_file());
    content(&mut writer)?;
    let file = writer.into_inner().map_err(|error| io(&path, error.into_error()))?;
    // Else a power loss after the renaming could leave an empty file under the name.
    file.sync_all().map_err(|error| io(&path, error))?;
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

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.into(), source }
}
