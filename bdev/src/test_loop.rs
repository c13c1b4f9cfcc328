//! A loop device for one test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Attached while it exists. A device that is still open then goes when it is closed, whatever becomes of this process.
#[derive(Debug)]
pub(crate) struct LoopDevice(PathBuf);

impl LoopDevice {
    /// A device over `file`; `None`, and a message, where the machine does not let us have one.
    pub(crate) fn attach(file: &Path, sector_size: u32) -> Option<Self> {
        let output = Command::new("losetup")
            .args(["--find", "--show", "--sector-size"])
            .arg(sector_size.to_string())
            .arg(file)
            .output();
        match output {
            Ok(output) if output.status.success() => {
                let path = String::from_utf8(output.stdout).unwrap();
                Some(Self(path.trim().into()))
            }
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr);
                println!("not tried on a block device, losetup says: {why}");
                None
            }
            Err(error) => {
                println!("not tried on a block device, losetup does not run: {error}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Takes over the present length of the file below.
    pub(crate) fn refresh(&self) {
        let status = Command::new("losetup").arg("-c").arg(&self.0).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let status = Command::new("losetup").arg("-d").arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}
