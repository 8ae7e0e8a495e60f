//! A directory that goes away with its owner.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use uuid::Uuid;

/// See the module.
#[derive(Debug)]
pub struct TemporaryDirectory {
    path: PathBuf,
}

impl TemporaryDirectory {
    /// Makes one where the system keeps such (see `TMPDIR`). Commits are as fast as that disk.
    pub fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("channelstream-bench-{}", Uuid::new_v4().simple()));
        fs::create_dir(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // What stays behind is in the way of nobody.
        let _ = fs::remove_dir_all(&self.path);
    }
}
