//! A disk that is soon full.

use std::path::Path;
use std::process::Command;

use super::run;

/// A file system in memory, mounted as long as this value lives.
pub struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// Mounts one of a size such as `16m` at `path`.
    pub fn mount(path: &'a Path, size: &str) -> Self {
        let options = format!("size={size}");
        let place = path.to_str().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", place]);
        Self(path)
    }

    /// Takes all room that is left, as another program does.
    pub fn fill(&self) {
        let mut options = std::fs::File::options();
        let file = options.create(true).append(true);
        let file = file.open(self.0.join("filler")).unwrap();
        let block = vec![0; 1 << 20];
        let mut writer = &file;
        while std::io::Write::write(&mut writer, &block).is_ok_and(|length| length > 0) {}
    }

    /// Gives the room back.
    pub fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }

    /// Makes it as large as `size`.
    pub fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        run("mount", &["-o", &options, self.0.to_str().unwrap()]);
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let umount = Command::new("umount").arg("-l").arg(self.0).status();
        assert!(umount.is_ok_and(|status| status.success()));
    }
}
